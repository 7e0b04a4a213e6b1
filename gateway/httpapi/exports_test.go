package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

// TestLife goes through all that can be done with an export.
func TestLife(t *testing.T) {
	b := start(t, standardLimits, nil)
	var none wire.Exports
	b.want(200, "GET", "/v1/exports", "", &none)
	if none.Exports == nil || len(none.Exports) != 0 {
		t.Errorf("%v is not an empty list", none.Exports)
	}
	const body = `{"name":"disk","url":"nbd://joe:secret@host/x","description":"d","nbd":["unix:/run/d.sock"],"allow":["host1"],
		"on_error":{"policy":"read-only","limit":"1m30s","no_space":true},"throttle":{"read_iops":100,"write_bytes":"10M","read_bytes":4096,"burst":"1s"},
		"slow_request":"500ms","max_connections":3,"format":"raw","direct":true}`
	want := gateway.Status{
		Spec: spec.Spec{
			Name: "disk", URL: "nbd://host/x", Description: "d", NBD: []string{"unix:/run/d.sock"}, Allow: []string{"host1"},
			MaxConnections: 3, Format: "raw", Direct: true,
			Settings: spec.Settings{
				OnError:     spec.OnError{Policy: "read-only", Limit: spec.Duration(90 * time.Second), NoSpace: true},
				Throttle:    spec.Throttle{ReadIOPS: 100, WriteBytes: 10 << 20, ReadBytes: 4096, Burst: spec.Duration(time.Second)},
				SlowRequest: spec.Duration(500 * time.Millisecond),
			},
		},
		State: gateway.Serving, Since: apitest.Start, Source: "api", Size: apitest.Size, Capabilities: []string{"flush", "fua"},
		URIs: []string{"nbd+unix:///disk?socket=/run/sluice/nbd.sock"}, File: "/run/sluice/fuse/disk",
	}
	same := func(got gateway.Status) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	var st gateway.Status
	b.want(201, "POST", "/v1/exports", body, &st)
	same(st)
	st = gateway.Status{}
	b.want(200, "GET", "/v1/exports/disk", "", &st)
	same(st)
	b.want(201, "POST", "/v1/exports", `{"name":"a","url":"/b","no_fuse":true}`, &gateway.Status{})
	var all wire.Exports
	b.want(200, "GET", "/v1/exports", "", &all)
	if len(all.Exports) != 2 || all.Exports[0].Spec.Name != "a" {
		t.Fatalf("%+v", all)
	}
	same(all.Exports[1])

	st, want.Size = gateway.Status{}, 2<<30
	b.want(200, "POST", "/v1/exports/disk/resize", `{"size":"2G"}`, &st)
	same(st)
	p := b.fails(422, "POST", "/v1/exports/disk/resize", `{"size":1073741824}`)
	if want := "resize export disk: 1073741824 bytes are less than the 2147483648 it has; the rest would be lost (shrink permits that)"; p.Detail != want {
		t.Errorf("%q", p.Detail)
	}
	st, want.Size = gateway.Status{}, 1<<30
	b.want(200, "POST", "/v1/exports/disk/resize", `{"size":1073741824,"shrink":true}`, &st)
	same(st)

	b.fake.Set("disk", func(st *gateway.Status) { st.State, st.Error = gateway.Held, "storage away" })
	st = gateway.Status{}
	b.want(200, "POST", "/v1/exports/disk/resume", "", &st)
	same(st)

	b.fake.Use("disk", true)
	if p := b.fails(409, "DELETE", "/v1/exports/disk", ""); p.Kind != "busy" || p.Detail != "remove export disk: 1 client uses it" {
		t.Errorf("%+v", p)
	}
	b.want(204, "DELETE", "/v1/exports/disk?force=true", "", nil)
	if p := b.fails(404, "GET", "/v1/exports/disk", ""); p.Kind != "not-found" {
		t.Errorf("%+v", p)
	}
}

