package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// sample returns a report with figures that are easy to follow: we are three times as fast as qemu-nbd and 1.5 times
// as nbdkit in repetition 1, and the whole machine is 10 % slower in each further repetition.
func sample() *Report {
	r := &Report{
		Date:     "2026-01-02T03:04:05Z",
		Machine:  Machine{CPU: "Test <CPU> & Co", Cores: 2, MemoryMiB: 4096, Kernel: "6.1.0", System: "Debian 12", FileSystem: "ext4"},
		Settings: Settings{Repetitions: 3, Seconds: 2, SizeBytes: 1 << 30, Seed: 7},
		Programs: []Program{{"fio", "fio-3.33"}, {"nbdkit", "nbdkit 1.32.5"}},
		Servers: []Server{
			{Name: "sluice", Kind: File, Command: "bin/sluice serve {file} --nbd unix:{socket}"},
			{Name: "qemu-nbd", Kind: File, Command: "qemu-nbd --socket={socket} {file}"},
			{Name: "nbdkit-file", Kind: File, Command: "nbdkit --unix={socket} file {file}"},
			{Name: "local", Kind: Local, Command: "fio on {file}"},
			{Name: "sluice-mem", Kind: Mem, Command: "bin/sluice serve mem://{size} --nbd unix:{socket}"},
			{Name: "nbdkit-null", Kind: Null, Command: "nbdkit --unix={socket} null {size}", Note: "has no data."},
			{Name: "sluice-metrics", Kind: File, Command: "bin/sluice serve {file} --metrics 127.0.0.1:0", Against: "sluice"},
			{Name: "sluice-fuse", Kind: Fuse, Command: "bin/sluice serve {file} --fuse {mount}"},
			{Name: "sluice-pass", Kind: Fuse, Command: "bin/sluice serve {file} --fuse {mount} --fuse-passthrough"},
			{Name: "qsd-fuse", Kind: Fuse, Command: "qemu-storage-daemon --export type=fuse,mountpoint={mount}/disk"},
			{Name: "direct", Kind: Direct, Command: "fio --direct=1 on {file}"},
			{Name: "sluice-copy", Kind: Copier, Command: "bin/sluice copy {from} {to}"},
			{Name: "nbdcopy", Kind: Copier, Command: "nbdcopy {from} {to}"},
		},
		Workloads: []Workload{
			{Name: "sr1", Title: "1 MiB sequential read, depth 1", Command: "fio --rw=read", Unit: PerGiB, Connections: 1},
			{Name: "rr16", Title: "4 KiB random read, depth 16", Command: "fio --rw=randread", Unit: PerOp, Connections: 1},
			{Name: "rw16", Title: "4 KiB random write, depth 16", Command: "fio --rw=randwrite", Unit: PerOp, Connections: 1},
			{Name: "rr64x4", Title: "4 KiB random read, depth 64, 4 connections", Command: "fio --numjobs=4", Unit: PerOp, Connections: 4},
			{Name: "cr4", Title: "nbdcopy, read, 4 connections", Command: "nbdcopy", Unit: PerGiB, Connections: 4, Copy: true},
			{Name: "n2f", Title: "copy from an NBD export", Command: "{from} is an export", Unit: PerGiB, Connections: 1, Copy: true},
		},
	}
	speed := map[string]float64{"sluice": 3, "qemu-nbd": 1, "nbdkit-file": 2, "local": 12, "sluice-mem": 4, "nbdkit-null": 5,
		"sluice-metrics": 2.9, "sluice-copy": 2.5, "nbdcopy": 2, "sluice-fuse": 3.5, "sluice-pass": 3.8, "qsd-fuse": 1, "direct": 4}
	for rep := 1; rep <= 3; rep++ {
		for _, w := range r.Workloads {
			for _, s := range r.Servers {
				switch {
				case (s.Kind == Copier) != (w.Name == "n2f"), s.Against != "" && w.Name != "rr16":
					continue
				case s.Kind != File && s.Kind != Copier && (w.Copy || w.Connections > 1):
					continue
				}
				r.Samples = append(r.Samples, synthetic(s, w, rep, speed[s.Name]*(1.1-float64(rep)/10)))
			}
		}
	}
	return r
}

