package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/gateway/endpoint"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/wire"
	"sluice/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a server on a unix socket, over a gateway without devices, with a
// client.
type bench struct {
	*testing.T
	fake   *apitest.Fake
	srv    *Server
	socket string
	client *http.Client
}

// start serves until the test ends.
func start(t *testing.T, lim limits, change func(*Config)) *bench {
	t.Helper()
	b := &bench{T: t, fake: apitest.New(), socket: lab.Socket(t)}
	cfg := Config{Gateway: b.fake, Version: "v1", Started: apitest.Start}
	if change != nil {
		change(&cfg)
	}
	b.srv = newServer(cfg, lim)
	l, err := endpoint.Listen(t.Context(), endpoint.Address{Network: "unix", Path: b.socket})
	if err != nil {
		t.Fatal(err)
	}
	b.serve(l)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", b.socket) }}
	b.client = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return b
}

// serve serves one more listener until the test ends.
func (b *bench) serve(l net.Listener) { apitest.Serve(b.T, b.srv, l) }

// send sends a request and gives the answer, whose body is yet to be read and
// closed.
func (b *bench) send(method, path, body string, header ...string) *http.Response {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, "http://sluice"+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	return res
}

// ask sends a request and gives the answer, with its body.
func (b *bench) ask(method, path, body string, header ...string) (*http.Response, string) {
	b.Helper()
	res := b.send(method, path, body, header...)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return res, string(text)
}

// want asks for something that has to succeed with a status, and reads the answer.
func (b *bench) want(status int, method, path, body string, out any) {
	b.Helper()
	res, text := b.ask(method, path, body)
	if res.StatusCode != status {
		b.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, text, status)
	}
	if out == nil {
		if text != "" {
			b.Fatalf("%s %s: %q, want nothing", method, path, text)
		}
		return
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		b.Errorf("%s %s: %s", method, path, got)
	}
	strict(b.T, text, out)
}

// strict reads JSON without a member too many.
func strict(t *testing.T, text string, out any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// fails asks for something that has to fail, and gives the problem.
func (b *bench) fails(status int, method, path, body string, header ...string) wire.Problem {
	b.Helper()
	res, text := b.ask(method, path, body, header...)
	if res.StatusCode != status || res.Header.Get("Content-Type") != wire.ProblemType {
		b.Fatalf("%s %s: %d %s %s, want a problem with %d", method, path, res.StatusCode, res.Header.Get("Content-Type"), text, status)
	}
	var p wire.Problem
	strict(b.T, text, &p)
	if p.Status != status || p.Title != http.StatusText(status) || p.Detail == "" || strings.Contains(p.Detail, "\n") || p.Kind == "" {
		b.Errorf("%s %s: %+v", method, path, p)
	}
	return p
}

// dial opens a plain connection that fails the test rather than hang.
func (b *bench) dial() net.Conn {
	b.Helper()
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.Fatal(err)
	}
	return conn
}

// hungUp waits until the server closes a connection, and gives what it sent.
func (b *bench) hungUp(conn net.Conn) string {
	b.Helper()
	text, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		b.Fatal("the server did not hang up")
	}
	return string(text)
}

// short are limits that a test can wait for, and that a client keeps also on a busy
// machine.
func short() limits {
	l := standardLimits
	l.header, l.read, l.idle, l.close = time.Second, time.Second, time.Second, 50*time.Millisecond
	return l
}
