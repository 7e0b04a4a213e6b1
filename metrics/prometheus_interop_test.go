//go:build interop

package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// patience is how long Prometheus has for anything.
const patience = 40 * time.Second

// client asks without keeping connections, and without a proxy.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// prometheusT is a running Prometheus.
type prometheusT struct {
	t   *testing.T
	url string
}

// startPrometheus runs Prometheus with the configuration until the test ends.
func startPrometheus(t *testing.T, config string, args ...string) prometheusT {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + addr, "--storage.tsdb.retention.time=1h",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		_ = log.Close()
		if b, _ := os.ReadFile(log.Name()); err != nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, b)
		}
	})
	return prometheusT{t, "http://" + addr}
}

// answer is what Prometheus' query API returns.
type answer struct {
	Status string
	Error  string
	Data   struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
}

// ask sends a query once.
func (p prometheusT) ask(query string) (answer, error) {
	var a answer
	res, err := client.Get(p.url + "/api/v1/query?" + url.Values{"query": {query}}.Encode())
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%w: %.200s", err, b)
	}
	return a, nil
}

// until asks again and again until the query gives one number that fits.
func (p prometheusT) until(query string, fits func(float64) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last string
	for {
		a, err := p.ask(query)
		last = fmt.Sprintf("%+v, %v", a, err)
		if err == nil && len(a.Data.Result) == 1 {
			s, _ := a.Data.Result[0].Value[1].(string)
			if v, err := strconv.ParseFloat(s, 64); err == nil && fits(v) {
				return
			}
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("%s: the last answer is %s", query, last)
		case <-tick.C:
		}
	}
}

// documented gives the blocks of a kind in docs/metrics.md.
func documented(t *testing.T, kind string) (blocks []string) {
	t.Helper()
	b, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), "```")
	for i := 1; i < len(parts); i += 2 {
		if body, ok := strings.CutPrefix(parts[i], kind+"\n"); ok {
			blocks = append(blocks, body)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("no %s in docs/metrics.md", kind)
	}
	return blocks
}

// promtool runs promtool, which has to be content and silent but for what it
// says about success.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || stdin != "" && len(out) > 0 {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestPromtool(t *testing.T) {
	s := start(t, sample(), Options{}, standardLimits)
	status, body := get(t, s, "/metrics")
	if status != http.StatusOK || !strings.Contains(body, "sluice_") {
		t.Fatalf("status %d, %.100q", status, body)
	}
	promtool(t, body, "check", "metrics")

	dir := t.TempDir()
	rules := filepath.Join(dir, "sluice.rules.yml")
	config := filepath.Join(dir, "prometheus.yml")
	blocks := documented(t, "yaml")
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of yaml in docs/metrics.md, want the scrape configuration and the rules", len(blocks))
	}
	for file, text := range map[string]string{config: blocks[0], rules: blocks[1]} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "", "check", "config", config) // names sluice.rules.yml
	promtool(t, "", "check", "rules", rules)
}

// TestPrometheus lets Prometheus scrape native histograms, and another one the
// classic ones, and asks both for what is known.
func TestPrometheus(t *testing.T) {
	r := New(Build{Version: "1"})
	s := start(t, r, Options{}, standardLimits)
	e := r.Export("disk0")
	e.SetInfo(block.Info{Size: 1 << 30})
	e.Connection(1)
	for range 1000 {
		e.Request(nbd.OpRead, 4096, time.Millisecond, block.OK)
	}
	e.Request(nbd.OpWrite, 512, 3*time.Second, block.NoSpace)
	e.FUSE().Request(nbd.OpZero, 4096, time.Millisecond, block.OK)
	e.Layer("storage").Request(nbd.OpRead, 4096, time.Millisecond, block.OK)
	e.SetGauges(func() Gauges { return Gauges{State: "held", Held: 2, HeldTime: time.Minute} })

	config := fmt.Sprintf("scrape_configs:\n- job_name: sluice\n  scrape_interval: 1s\n  static_configs:\n"+
		"  - targets: [%q]\n", s.Addr())
	native := startPrometheus(t, config, "--enable-feature=native-histograms")
	classic := startPrometheus(t, config)

	between := func(lo, hi float64) func(float64) bool {
		return func(v float64) bool { return lo < v && v <= hi }
	}
	for _, p := range []prometheusT{native, classic} {
		p.until(`up{job="sluice"}`, between(0, 1))
		p.until(`sluice_requests_total{export="disk0",op="read"}`, between(999, 1000))
		p.until(`sluice_request_bytes_total{export="disk0",op="read"}`, between(4095999, 4096000))
		p.until(`sluice_request_errors_total{kind="no_space"} > 0`, between(0, 1))
		p.until(`sluice_export_size_bytes`, between(1<<30-1, 1<<30))
		p.until(`sluice_requests_total{protocol="fuse",op="zero"}`, between(0, 1))
		p.until(`sluice_export_state == 1 and on () sluice_held_requests == 2`, between(0, 1))
	}
	// 1 ms lies in the native bucket from 2^-10 to 2^(-10+1/8) s and in the classic one from 2^-10 to 2^-9 s.
	const hist = `sluice_request_duration_seconds`
	native.until(`histogram_count(`+hist+`{op="read"})`, between(999, 1000))
	native.until(`histogram_sum(`+hist+`{op="read"})`, between(0.999, 1.001))
	native.until(`histogram_quantile(0.5, `+hist+`{op="read"})`, between(0.000976, 0.001065))
	native.until(`histogram_quantile(0.5, `+hist+`{op="write"})`, between(2.82, 3.09))
	classic.until(`histogram_quantile(0.5, `+hist+`_bucket{op="read"})`, between(0.000976, 0.001954))
	classic.until(`count(`+hist+`_bucket{op="read"})`, between(20, 21)) // and +Inf

	// What is counted between two scrapes shows in rates, whose quantiles are new ones.
	for range 3000 {
		e.Layer("storage").Request(nbd.OpRead, 4096, 8*time.Millisecond, block.OK)
		e.Request(nbd.OpRead, 4096, 9*time.Millisecond, block.OK)
	}
	native.until(`histogram_quantile(0.99, rate(`+hist+`{op="read"}[1m]))`, between(0.0086, 0.0093))
	classic.until(`histogram_quantile(0.99, rate(`+hist+`_bucket{op="read"}[1m]))`, between(0.0078, 0.0157))

	queries := documented(t, "promql")
	if len(queries) != 2 {
		t.Fatalf("%d blocks of queries in docs/metrics.md, want one for native and one for classic", len(queries))
	}
	runDocumented(t, native, queries[0])
	runDocumented(t, classic, queries[1])
	e.Close()
	native.until(`count(sluice_connections) or vector(0)`, func(v float64) bool { return v == 0 })
}

// runDocumented runs queries, which end with an empty line, and wants an answer
// to each.
func runDocumented(t *testing.T, p prometheusT, queries string) {
	t.Helper()
	for query := range strings.SplitSeq(strings.TrimSpace(queries), "\n\n") {
		a, err := p.ask(query)
		if err != nil || a.Status != "success" {
			t.Errorf("documented query %s: %s %v", query, a.Error, err)
		} else if len(a.Data.Result) == 0 {
			t.Errorf("documented query %s has no result", query)
		}
	}
}