// synthetic is a sample of 2 s in which a server of the given speed spends all its time on the CPU.
func synthetic(s Server, w Workload, rep int, speed float64) Sample {
	out := Sample{Server: s.Name, Workload: w.Name, Repetition: rep, Seconds: 2, ServerCPU: 2, MachineCPU: 3, RSSBytes: 10 << 20, Steal: 0.001}
	out.Bytes = int64(speed * (1 << 30))
	if w.Unit == PerOp {
		out.Ops = int64(speed * 100e3)
		out.Bytes = out.Ops * 4096
	}
	if !w.Copy {
		out.P50us, out.P99us = 100/speed, 400/speed
	}
	if s.Kind == Local || s.Kind == Direct {
		out.ServerCPU, out.RSSBytes = 0, 0
	}
	return out
}

func golden(t *testing.T, name string, render func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := render(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s differs (-want +got), run with -update when it should:\n%s", path, diff)
	}
}

func TestMarkdownGolden(t *testing.T) { golden(t, "results.md", sample().Markdown) }

func TestSVGGolden(t *testing.T) { golden(t, "results.svg", sample().SVG) }

func TestJSONGolden(t *testing.T) { golden(t, "results.json", sample().JSON) }

func TestMarkdownNamesFailures(t *testing.T) {
	r := sample()
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Server == "qemu-nbd" && s.Workload == "rr16" {
			*s = Sample{Server: s.Server, Workload: s.Workload, Repetition: s.Repetition, Error: "connection refused"}
		}
	}
	golden(t, "failures.md", r.Markdown)
	want := "qemu-nbd rr16 (repetition 1): connection refused"
	if got := r.Failures(); len(got) != 3 || got[0] != want {
		t.Errorf("Failures() = %q, want 3 that begin with %q", got, want)
	}
}

// The order in which the samples were taken must not show in what is written.
func TestMarkdownIgnoresOrderOfSamples(t *testing.T) {
	r := sample()
	slices.Reverse(r.Samples)
	golden(t, "results.md", r.Markdown)
	golden(t, "results.svg", r.SVG)
}

func TestJSONRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	want := sample()
	if err := want.JSON(&buf); err != nil {
		t.Fatal(err)
	}
	got := &Report{}
	if err := json.Unmarshal(buf.Bytes(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	var buf bytes.Buffer
	if err := sample().SVG(&buf); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(&buf)
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSVGOfNothing(t *testing.T) {
	r := sample()
	r.Samples = nil
	var buf bytes.Buffer
	if err := r.SVG(&buf); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(buf.String(), "NaN") {
		t.Error("the plot of an empty report holds NaN")
	}
}

func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Stat
		half float64
	}{
		{nil, Stat{}, 0},
		{[]float64{5}, Stat{N: 1, Median: 5, Min: 5, Max: 5}, 0},
		{[]float64{9, 1, 5}, Stat{N: 3, Median: 5, Min: 1, Max: 9}, 0.8},
		{[]float64{4, 1, 2, 3}, Stat{N: 4, Median: 2.5, Min: 1, Max: 4}, 0.6},
	} {
		got := Summarise(c.in)
		if got != c.want || got.HalfSpread() != c.half {
			t.Errorf("Summarise(%v) = %+v, half spread %v; want %+v, %v", c.in, got, got.HalfSpread(), c.want, c.half)
		}
	}
}

func TestSampleUnits(t *testing.T) {
	s := Sample{Seconds: 2, Ops: 1000, Bytes: 4 << 30, ServerCPU: 1, MachineCPU: 2}
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"requests/s", s.Rate(PerOp), 500},
		{"MiB/s", s.Rate(PerGiB), 2048},
		{"µs/request", s.Cost(PerOp), 1000},
		{"s/GiB", s.Cost(PerGiB), 0.25},
		{"machine s/GiB", s.MachineCost(PerGiB), 0.5},
		{"empty rate", Sample{}.Rate(PerOp), 0},
		{"empty cost", Sample{}.Cost(PerGiB), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
}

