package apiclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/gateway/httpapi"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served starts a daemon's API over a gateway without devices until the test
// ends, and gives a client.
func served(t *testing.T, cfg httpapi.Config) (*Client, *httpapi.Server, string) {
	t.Helper()
	srv := httpapi.New(cfg)
	socket := lab.Socket(t)
	l, err := endpoint.Listen(t.Context(), endpoint.Address{Network: "unix", Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	apitest.Serve(t, srv, l)
	return client(t, Config{Address: "unix:" + socket}), srv, socket
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestCalls goes through all methods.
func TestCalls(t *testing.T) {
	fake := apitest.New()
	reloaded := 0
	c, _, _ := served(t, httpapi.Config{
		Gateway: fake, Version: "v2", Started: apitest.Start,
		Reload: func(context.Context) error { reloaded++; return nil },
	})
	ctx := t.Context()
	const name = `a %41 "ü"?`
	whole := spec.Spec{Name: name, URL: "nbd://u:p@h/x", Settings: spec.Settings{
		OnError:  spec.OnError{Policy: "error", Limit: spec.Duration(time.Minute)},
		Throttle: spec.Throttle{ReadIOPS: 1<<62 + 1, ReadBytes: 1<<62 + 3, Burst: spec.Duration(time.Second)},
	}}
	st, err := c.Add(ctx, whole)
	if err != nil {
		t.Fatal(err)
	}
	want := whole
	want.URL = "nbd://h/x"
	if diff := cmp.Diff(want, st.Spec); diff != "" {
		t.Error(diff)
	}
	shown, err := c.Show(ctx, name)
	if diff := cmp.Diff(st, shown); diff != "" || err != nil {
		t.Error(diff, err)
	}
	all, err := c.List(ctx)
	if diff := cmp.Diff([]gateway.Status{st}, all); diff != "" || err != nil {
		t.Error(diff, err)
	}
	st, err = c.Change(ctx, name, map[string]any{"throttle": map[string]any{"read_iops": 5, "burst": nil}})
	want.Throttle.ReadIOPS, want.Throttle.Burst = 5, 0
	if diff := cmp.Diff(want, st.Spec); diff != "" || err != nil {
		t.Error(diff, err)
	}
	st, err = c.Replace(ctx, name, spec.Settings{SlowRequest: spec.Duration(time.Second)})
	want.Settings = spec.Settings{SlowRequest: spec.Duration(time.Second)}
	if diff := cmp.Diff(want, st.Spec); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if st, err = c.Resize(ctx, name, 5<<30, false); err != nil || st.Size != 5<<30 {
		t.Error(st.Size, err)
	}
	if _, err = c.Resize(ctx, name, 1<<30, false); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
	if st, err = c.Resize(ctx, name, 1<<30, true); err != nil || st.Size != 1<<30 {
		t.Error(st.Size, err)
	}
	fake.Set(name, func(st *gateway.Status) { st.State = gateway.Frozen })
	if st, err = c.Resume(ctx, name); err != nil || st.State != gateway.Serving {
		t.Error(st.State, err)
	}
	one, err := c.Stats(ctx, name)
	every, err2 := c.Stats(ctx, "")
	if diff := cmp.Diff(one, every); diff != "" || err != nil || err2 != nil || len(one) != 1 || one[0].Ops[0].Requests != 3 {
		t.Error(diff, err, err2, one)
	}
	d, err := c.Daemon(ctx)
	if err != nil || d.Version != "v2" || d.PID != os.Getpid() || d.Exports != 1 || !d.Started.Equal(apitest.Start) {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.Reload(ctx); err != nil || reloaded != 1 {
		t.Error(err, reloaded)
	}
	fake.Use(name, true)
	if err := c.Remove(ctx, name, false); !errors.Is(err, block.Busy) {
		t.Error(err)
	}
	if err := c.Remove(ctx, name, true); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, name, true); !errors.Is(err, block.NotFound) || err.Error() != "remove export "+name+": not found" {
		t.Error(err)
	}
	if all, err := c.List(ctx); err != nil || all == nil || len(all) != 0 {
		t.Error(all, err)
	}
}

// TestErrors: kind and text are those of the gateway's error.
func TestErrors(t *testing.T) {
	var fail error
	fake := apitest.New()
	fake.Hook = func(context.Context, string, string) error { return fail }
	c, _, _ := served(t, httpapi.Config{Gateway: fake})
	for kind := block.IO; kind <= block.Canceled; kind++ {
		for _, fail = range []error{
			block.Errorf(kind, "open", "/a: b/disk", -1, ""),
			block.Errorf(kind, "open", "/a: b/disk", -1, "the cause: %s", "of it"),
			block.Errorf(kind, "write", "disk", 4096, "no"),
			block.Errorf(kind, "write", "disk", 4096, ""),
			&block.Error{Kind: kind, Op: "swap", Object: "disk", Off: -1, Err: block.Errorf(block.IO, "flush", "old", -1, "two\nlines")},
		} {
			_, err := c.Resume(t.Context(), "disk")
			var e *block.Error
			if !errors.As(err, &e) || e.Kind != kind || err.Error() != strings.ReplaceAll(fail.Error(), "\n", "; ") || !errors.Is(err, kind) {
				t.Errorf("%#v became %#v: %v", fail, err, err)
			}
		}
	}
	fail = errors.New("nothing is known")
	if _, err := c.Resume(t.Context(), "disk"); block.KindOf(err) != block.IO || err.Error() != "resume export disk: nothing is known" {
		t.Error(err)
	}
}

// TestBadCalls do not leave the client.
func TestBadCalls(t *testing.T) {
	c := client(t, Config{Address: "unix:/nonexistent/s"})
	for _, name := range []string{"", "..", "a/b", "a\nb", "../status"} {
		_, err := c.Show(t.Context(), name)
		if block.KindOf(err) != block.Invalid || !strings.Contains(err.Error(), "the name ") {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := c.Add(t.Context(), spec.Spec{Name: name, URL: "x"}); block.KindOf(err) != block.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := c.Change(t.Context(), "a", map[string]any{"x": func() {}}); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		text string
	}{
		{Config{Address: "here"}, "parse API address here: neither unix:PATH nor tcp:HOST:PORT"},
		{Config{Address: ""}, "parse API address: neither unix:PATH nor tcp:HOST:PORT"},
		{Config{Address: "tcp:h"}, "parse API address tcp:h: not tcp:HOST:PORT"},
		{Config{Address: "tcp:h:1"}, "parse API address tcp:h:1: over TCP the daemon wants a certificate"},
		{Config{Address: "tcp:h:1", Cert: "c", Key: "k"}, "parse API address tcp:h:1: over TCP the daemon wants a certificate"},
		{Config{Address: "unix:/s", CA: "c"}, "parse API address unix:/s: a unix socket takes no certificates"},
		{Config{Address: "tcp:h:1", Cert: "/none", Key: "/none", CA: "/none"}, "read certificate /none: no such file"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.HasPrefix(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	for _, c := range []struct {
		uid              int
		base, want, fail string
	}{
		{0, "", "unix:/run/sluice/api.sock", ""},
		{1000, "/run/user/1000", "unix:/run/user/1000/sluice/api.sock", ""},
		{1000, "", "", "find the daemon: XDG_RUNTIME_DIR is not set; say where it is with --api unix:PATH"},
	} {
		got, err := defaultAddress(c.uid, c.base)
		if got != c.want || (err == nil) != (c.fail == "") || err != nil && err.Error() != c.fail {
			t.Errorf("%d %q: %s, %v", c.uid, c.base, got, err)
		}
	}
}

// TestNoDaemon: why there is no answer, and what to do, in one line.
func TestNoDaemon(t *testing.T) {
	dir := filepath.Dir(lab.Socket(t))
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{stale, file, filepath.Join(dir, "none")} {
		_, err := client(t, Config{Address: "unix:" + path}).List(t.Context())
		want := "reach the daemon at unix:" + path + ": it is not running there; start it (sluice daemon), or say where it is (--api ADDRESS)"
		if block.KindOf(err) != block.Transient || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, Config{Address: "unix:" + stale}).List(ctx); !errors.Is(err, context.Canceled) || block.KindOf(err) != block.Canceled {
		t.Error(err)
	}
}

// TestOtherServers: what is no daemon of ours is told from one.
func TestOtherServers(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   block.Kind
		text   string
	}{
		"a page":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 404) }, block.IO, "something that is no daemon of Sluice answers there (HTTP 404)"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://x/", http.StatusFound) }, block.IO, "(HTTP 302)"},
		"text":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, block.IO, "read the answer of the daemon at unix:"},
		"half": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("{"))
		}, block.IO, "unexpected EOF"},
		"hung up":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, block.Transient, "it hung up before it answered"},
		"bad problem": {problem("{"), block.IO, "(HTTP 500)"},
		"no detail":   {problem("{}"), block.IO, "(HTTP 500)"},
		"too long":    {problem(`{"kind":"busy","detail":"` + long + `"}`), block.IO, "(HTTP 500)"},
		"new kind":    {problem(`{"kind":"brand-new","detail":"open x: y"}`), block.IO, "open x: y"},
		"no colon":    {problem(`{"kind":"busy","detail":"open x"}`), block.Busy, "open x"},
	} {
		socket := lab.Socket(t)
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: c.answer}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = srv.Serve(l) }()
		_, err = client(t, Config{Address: "unix:" + socket}).List(t.Context())
		if block.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
			t.Errorf("%s: %v, want %v %s", name, err, c.kind, c.text)
		}
		_ = srv.Close()
		<-ended
	}
}

