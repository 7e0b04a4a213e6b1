package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// start serves a registry until the test ends.
func start(t *testing.T, r *Registry, opts Options, lim limits) *Server {
	t.Helper()
	s, err := r.serve(t.Context(), "127.0.0.1:0", opts, lim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks for a page over a connection of its own.
func get(t *testing.T, s *Server, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// dial opens a plain connection that fails the test rather than hang.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// hungUp waits until the server closes a connection, and gives what it sent.
func hungUp(t *testing.T, conn net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the server did not hang up")
	}
	return string(b)
}

func TestPages(t *testing.T) {
	r := New(Build{Version: "1"})
	r.Export("disk").Request(nbd.OpRead, 4096, time.Millisecond, block.OK)
	for _, c := range []struct {
		path   string
		pprof  bool
		status int
		holds  string
	}{
		{"/metrics", false, 200, `sluice_requests_total{export="disk",op="read",protocol="nbd"} 1`},
		{"/metrics", false, 200, "go_goroutines "},
		{"/healthz", false, 200, "ok\n"},
		{"/", false, 404, ""},
		{"/debug/pprof/", false, 404, ""},
		{"/debug/pprof/goroutine?debug=1", false, 404, ""},
		{"/debug/pprof/", true, 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", true, 200, "goroutine profile:"},
		{"/debug/pprof/heap", true, 200, ""},
		{"/debug/pprof/symbol", true, 200, "num_symbols"},
		{"/debug/pprof/cmdline", true, 404, "Unknown profile"}, // may hold secrets
	} {
		s := start(t, r, Options{Pprof: c.pprof}, standardLimits)
		if status, body := get(t, s, c.path); status != c.status || !strings.Contains(body, c.holds) {
			t.Errorf("%s (pprof %v): %d %.200q, want %d with %q", c.path, c.pprof, status, body, c.status, c.holds)
		}
	}
}

func TestOnlyReads(t *testing.T) {
	s := start(t, New(Build{}), Options{}, standardLimits)
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := hungUp(t, conn); !strings.HasPrefix(got, "HTTP/1.1 405 ") {
		t.Errorf("DELETE: %.60q", got)
	}
}

func TestHealth(t *testing.T) {
	r := New(Build{})
	s := start(t, r, Options{}, standardLimits)
	removeB := r.Check("store b", func(context.Context) error { return errors.New("away\nsince noon") })
	removeA := r.Check("store a", func(context.Context) error {
		return block.Errorf(block.NoSpace, "write", "a", 4096, "")
	})
	r.Check("fine", func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("a check has no deadline")
		}
		return nil
	})
	want := "store a: write a at 4096: no space left\nstore b: away since noon\n"
	if status, body := get(t, s, "/healthz"); status != 503 || body != want {
		t.Errorf("%d %q, want 503 %q", status, body, want)
	}
	removeA()
	removeB()
	removeB() // twice does no harm
	if status, body := get(t, s, "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("%d %q after the checks were removed", status, body)
	}
}

// TestAddress: what cannot be listened on is told in one line.
func TestAddress(t *testing.T) {
	r := New(Build{})
	s := start(t, r, Options{}, standardLimits)
	taken := s.Addr().String()
	for _, c := range []struct {
		addr string
		kind block.Kind
		text string
	}{
		{taken, block.Busy, "serve metrics on " + taken + ": address already in use"},
		{":9808", block.Invalid, "serve metrics on :9808: not HOST:PORT"},
		{"9808", block.Invalid, "serve metrics on 9808: not HOST:PORT"},
		{"", block.Invalid, "serve metrics on: not HOST:PORT"},
		{"127.0.0.1:99999", block.IO, "serve metrics on 127.0.0.1:99999: "},
		{"192.0.2.1:1", block.IO, "serve metrics on 192.0.2.1:1: cannot assign requested address"},
	} {
		_, err := r.Serve(t.Context(), c.addr, Options{})
		if err == nil {
			t.Errorf("%q: no error", c.addr)
			continue
		}
		if got := err.Error(); block.KindOf(err) != c.kind || !strings.HasPrefix(got, c.text) || strings.Contains(got, "\n") {
			t.Errorf("%q: kind %v, %q; want %v, %q", c.addr, block.KindOf(err), got, c.kind, c.text)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Serve(canceled, "127.0.0.1:0", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// short are limits that a test can wait for.
func short() limits {
	l := standardLimits
	l.header, l.read, l.idle, l.close = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond, 50*time.Millisecond
	return l
}

// TestSlowClients: who does not send in time is hung up on.
func TestSlowClients(t *testing.T) {
	s := start(t, New(Build{}), Options{}, short())
	for name, sent := range map[string]string{
		"nothing":     "",
		"half a line": "GET /metr",
		"half header": "GET /metrics HTTP/1.1\r\nHost: x\r\n",
		"then idle":   "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a limit
			conn := dial(t, s)
			if _, err := io.WriteString(conn, sent); err != nil {
				t.Fatal(err)
			}
			_ = hungUp(t, conn)
		})
	}
}

// TestClientThatNeverReads asks again and again and takes no answer: the
// deadline for writing ends that.
func TestClientThatNeverReads(t *testing.T) {
	r := New(Build{})
	for i := range 200 {
		r.Export(strings.Repeat("x", 1000+i)).Request(nbd.OpRead, 1, 1, block.OK)
	}
	lim := standardLimits
	lim.write = 100 * time.Millisecond
	s := start(t, r, Options{}, lim)
	conn := dial(t, s)
	for {
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("the server did not hang up")
			}
			return
		}
	}
}

func TestHugeHeader(t *testing.T) {
	lim := standardLimits
	s := start(t, New(Build{}), Options{}, lim)
	conn := dial(t, s)
	_, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nX: "+strings.Repeat("x", 2*lim.bytes)+"\r\n\r\n")
	if got := hungUp(t, conn); got != "" && !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("answer %.60q, want 431", got)
	}
}

