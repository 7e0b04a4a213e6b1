//go:build interop

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// TestDaemonServesMetricsOfUnits: sockets of units that are named metrics are served
// in the place of the default address, whatever they are.
func TestDaemonServesMetricsOfUnits(t *testing.T) {
	m := lab.NewServiceManager(t)
	dir := filepath.Dir(lab.Socket(t))
	at := func(name string) string { return filepath.Join(dir, name) }
	tcp := m.Listen("metrics", "tcp", "127.0.0.1:0").String()
	m.Listen("metrics", "unix", at("metrics"))
	p := m.Start(lab.Sluice(t), "daemon", "--state", at("state"), "--api", "unix:"+at("api"), "--nbd", "unix:"+at("nbd"))
	m.Ready()
	p.Expect("ready metrics " + tcp)
	p.Expect("ready metrics unix:" + at("metrics"))
	if n := strings.Count(p.Stdout(), "ready metrics"); n != 2 {
		t.Errorf("%d places: %s", n, p.Stdout())
	}
	for network, address := range map[string]string{"tcp": tcp, "unix": at("metrics")} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
		res, err := client.Get("http://metrics/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(text), "sluice_build_info") {
			t.Errorf("%s: %.100s, %v", network, text, err)
		}
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
}
