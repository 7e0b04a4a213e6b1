package metrics

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"sluice/block"
	"sluice/nbd"
)

// scraped asks a registry's handler the way Prometheus does.
func scraped(t *testing.T, r *Registry, accept string) *http.Response {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	r.Handler(nil).ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Result()
}

// text gives Sluice's own metrics in text form.
func text(t *testing.T, r *Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler(nil).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var own strings.Builder
	for line := range strings.Lines(rec.Body.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "sluice_") {
			own.WriteString(line)
		}
	}
	return own.String()
}

// sample does a known sequence of things to two exports.
func sample() *Registry {
	r := New(Build{Version: "1.2.3", GoVersion: "go1.26"})
	r.Mount(func() bool { return true })
	e := r.Export("disk0")
	e.SetInfo(block.Info{Size: 10 << 30})
	a, b := e.Shard(), e.nbd.shards[len(e.nbd.shards)-1]
	a.Connection(1)
	b.Connection(1)
	b.Connection(1)
	a.Connection(-1)
	a.InFlight(nbd.OpRead, 5)
	b.InFlight(nbd.OpRead, 2)
	a.InFlight(nbd.OpRead, -3)
	b.InFlight(nbd.OpTrim, 1) // the first, not answered yet
	for range 3 {
		a.Request(nbd.OpRead, 4096, 1<<20*time.Nanosecond, block.OK) // just above 2^-10 s
	}
	b.Request(nbd.OpRead, 1<<20, time.Second/2, block.OK) // the edge itself
	b.Request(nbd.OpRead, 512, time.Minute*2, block.IO)
	b.Request(nbd.OpRead, 512, 0, block.OutOfRange)
	a.Request(nbd.OpFlush, 0, 20*time.Millisecond, block.NoSpace)
	f := e.FUSE()
	f.Open(2)
	f.Open(-1)
	f.InFlight(nbd.OpWrite, 1)
	f.Request(nbd.OpWrite, 8192, 3*time.Millisecond, block.OK)
	l := e.Layer("storage")
	l.Request(nbd.OpRead, 4096, time.Millisecond, block.Transient)
	l.Pinned(1 << 20)
	l.Pinned(4096)
	e.SetGauges(func() Gauges {
		return Gauges{
			State: "held", Held: 3, HeldTime: 90 * time.Second, Throttled: 7, ThrottledTime: 1500 * time.Millisecond,
			Swaps: 2, LastSwap: 20 * time.Millisecond, LongestSwap: 50 * time.Millisecond,
			Storage: &block.StorageReport{Connected: 1, Wanted: 4, Losses: 5, Recoveries: 6, Kept: 1 << 20},
		}
	})
	r.Export("idle").SetInfo(block.Info{Size: 512, ReadOnly: true})
	r.Export("new")
	return r
}

func TestExpositionText(t *testing.T) {
	want, err := os.ReadFile("testdata/exposition.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, sample()); got != string(want) {
		t.Errorf("exposition:\n%s\nwant:\n%s", got, want)
	}
}

// TestNegotiation: text has the classic histogram, protobuf has both, and both
// count the same.
func TestNegotiation(t *testing.T) {
	r := sample()
	res := scraped(t, r, "application/openmetrics-text;version=1.0.0")
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/openmetrics-text") {
		t.Errorf("Content-Type %q, want OpenMetrics", ct)
	}
	res = scraped(t, r, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	format := expfmt.ResponseFormat(res.Header)
	if format.FormatType() != expfmt.TypeProtoDelim {
		t.Fatalf("format %q, want delimited protobuf", format)
	}
	dec := expfmt.NewDecoder(res.Body, format)
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("no histogram of durations: %v", err)
		}
		if f.GetName() != "sluice_request_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			checkBoth(t, m.GetHistogram())
		}
		return
	}
}

// checkBoth checks that native and classic buckets add up to the count.
func checkBoth(t *testing.T, h *dto.Histogram) {
	t.Helper()
	sum, n := int64(h.GetZeroCount()), int64(0)
	for _, d := range h.GetPositiveDelta() {
		n += d
		sum += n
	}
	if h.GetSchema() != schema || uint64(sum) != h.GetSampleCount() {
		t.Errorf("schema %d, native buckets hold %d of %d", h.GetSchema(), sum, h.GetSampleCount())
	}
	if len(h.GetBucket()) != len(classicExps) {
		t.Errorf("%d classic buckets, want %d", len(h.GetBucket()), len(classicExps))
	}
	var last uint64
	for _, b := range h.GetBucket() {
		if b.GetCumulativeCount() < last || b.GetCumulativeCount() > h.GetSampleCount() {
			t.Errorf("classic bucket %v holds %d after %d", b.GetUpperBound(), b.GetCumulativeCount(), last)
		}
		last = b.GetCumulativeCount()
	}
}

// TestManual: the manual names every metric, and no other one.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	families, err := sample().prom.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, f := range families {
		name := f.GetName()
		known[name] = true
		kind := strings.ToLower(f.GetType().String())
		if strings.HasPrefix(name, "sluice_") && !strings.Contains(manual, "| `"+name+"` | "+kind) {
			t.Errorf("docs/metrics.md has no row for %s, a %s", name, kind)
		}
	}
	for _, name := range regexp.MustCompile(`sluice_[a-z_]+`).FindAllString(manual, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !known[name] && !known[base] {
			t.Errorf("docs/metrics.md knows %s, the program does not", name)
		}
	}
	for _, label := range kindLabels[1:] {
		if !strings.Contains(manual, "`"+label+"`") {
			t.Errorf("docs/metrics.md does not explain kind %s", label)
		}
	}
}

// TestKindLabels: every kind that block knows has a label, fit for a query.
func TestKindLabels(t *testing.T) {
	for k := range block.Kind(255) {
		known := !strings.HasPrefix(k.String(), "kind ")
		if got := kindLabels[kindSlot(k)] != "unknown"; got != known {
			t.Errorf("kind %d (%s) has label %q", k, k, kindLabels[kindSlot(k)])
		}
	}
	for _, l := range kindLabels {
		if l == "" || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("label %q", l)
		}
	}
}

// TestRuntimeMetrics: the collectors of the process and the Go runtime are there.
func TestRuntimeMetrics(t *testing.T) {
	families, err := New(Build{}).prom.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range families {
		seen[f.GetName()] = true
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_cpu_seconds_total",
		"process_open_fds", "process_resident_memory_bytes", "sluice_build_info"} {
		if !seen[name] {
			t.Errorf("no metric %s", name)
		}
	}
}
