package httpapi

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/block"
	"sluice/gateway"
	"sluice/internal/lab"
	"sluice/metrics"
	"sluice/nbd"
)

// client is an NBD client of an export, over a gateway whose API there is.
type client struct {
	*bench
	nbd     *nbd.Client
	metrics *metrics.Registry
}

// withClient serves an export in RAM with a real gateway.
func withClient(t *testing.T, export string) *client {
	t.Helper()
	c := &client{metrics: metrics.New(metrics.Build{})}
	g := gateway.New(gateway.Config{Metrics: c.metrics, AllowFaults: true})
	l, err := net.Listen("unix", lab.Socket(t))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c.bench = start(t, standardLimits, func(cfg *Config) { cfg.Gateway = g })
	c.want(201, "POST", "/v1/exports", export, &gateway.Status{})
	c.nbd, err = nbd.Dial(t.Context(), "nbd+unix:///disk?socket="+l.Addr().String(), nbd.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.nbd.Close() })
	return c
}

// reads makes so many after a pause, and gives how long they took and how many of them
// had to wait for their turn.
func (c *client) reads(pause time.Duration, n int) (took time.Duration, waited int) {
	c.Helper()
	before := c.waits()
	time.Sleep(pause) // in which something is saved up
	began := time.Now()
	for range n {
		if err := c.nbd.ReadAt(c.Context(), make([]byte, 512), 0); err != nil {
			c.Fatal(err)
		}
	}
	return time.Since(began), c.waits() - before
}

func (c *client) waits() (n int) {
	c.Helper()
	scrape := httptest.NewRecorder()
	c.metrics.Handler(nil).ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if strings.HasPrefix(line, "sluice_throttled_requests_total{") {
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " "):], &n); err != nil {
				c.Fatal(err)
			}
			return n
		}
	}
	c.Fatal("no count of requests that waited")
	return 0
}

// A burst that is changed through the API holds at once, for clients that are there.
func TestBurstAtRunTime(t *testing.T) {
	c := withClient(t, `{"name":"disk","url":"mem://1M","throttle":{"read_iops":100}}`)
	const pause = 600 * time.Millisecond // 60 reads' worth
	for _, burst := range []string{"", `"500ms"`, `null`, `"1s"`} {
		if burst != "" {
			c.want(200, "PATCH", "/v1/exports/disk/settings", `{"throttle":{"burst":`+burst+`}}`, &gateway.Status{})
		}
		took, waited := c.reads(pause, 40)
		if short := burst == "" || burst == "null"; short && took < 280*time.Millisecond {
			t.Errorf("100 a second and a tenth of a second's worth: 40 reads took %v", took)
		} else if !short && waited > 0 {
			t.Errorf("burst %s: %d of 40 reads waited after a pause of %v", burst, waited, pause)
		}
	}
	if c.nbd.Reconnects() != 0 {
		t.Error("the client was cut off")
	}
}

// The read-only policy, seen and ended through the API.
func TestReadOnlyPolicy(t *testing.T) {
	c := withClient(t, `{"name":"disk","url":"mem://1M","on_error":{"policy":"read-only"},"faults":["write:error=transient"]}`)
	write := func() block.Kind { return block.KindOf(c.nbd.WriteAt(t.Context(), []byte("x"), 0, 0)) }
	state := func(want gateway.State) {
		t.Helper()
		var st gateway.Status
		c.want(200, "GET", "/v1/exports/disk", "", &st)
		if st.State != want || (st.Error == "") != (want == gateway.Serving) {
			t.Errorf("%s (%s), want %s", st.State, st.Error, want)
		}
	}
	state(gateway.Serving)
	if kind := write(); kind != block.IO {
		t.Errorf("the write that fails: %v", kind)
	}
	state(gateway.Frozen)
	c.want(200, "PATCH", "/v1/exports/disk/settings", `{"faults":null}`, &gateway.Status{})
	if kind := write(); kind != block.ReadOnly {
		t.Errorf("a write while frozen: %v", kind)
	}
	state(gateway.Frozen)
	c.want(200, "POST", "/v1/exports/disk/resume", "", &gateway.Status{})
	state(gateway.Serving)
	if kind := write(); kind != block.OK {
		t.Errorf("a write after resume: %v", kind)
	}
}