// Ratios come from the pairs of each repetition: the medians alone would say 100/100 here.
func TestRatioPairsRepetitions(t *testing.T) {
	w := Workload{Name: "w", Unit: PerOp}
	r := &Report{Workloads: []Workload{w}}
	add := func(server string, rep int, ops int64) {
		r.Samples = append(r.Samples, Sample{Server: server, Workload: "w", Repetition: rep, Seconds: 1, Ops: ops})
	}
	for rep, v := range [][3]int64{{100, 50, 80}, {10, 100, 5}, {200, 100, 400}} {
		add("us", rep+1, v[0])
		add("a", rep+1, v[1])
		add("b", rep+1, v[2])
	}
	add("us", 4, 1) // the peers failed in repetition 4
	r.Samples = append(r.Samples, Sample{Server: "a", Workload: "w", Repetition: 4, Error: "gone"})

	if got, want := r.Ratio("us", []string{"a"}, w, Rate, math.Max), (Stat{3, 2, 0.1, 2}); got != want {
		t.Errorf("us/a = %+v, want %+v", got, want)
	}
	if got, want := r.Ratio("us", []string{"a", "b"}, w, Rate, math.Max), (Stat{3, 0.5, 0.1, 1.25}); got != want {
		t.Errorf("us/best = %+v, want %+v", got, want)
	}
	if got := r.Ratio("us", []string{"absent"}, w, Rate, math.Max); got.N != 0 {
		t.Errorf("us/absent = %+v, want nothing", got)
	}
}

func TestCheck(t *testing.T) {
	r := sample()
	got := map[string]string{}
	for _, v := range r.Check() {
		got[v.Workload+" "+v.Goal()] = v.Verdict() + " " + v.Value()
	}
	for goal, want := range map[string]string{
		"rr16 rate >= 2.20x qemu-nbd":                            "pass 3.00x",
		"rr16 rate >= 1.25x nbdkit-file":                         "pass 1.50x",
		"rr1 rate >= 2.50x qemu-nbd":                             "FAIL not measured",
		"sr1 server CPU <= 0.25x nbdkit-file":                    "FAIL 0.67x",
		"rw16 rate >= 1.25x the better of qemu-nbd, nbdkit-file": "pass 1.50x",
		"rr16 server CPU <= 4.0 us/op":                           "FAIL 7.4 us/op",
		"sr1 server CPU <= 0.10 s/GiB":                           "FAIL 0.74 s/GiB",
		"sr1 rate >= 1.30x nbdkit-file":                          "pass 1.50x",
		"rr16 rate of sluice-fuse >= 3.00x qsd-fuse":             "pass 3.50x",
		"rr1 rate of sluice-fuse >= 3.00x qsd-fuse":              "FAIL not measured",
		"rr16 rate of sluice-pass >= 0.90x direct":               "pass 0.95x",
	} {
		if got[goal] != want {
			t.Errorf("%s: %q, want %q", goal, got[goal], want)
		}
	}
	if len(got) != len(Targets) {
		t.Errorf("%d different goals for %d targets", len(got), len(Targets))
	}
	if Passed(r.Check()) {
		t.Error("passed although targets were missed")
	}
}

func TestPassed(t *testing.T) {
	if !Passed([]Verdict{{Pass: true}, {Pass: true}}) || Passed([]Verdict{{Pass: true}, {}}) {
		t.Error("Passed has to ask for all")
	}
}

func TestBrief(t *testing.T) {
	s := Sample{Seconds: 1, Ops: 150e3, Bytes: 1 << 30, ServerCPU: 0.5}
	for _, c := range []struct{ got, want string }{
		{s.Brief(PerOp), " 150.0 k/s      3.3 us/op"},
		{s.Brief(PerGiB), "    1024 MiB/s  0.50 s/GiB"},
		{Sample{Error: "gone"}.Brief(PerOp), "failed: gone"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTableAligns(t *testing.T) {
	tb := table{head: []string{"a", "µs"}, left: 1}
	tb.row("long name", "1")
	want := fmt.Sprintln("| a         |  µs |") + fmt.Sprintln("| --------- | --: |") + fmt.Sprintln("| long name |   1 |")
	if got := tb.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if tb.empty() || !(&table{left: 1, rows: [][]string{{"x", ""}}}).empty() {
		t.Error("empty is wrong")
	}
}
