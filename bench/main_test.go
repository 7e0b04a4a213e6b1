package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/bench/suite"
)

func TestParseDefaults(t *testing.T) {
	o, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.repeat != defaultRepeat || o.seconds != defaultSeconds || o.size != 1<<30 {
		t.Errorf("got %+v", o)
	}
	if o.json != "bench/results.json" || o.markdown != "bench/RESULTS.md" || o.svg != "bench/results.svg" {
		t.Errorf("a whole run writes %q, %q, %q", o.json, o.markdown, o.svg)
	}
}

// A part of a run must never replace the results of a whole one unless that is asked for.
func TestParsePartWritesNothing(t *testing.T) {
	for _, args := range [][]string{
		{"--quick"}, {"--servers", "local"}, {"--workloads", "rr1"}, {"--server", "x=y {socket}"}, {"--from", "x.json"},
	} {
		o, err := parse(args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if o.json != "" || o.markdown != "" || o.svg != "" {
			t.Errorf("%q writes %q, %q, %q", args, o.json, o.markdown, o.svg)
		}
	}
	o, err := parse([]string{"--quick", "--svg", "x.svg"}, io.Discard)
	if err != nil || o.svg != "x.svg" || o.json != "" {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestParseQuick(t *testing.T) {
	o, err := parse([]string{"--quick"}, io.Discard)
	if err != nil || o.repeat != 1 || o.seconds != 1 || o.size != 64<<20 {
		t.Errorf("got %+v, %v", o, err)
	}
	o, err = parse([]string{"--quick", "--repeat=3", "--seconds=0.2", "--size=32M"}, io.Discard)
	if err != nil || o.repeat != 3 || o.seconds != 0.2 || o.size != 32<<20 {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestParseRejects(t *testing.T) {
	for _, args := range [][]string{
		{"--repeat=0"}, {"--seconds=0"}, {"--size=1M"}, {"--size=18M"}, {"--size=x"}, {"--size=99999999999G"}, {"word"}, {"--no-such"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "nbdkit-file") {
		t.Errorf("help: %v\n%s", err, help.String())
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "512": 512, "4K": 4096, "64M": 64 << 20, "2G": 2 << 30, "1T": 1 << 40} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "K", "-1", "1.5G", "1GG", "1k", "M1"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d", in, got)
		}
	}
}

// Results that were kept can be rendered and judged again.
func TestRunFromResults(t *testing.T) {
	dir := t.TempDir()
	md, svg := filepath.Join(dir, "r.md"), filepath.Join(dir, "r.svg")
	var out, errOut bytes.Buffer
	args := []string{"--from", "report/testdata/results.json", "--markdown", md, "--svg", svg, "--check"}
	if err := run(context.Background(), args, &out, &errOut); !errors.Is(err, errFailed) {
		t.Errorf("got %v, want the failure of the missed targets", err)
	}
	if !strings.Contains(out.String(), "| rr16     | rate >= 2.20x qemu-nbd") {
		t.Errorf("verdicts:\n%s", out.String())
	}
	for got, want := range map[string]string{md: "report/testdata/results.md", svg: "report/testdata/results.svg"} {
		a, err := os.ReadFile(got)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not %s", got, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown server":   {"--servers", "x"},
		"unknown workload": {"--workloads", "x"},
		"make build":       {"--servers", "sluice", "--sluice", "/no/such/program"},
		"no such file":     {"--from", "/no/such/file"},
	} {
		if err := run(context.Background(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestWriteFileKeepsTheOldOneOnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errors.New("broken")
	}
	if err := writeFile(path, broken); err == nil {
		t.Error("no error")
	}
	got, err := os.ReadFile(path)
	left, dirErr := os.ReadDir(filepath.Dir(path))
	if err != nil || string(got) != "old" || dirErr != nil || len(left) != 1 {
		t.Errorf("file %q, %v; folder %v, %v", got, err, left, dirErr)
	}
}

// The README has to explain every column and every server.
func TestReadmeIsComplete(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range suite.Workloads() {
		if !strings.Contains(string(text), "`"+w.Name+"`") {
			t.Errorf("workload %s is missing", w.Name)
		}
	}
	for _, s := range suite.Servers() {
		if !strings.Contains(string(text), "`"+s.Name+"`") {
			t.Errorf("server %s is missing", s.Name)
		}
	}
}
