package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"sluice/bench/suite"
)

// options are the command line.
type options struct {
	servers, workloads string
	custom             []string
	repeat             int
	seconds            float64
	size               int64
	seed               uint64
	dir, sluice, from  string
	json, markdown     string
	svg                string
	quick, check       bool
}

// A run with these takes some 21 minutes. Many short samples stand a machine's moods better than few
// long ones.
const (
	defaultRepeat  = 5
	defaultSeconds = 1
)

const usage = `usage: go run ./bench [flags]

Runs our server and its peers in turn under the same load and prints rates, ratios and CPU costs. Without flags it takes
all servers and workloads and writes bench/RESULTS.md, bench/results.json and bench/results.svg; with --servers,
--server, --workloads or --quick it writes only the files that are named.

`

// parse reads the command line; stderr gets the help.
func parse(args []string, stderr io.Writer) (options, error) {
	o := options{size: 1 << 30}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		_, _ = io.WriteString(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.servers, "servers", "", "servers to run, separated by commas; default: all but the optional ones ("+serverNames()+")")
	fs.Func("server", "one more server, `name=command` with {socket} and {file} or {size}; may replace a known name; may be repeated",
		func(s string) error { o.custom = append(o.custom, s); return nil })
	fs.StringVar(&o.workloads, "workloads", "", "workloads to run, separated by commas; default: all ("+workloadNames()+")")
	fs.IntVar(&o.repeat, "repeat", defaultRepeat, "repetitions")
	fs.Float64Var(&o.seconds, "seconds", defaultSeconds, "length of one sample in `seconds`")
	fs.Func("size", "size of the image, with K, M or G (default 1G)", func(s string) (err error) { o.size, err = parseSize(s); return err })
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the order in which the servers take turns")
	fs.StringVar(&o.dir, "dir", os.TempDir(), "`folder` for the image; its file system is part of what is measured")
	fs.StringVar(&o.sluice, "sluice", "bin/sluice", "our program")
	fs.StringVar(&o.json, "json", "", "`file` for the results as JSON")
	fs.StringVar(&o.markdown, "markdown", "", "`file` for the results as Markdown")
	fs.StringVar(&o.svg, "svg", "", "`file` for the plot")
	fs.StringVar(&o.from, "from", "", "measure nothing; take the results from this JSON `file`")
	fs.BoolVar(&o.quick, "quick", false, "a smoke test: one repetition of 1 s on a small image")
	fs.BoolVar(&o.check, "check", false, "print the verdicts on the project's targets and exit with 1 if one fails")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	o.applyDefaults(set)
	return o, o.validate()
}

func (o *options) applyDefaults(set map[string]bool) {
	if o.quick {
		for name, apply := range map[string]func(){
			"repeat":  func() { o.repeat = 1 },
			"seconds": func() { o.seconds = 1 },
			"size":    func() { o.size = 64 << 20 },
		} {
			if !set[name] {
				apply()
			}
		}
	}
	whole := !set["servers"] && !set["server"] && !set["workloads"] && !o.quick && o.from == ""
	for name, file := range map[string]struct {
		field *string
		value string
	}{
		"json":     {&o.json, "bench/results.json"},
		"markdown": {&o.markdown, "bench/RESULTS.md"},
		"svg":      {&o.svg, "bench/results.svg"},
	} {
		if whole && !set[name] {
			*file.field = file.value
		}
	}
}

func (o *options) validate() error {
	switch {
	case o.repeat < 1:
		return errors.New("--repeat has to be at least 1")
	case o.seconds < 0.1 || o.seconds > 3600:
		return errors.New("--seconds has to be between 0.1 and 3600")
	case o.size < 16<<20 || o.size%(4<<20) != 0:
		return errors.New("--size has to be a multiple of 4M and at least 16M")
	}
	return nil
}

// parseSize reads a number of bytes with an optional binary suffix K, M, G or T.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if i := strings.IndexAny(s, "KMGT"); i >= 0 && i == len(s)-1 {
		digits, shift = s[:i], 10*(1+strings.Index("KMGT", s[i:]))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q is not a number with K, M, G or T", s)
	}
	return n << shift, nil
}

func serverNames() string {
	var names []string
	for _, s := range suite.Servers() {
		name := s.Name
		if s.Optional {
			name += " (optional)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func workloadNames() string {
	var names []string
	for _, w := range suite.Workloads() {
		names = append(names, w.Name)
	}
	return strings.Join(names, ", ")
}