// TestTooManyClients: those above the limit are hung up on, and room is made
// when one leaves.
func TestTooManyClients(t *testing.T) {
	lim := standardLimits
	lim.clients = 3
	s := start(t, New(Build{}), Options{}, lim)
	const ask = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	answered := func(conn net.Conn) bool {
		_, _ = io.WriteString(conn, ask)
		var b [12]byte
		_, err := io.ReadFull(conn, b[:])
		return err == nil && string(b[9:]) == "200"
	}
	var held []net.Conn
	for range lim.clients {
		conn := dial(t, s)
		if !answered(conn) {
			t.Fatal("no answer below the limit")
		}
		held = append(held, conn)
	}
	if answered(dial(t, s)) {
		t.Error("an answer above the limit")
	}
	_ = held[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for !answered(dial(t, s)) {
		if time.Now().After(deadline) {
			t.Fatal("no room after a client has left")
		}
	}
}

// TestContextEnds: the end of the context stops the server, Close still works.
func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := New(Build{}).Serve(ctx, "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	idle := dial(t, s)
	if _, err := io.WriteString(idle, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = hungUp(t, idle)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("still listening")
	}
}

// TestCloseWaits: Close returns only after handlers have, even those whose
// client has been hung up on.
func TestCloseWaits(t *testing.T) {
	r := New(Build{})
	entered, left := make(chan struct{}), make(chan struct{})
	r.Check("slow", func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		close(left)
		return ctx.Err()
	})
	s, err := r.serve(t.Context(), "127.0.0.1:0", Options{}, short())
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-left:
	default:
		t.Error("Close returned while a handler was running")
	}
}

// TestLongProfile: a profile may take longer than a request and an answer
// otherwise may.
func TestLongProfile(t *testing.T) {
	lim := short()
	lim.write = 500 * time.Millisecond
	s := start(t, New(Build{}), Options{Pprof: true}, lim)
	begin := time.Now()
	status, body := get(t, s, "/debug/pprof/profile?seconds=1")
	if took := time.Since(begin); status != http.StatusOK || body == "" || took < time.Second {
		t.Errorf("after %v: status %d, %d bytes", took, status, len(body))
	}
}

// TestMounted: the gauge follows.
func TestMounted(t *testing.T) {
	r, there := New(Build{}), true
	r.Mount(func() bool { return there })
	s := start(t, r, Options{}, standardLimits)
	for _, want := range []string{"\nsluice_fuse_mounted 1\n", "\nsluice_fuse_mounted 0\n"} {
		if _, body := get(t, s, "/metrics"); !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
		there = false
	}
}
