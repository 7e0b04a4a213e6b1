//go:build interop

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// TestDaemonOnUnitSockets: sockets that units hand over are the daemon's API and NBD
// by their names, in the place of the usual ones, and stay when it ends.
func TestDaemonOnUnitSockets(t *testing.T) {
	lab.Need(t, "nbdinfo")
	dir := filepath.Dir(lab.Socket(t))
	config := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := lab.NewServiceManager(t)
	api, nbd := filepath.Join(dir, "a"), filepath.Join(dir, "n")
	m.Listen("api", "unix", api)
	m.Listen("nbd", "unix", nbd)
	tcp := m.Listen("nbd", "tcp", "127.0.0.1:0").String()
	p := m.Start(lab.Sluice(t), "daemon", "--config", config, "--state", filepath.Join(dir, "state"), "--metrics", "none")
	m.Ready()
	c, err := apiclient.New(apiclient.Config{Address: "unix:" + api})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st, err := c.Add(t.Context(), spec.Spec{Name: "disk", URL: sparseImage(t, "disk", 1)})
	want := []string{"nbd+unix:///disk?socket=" + nbd, "nbd://" + tcp + "/disk"}
	if err != nil || strings.Join(st.URIs, " ") != strings.Join(want, " ") {
		t.Errorf("the export is at %q, want %q; %v", st.URIs, want, err)
	}
	p.Expect("ready api unix:" + api)
	p.Expect("ready nbd unix:" + nbd)
	p.Expect("ready nbd tcp:" + tcp)
	if strings.Contains(p.Stdout(), "/run/") {
		t.Errorf("it is elsewhere, too: %s", p.Stdout())
	}
	sizes := func() {
		t.Helper()
		for _, uri := range want {
			if text := lab.Run(t, "nbdinfo", "--size", uri); text != "1048576\n" {
				t.Errorf("%s: %q", uri, text)
			}
		}
	}
	sizes()
	for _, end := range []func(){m.Kill9, func() {
		if err := m.End(); err != nil {
			t.Errorf("the end: %v", err)
		}
	}} {
		end()
		early := lab.Start(t, "nbdinfo", "--size", want[0]) // nobody refuses it
		m.Restart()
		if err := early.Wait(); err != nil || early.Stdout() != "1048576\n" {
			t.Errorf("who came meanwhile: %q, %v", early.Output(), err)
		}
		sizes()
		if list, err := c.List(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
	}
}

// TestDaemonFeedsItsWatchdog: often enough, from the time when it is ready until it
// is told to end.
func TestDaemonFeedsItsWatchdog(t *testing.T) {
	const interval = 2 * time.Second
	m := lab.NewServiceManager(t)
	dir := filepath.Dir(lab.Socket(t))
	at := func(name string) string { return filepath.Join(dir, name) }
	m.Setenv("WATCHDOG_USEC", "2000000")
	m.Start(lab.Sluice(t), "daemon", "--state", at("state"), "--api", "unix:"+at("api"), "--nbd", "unix:"+at("nbd"), "--metrics", "none")
	last := m.Await("READY=1").At
	for range 3 {
		at := m.Await("WATCHDOG=1").At
		if gap := at.Sub(last); gap >= interval {
			t.Errorf("it was silent for %v: the manager would have killed it after %v", gap, interval)
		}
		last = at
	}
	if err := m.Stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
	m.Await("STOPPING=1")
}