func problem(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.WriteHeader(500)
		_, _ = w.Write([]byte(text))
	}
}

// TestTCP: certificates on both sides, and what is said where one does not fit.
func TestTCP(t *testing.T) {
	pki, other := lab.Certs(t), lab.Certs(t)
	pair, err := tls.LoadX509KeyPair(pki.Path("server-cert.pem"), pki.Path("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(pki.Path("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	fake := apitest.New()
	srv := httpapi.New(httpapi.Config{Gateway: fake, Version: "v3", TLS: &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	apitest.Serve(t, srv, l)
	address := "tcp:" + l.Addr().String()
	with := func(mine, trusted *lab.PKI) *Client {
		return client(t, Config{
			Address: address, Cert: mine.Path("client-cert.pem"), Key: mine.Path("client-key.pem"), CA: trusted.Path("ca-cert.pem"),
		})
	}
	good := with(pki, pki)
	if d, err := good.Daemon(t.Context()); err != nil || d.Version != "v3" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := fake.Add(t.Context(), spec.Spec{Name: "x", URL: "/x"}); err != nil {
		t.Fatal(err)
	}
	for e, err := range good.Events(t.Context(), 0) {
		if err != nil || e.Export != "x" {
			t.Errorf("%+v, %v", e, err)
		}
		break
	}
	for want, c := range map[string]*Client{
		"its certificate is not trusted: ": with(pki, other),
		"it refuses the certificate: ":     with(other, pki),
	} {
		if _, err := c.List(t.Context()); block.KindOf(err) != block.Permission || !strings.HasPrefix(err.Error(), "reach the daemon at "+address+": "+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	srv.Close()
	if _, err := with(pki, pki).List(t.Context()); block.KindOf(err) != block.Transient || !strings.Contains(err.Error(), "it is not running there") {
		t.Error(err)
	}
	if _, err := New(Config{Address: address, Cert: pki.Path("client-cert.pem"), Key: pki.Path("client-key.pem"), CA: pki.Path("client-key.pem")}); err == nil ||
		!strings.HasSuffix(err.Error(), ": no certificate in it") {
		t.Error(err)
	}
}
