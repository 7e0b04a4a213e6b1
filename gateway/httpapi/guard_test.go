package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/httpapi/apitest"
)

// TestBadRequests: what is wrong with a request is told, and the gateway is not
// asked.
func TestBadRequests(t *testing.T) {
	b := start(t, standardLimits, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(_ context.Context, op, name string) error {
			t.Errorf("%s %q", op, name)
			return nil
		}
	})
	const secret = "hunter2"
	for _, c := range []struct {
		status           int
		method, path     string
		body, kind, text string
	}{
		{400, "POST", "/v1/exports", "", "invalid", "request body is required"},
		{400, "POST", "/v1/exports", `{"name":`, "invalid", "unexpected end of JSON input"},
		{400, "POST", "/v1/exports", `{"name":"a","url":"nbd://u:` + secret + `@h/"} x`, "invalid", "invalid character 'x' after top-level value"},
		{400, "POST", "/v1/exports", strings.Repeat("[", 100_000), "invalid", "exceeded max depth"},
		{422, "POST", "/v1/exports", `{}`, "invalid", "expected required property name"},
		{422, "POST", "/v1/exports", `{"name":"a"}`, "invalid", "expected required property url"},
		{422, "POST", "/v1/exports", `{"name":"a","url":""}`, "invalid", "check export a: url is missing"},
		{422, "POST", "/v1/exports", `{"name":"a/b","url":"x"}`, "invalid", `check export "a/b": the name cannot be a file's name`},
		{422, "POST", "/v1/exports", `{"name":"a","url":"x","colour":"nbd://u:` + secret + `@h/"}`, "invalid", "body.colour: unexpected property"},
		{422, "POST", "/v1/exports", `{"Name":"a","url":"x"}`, "invalid", "body.Name: unexpected property"},
		{422, "POST", "/v1/exports", `{"name":1,"url":"nbd://u:` + secret + `@h/"}`, "invalid", "body.name: expected string"},
		{422, "POST", "/v1/exports", `{"name":"a","url":"x","max_connections":-1}`, "invalid", "max_connections is negative"},
		{422, "POST", "/v1/exports", `{"name":"a","url":"x","passthrough":true,"no_fuse":true}`, "invalid", "passthrough needs FUSE"},
		{422, "DELETE", "/v1/exports/a?forse=true", "", "invalid", "query.forse: unknown query parameter"},
		{422, "DELETE", "/v1/exports/a?force=maybe", "", "invalid", "query.force: invalid boolean"},
		{422, "GET", "/v1/events?after=-1", "", "invalid", "query.after"},
		{404, "GET", "/v2/exports", "", "not-found", "there is no such path (see /docs)"},
		{405, "DELETE", "/v1/exports", "", "invalid", "DELETE is not for this path, but GET, HEAD, POST is"},
		{405, "POST", "/v1/exports/a", "", "invalid", "POST is not for this path"},
		{405, "BREW", "/v1/status", "", "invalid", "BREW is not for this path, but GET, HEAD is"},
		{413, "POST", "/v1/exports", strings.Repeat(" ", 300<<10), "invalid", "the body is larger than 256K (262144 bytes)"},
		{413, "GET", "/v1/exports", strings.Repeat(" ", 300<<10), "invalid", "the body is larger"},
	} {
		p := b.fails(c.status, c.method, c.path, c.body)
		if p.Kind != c.kind || !strings.Contains(p.Detail, c.text) || strings.Contains(fmt.Sprint(p), secret) {
			t.Errorf("%s %s %.80s: %+v", c.method, c.path, c.body, p)
		}
	}
	good := `{"name":"a","url":"/x"}`
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml", "a+b;c+d", "multipart/form-data; boundary=x"} {
		b.fails(415, "POST", "/v1/exports", good, "Content-Type", kind)
	}
	b.fails(403, "POST", "/v1/exports", good, "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
	b.fails(403, "POST", "/v1/reload", "", "Origin", "null")
}

// TestGoodForms: forms of a request that programs send are understood.
func TestGoodForms(t *testing.T) {
	b := start(t, standardLimits, nil)
	for i, kind := range []string{"", "application/json", "application/json; charset=utf-8", "application/merge-patch+json"} {
		res, text := b.ask("POST", "/v1/exports", fmt.Sprintf(`{"name":"%d","url":"/x"}`, i), "Content-Type", kind, "Accept", "text/html,*/*")
		if res.StatusCode != 201 || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s", kind, res.StatusCode, text)
		}
	}
	if res, text := b.ask("HEAD", "/v1/exports/0", ""); res.StatusCode != 200 || text != "" {
		t.Errorf("HEAD: %d %q", res.StatusCode, text)
	}
}