func TestStats(t *testing.T) {
	b := start(t, standardLimits, nil)
	for _, name := range []string{"a", "b"} {
		b.want(201, "POST", "/v1/exports", `{"name":"`+name+`","url":"/x"}`, &gateway.Status{})
	}
	var all wire.AllStats
	b.want(200, "GET", "/v1/stats", "", &all)
	var one gateway.Stats
	b.want(200, "GET", "/v1/exports/b/stats", "", &one)
	if len(all.Stats) != 2 || all.Stats[0].Name != "a" || all.Stats[1].Name != "b" {
		t.Fatalf("%+v", all)
	}
	read := gateway.OpStats{Protocol: "nbd", Op: "read", Requests: 3, Bytes: 12288, Errors: 1, Seconds: 0.0015, P50: 0.0004, P99: 0.0021, InFlight: 2}
	if diff := cmp.Diff(all.Stats[1], one) + cmp.Diff(gateway.Stats{Name: "b", Ops: []gateway.OpStats{read, {Protocol: "nbd", Op: "write"}}}, one); diff != "" {
		t.Error(diff)
	}
	b.fails(404, "GET", "/v1/exports/c/stats", "")
}

func TestDaemon(t *testing.T) {
	reloaded := 0
	b := start(t, standardLimits, func(c *Config) {
		c.Daemon = func() (wire.Addresses, []string) {
			return wire.Addresses{API: []string{"unix:/a"}, FUSE: "/mnt"}, []string{"/mnt was unmounted"}
		}
		c.Reload = func(context.Context) error {
			if reloaded++; reloaded > 1 {
				return block.Errorf(block.Invalid, "read", "sluice.toml", -1, "line 3: unknown key")
			}
			return nil
		}
	})
	b.want(201, "POST", "/v1/exports", `{"name":"a","url":"/x"}`, &gateway.Status{})
	var d wire.Daemon
	b.want(200, "GET", "/v1/status", "", &d)
	want := wire.Daemon{
		Version: "v1", PID: d.PID, Started: apitest.Start, Exports: 1,
		Addresses: wire.Addresses{API: []string{"unix:/a"}, NBD: []string{}, FUSE: "/mnt"},
		Problems:  []string{"/mnt was unmounted"},
	}
	if diff := cmp.Diff(want, d); diff != "" || d.PID <= 0 {
		t.Error(diff, d.PID)
	}
	b.want(204, "POST", "/v1/reload", "", nil)
	if p := b.fails(422, "POST", "/v1/reload", ""); p.Detail != "read sluice.toml: line 3: unknown key" || p.Object != "sluice.toml" {
		t.Errorf("%+v", p)
	}
	without := start(t, standardLimits, nil)
	if p := without.fails(501, "POST", "/v1/reload", ""); p.Kind != "unsupported" {
		t.Errorf("%+v", p)
	}
}

// names are what an export may be called.
var names = []string{
	"disk", "a b", "100%", "%41", "%2e%2e", "...", "..a", "-", "größe", "漢字", `"quoted"`, `it's`, `back\slash`, "a?b=c&d", "a#b", "a+b", "a;b", "{name}",
	"<i>&amp;", "settings", "stats", "null", "~", "a:b@c", "*", "|$(x)", strings.Repeat("n", 255), strings.Repeat("ü", 127),
}

// TestNames: whatever an export may be called, it is found under that name.
func TestNames(t *testing.T) {
	b := start(t, standardLimits, nil)
	for _, name := range names {
		if err := spec.CheckName(name); err != nil {
			t.Fatal(err)
		}
		if _, err := b.fake.Add(t.Context(), spec.Spec{Name: name, URL: "/x"}); err != nil {
			t.Fatal(err)
		}
		path := "/v1/exports/" + url.PathEscape(name)
		for _, rest := range []string{"", "/stats"} {
			res, text := b.ask("GET", path+rest, "")
			if res.StatusCode != 200 || !strings.Contains(text, "name") {
				t.Errorf("%q: GET %s%s: %d %s", name, path, rest, res.StatusCode, text)
			}
		}
		var st gateway.Status
		b.want(200, "PATCH", path+"/settings", `{"slow_request":"1s"}`, &st)
		b.want(200, "POST", path+"/resume", "", &st)
		b.want(200, "POST", path+"/resize", `{"size":"3G"}`, &st)
		if st.Spec.Name != name || st.Size != 3<<30 || st.Spec.SlowRequest.Std() != time.Second {
			t.Errorf("%q: %+v", name, st)
		}
		b.want(204, "DELETE", path, "", nil)
	}
	if left := b.fake.List(); len(left) != 0 {
		t.Errorf("%d exports are left", len(left))
	}
}

// TestNoNames: what is no name does not get to the gateway.
func TestNoNames(t *testing.T) {
	b := start(t, standardLimits, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(_ context.Context, op, name string) error {
			t.Errorf("%s %q", op, name)
			return nil
		}
	})
	for _, path := range []string{"%2e%2e", ".%2e", "..%2f..%2fetc%2fpasswd", "%2Fetc", "a%00b", "a%0ab", "%ff", "%1b%5b2J", strings.Repeat("n", 256)} {
		for _, req := range []string{"GET ", "DELETE ", "GET /stats", "POST /resume", "PATCH /settings", "PUT /settings", "POST /resize"} {
			method, rest, _ := strings.Cut(req, " ")
			body := map[string]string{"/settings": `{}`, "/resize": `{"size":1}`}[rest]
			if p := b.fails(422, method, "/v1/exports/"+path+rest, body); p.Kind != "invalid" || !strings.Contains(p.Detail, "the name ") {
				t.Errorf("%s %s: %+v", method, path, p)
			}
		}
	}
	for _, path := range []string{"/v1/exports/", "/v1/exports/a/b", "/v1/exports/a/settings/x", "/v1", "/x", "/etc/passwd"} {
		b.fails(404, "GET", path, "")
	}
	for _, path := range []string{"/v1/exports/../../etc", "/v1/exports/./a", "//v1/exports"} { // net/http's mux sends to the clean path
		conn := b.dial()
		_, _ = conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		if got := b.hungUp(conn); !strings.HasPrefix(got, "HTTP/1.1 404 ") && !strings.HasPrefix(got, "HTTP/1.1 30") {
			t.Errorf("%s: %.100q", path, got)
		}
	}
}

// TestFailures: each kind of failure has its status and name, and the text stays.
func TestFailures(t *testing.T) {
	var fail error
	b := start(t, standardLimits, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(context.Context, string, string) error { return fail }
	})
	for kind, status := range map[block.Kind]int{
		block.IO: 500, block.Invalid: 422, block.OutOfRange: 422, block.NoSpace: 507, block.ReadOnly: 409, block.Permission: 403, block.NotFound: 404,
		block.Exists: 409, block.Busy: 409, block.Corrupt: 500, block.Transient: 503, block.Fenced: 409, block.Closed: 503, block.Unsupported: 501,
		block.Canceled: 503,
	} {
		fail = block.Errorf(kind, "open", "disk.img", 4096, "because\nof two")
		p := b.fails(status, "POST", "/v1/exports", `{"name":"a","url":"/x"}`)
		want := wire.Problem{
			Title: http.StatusText(status), Status: status, Kind: wire.KindName(kind), Detail: "open disk.img at 4096: because; of two",
			Operation: "open", Object: "disk.img",
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Error(diff)
		}
	}
	fail = errors.New("no kind and\nno name")
	for _, req := range []string{
		"GET /v1/exports/a", "DELETE /v1/exports/a", "POST /v1/exports/a/resume", "GET /v1/exports/a/stats", "GET /v1/stats", "PUT /v1/exports/a/settings",
		"PATCH /v1/exports/a/settings", "POST /v1/exports/a/resize", "POST /v1/exports",
	} {
		method, path, _ := strings.Cut(req, " ")
		body := ""
		switch {
		case strings.HasSuffix(path, "settings"):
			body = "{}"
		case strings.HasSuffix(path, "resize"):
			body = `{"size":1}`
		case method == "POST" && strings.HasSuffix(path, "exports"):
			body = `{"name":"a","url":"/x"}`
		}
		p := b.fails(500, method, path, body)
		if p.Kind != "io" || !strings.HasSuffix(p.Detail, ": no kind and; no name") || path != "/v1/stats" && p.Object != "a" {
			t.Errorf("%s: %+v", req, p)
		}
	}
}

// TestSlowStorage: a request may take longer than its sending may, and who hangs
// up ends it.
func TestSlowStorage(t *testing.T) {
	lim := short()
	lim.write = 10 * time.Second
	entered, left := make(chan struct{}), make(chan error, 1)
	b := start(t, lim, func(c *Config) {
		c.Gateway.(*apitest.Fake).Hook = func(ctx context.Context, op, name string) error {
			switch {
			case op == "add" && name == "slow":
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(lim.read * 3 / 2):
				}
			case op == "add":
				close(entered)
				<-ctx.Done()
				left <- ctx.Err()
			}
			return nil
		}
	})
	b.want(201, "POST", "/v1/exports", `{"name":"slow","url":"/x"}`, &gateway.Status{})
	conn := b.dial()
	if _, err := conn.Write([]byte("POST /v1/exports HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n" + `{"name":"b","url":"/x"}`)); err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = conn.Close()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