// TestSlowClients: who does not send in time is hung up on, or told.
func TestSlowClients(t *testing.T) {
	b := start(t, short(), nil)
	for name, c := range map[string]struct{ sent, got string }{
		"nothing":       {"", ""},
		"half a line":   {"GET /v1/exp", ""},
		"half a header": {"GET /v1/exports HTTP/1.1\r\nHost: x\r\n", ""},
		"half a body":   {"POST /v1/exports HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", "HTTP/1.1 408 "},
		"no chunk":      {"POST /v1/exports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 408 "},
		"a bad chunk":   {"POST /v1/exports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 "},
		"then idle":     {"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 "},
		"huge header":   {"GET /v1/status HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10), ""},
		"no HTTP":       {"\x16\x03\x01\x02\x00\x01\r\n\r\n", "HTTP/1.1 400 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a limit
			conn := b.dial()
			_, _ = io.WriteString(conn, c.sent) // may be hung up on in the middle
			if got := b.hungUp(conn); !strings.HasPrefix(got, c.got) {
				t.Errorf("%.80q, want %q", got, c.got)
			}
		})
	}
}

// TestClientThatNeverReads asks again and again and takes no answer: the
// deadline for writing ends that.
func TestClientThatNeverReads(t *testing.T) {
	lim := standardLimits
	lim.write = time.Second
	b := start(t, lim, nil)
	for i := range 200 {
		b.want(201, "POST", "/v1/exports", fmt.Sprintf(`{"name":"%d","url":"/x"}`, i), &gateway.Status{})
	}
	conn := b.dial()
	for {
		if _, err := io.WriteString(conn, "GET /v1/exports HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			if strings.Contains(err.Error(), "timeout") {
				t.Fatal("the server did not hang up")
			}
			return
		}
	}
}

// TestTooManyClients: those above the limit are hung up on, and room is made
// when one leaves.
func TestTooManyClients(t *testing.T) {
	lim := standardLimits
	lim.clients = 3
	b := start(t, lim, nil)
	answered := func(conn io.ReadWriter) bool {
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		var first [12]byte
		_, err := io.ReadFull(conn, first[:])
		return err == nil && string(first[9:]) == "200"
	}
	var held []io.Closer
	for range lim.clients {
		conn := b.dial()
		if !answered(conn) {
			t.Fatal("no answer below the limit")
		}
		held = append(held, conn)
	}
	if answered(b.dial()) {
		t.Error("an answer above the limit")
	}
	_ = held[0].Close()
	for end := time.Now().Add(10 * time.Second); !answered(b.dial()); {
		if time.Now().After(end) {
			t.Fatal("no room after a client has left")
		}
	}
}

// TestCloseWaits: Close returns only after handlers have, even those whose client
// has been hung up on.
func TestCloseWaits(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	b := start(t, short(), func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(ctx context.Context, _, _ string) error {
			close(entered)
			<-ctx.Done()
			close(left)
			return ctx.Err()
		}
	})
	conn := b.dial()
	if _, err := io.WriteString(conn, "POST /v1/exports/a/resume HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	b.srv.Close()
	select {
	case <-left:
	default:
		t.Error("a handler still runs")
	}
	b.srv.Close() // once more does no harm
	if _, err := b.client.Get("http://sluice/v1/status"); err == nil {
		t.Error("it still serves")
	}
}

// TestCloseLetsFinish: what is under way is answered.
func TestCloseLetsFinish(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	b := withDisk(t, full, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(_ context.Context, op, _ string) error {
			if op == "resume" {
				close(entered)
				<-goOn
			}
			return nil
		}
	})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		b.want(200, "POST", "/v1/exports/disk/resume", "", &gateway.Status{})
	}()
	<-entered
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		b.srv.Close()
	}()
	<-b.srv.ending
	close(goOn)
	<-answered
	<-closed
}

// TestPanicEndsOnlyItsRequest: other clients notice nothing of a mistake.
func TestPanicEndsOnlyItsRequest(t *testing.T) {
	b := start(t, standardLimits, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(context.Context, string, string) error { panic(block.Errorf(block.IO, "x", "y", -1, "")) }
	})
	if res, err := b.client.Post("http://sluice/v1/exports/a/resume", "", http.NoBody); err == nil {
		_ = res.Body.Close()
		t.Error("answered", res.Status)
	}
	b.want(200, "GET", "/v1/exports", "", &struct{ Exports []gateway.Status }{})
}
