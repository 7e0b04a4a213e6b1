// Command bench measures our NBD server and its peers side by side: same file, same sockets, same clients, in turn. It
// prints what it measured and writes RESULTS.md, results.json and results.svg; see README.md in this folder.
//
// Called as "bench gonbd SOCKET FILE" it is itself one of the peers, the server of the go-nbd library.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"sluice/bench/gonbd"
	"sluice/bench/report"
	"sluice/bench/suite"
)

// The servers are started with a death signal that is tied to the starting thread, so that thread has to be the one
// that lives as long as the program.
func init() { runtime.LockOSThread() }

// errFailed says that the run was completed but its outcome is a failure that was already printed.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted; nothing was written")
		os.Exit(130)
	case errors.Is(err, errFailed):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 3 && args[0] == "gonbd" {
		return gonbd.Serve(ctx, args[1], args[2])
	}
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var r *report.Report
	if o.from != "" {
		r, err = load(o.from)
	} else {
		r, err = measure(ctx, o, stderr)
	}
	if err != nil {
		return err
	}
	if err := o.write(r, stdout); err != nil {
		return err
	}
	return verdict(r, o.check, stdout, stderr)
}

// verdict ends the run: with an error when a sample failed or, if asked, a target was missed.
func verdict(r *report.Report, check bool, stdout, stderr io.Writer) error {
	failures := r.Failures()
	for _, f := range failures {
		_, _ = fmt.Fprintln(stderr, "bench: failed:", f)
	}
	passed := true
	if check {
		passed = report.Passed(r.Check())
		_, _ = fmt.Fprintf(stdout, "%s\n", r.TargetsTable())
	}
	if len(failures) > 0 || !passed {
		return errFailed
	}
	return nil
}

func (o options) plan() (suite.Plan, error) {
	servers, err := suite.Choose(o.servers, o.custom)
	if err != nil {
		return suite.Plan{}, err
	}
	workloads, err := suite.Select(o.workloads)
	if err != nil {
		return suite.Plan{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return suite.Plan{}, err
	}
	return suite.Plan{
		Servers: servers, Workloads: workloads, Repetitions: o.repeat, Seconds: o.seconds, Size: o.size,
		Seed: o.seed, Dir: o.dir, Sluice: o.sluice, Bench: self,
	}, nil
}

func measure(ctx context.Context, o options, stderr io.Writer) (*report.Report, error) {
	p, err := o.plan()
	if err != nil {
		return nil, err
	}
	if err := p.Lookup(); err != nil {
		return nil, err
	}
	machine, err := suite.Machine(o.dir)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(stderr, "%d samples, about %s\n", p.Samples(), p.Duration().Round(time.Second))
	p.Progress = func(s report.Sample, w suite.Workload, done, all int) {
		_, _ = fmt.Fprintf(stderr, "[%*d/%d] %-7s %-14s %s\n", len(fmt.Sprint(all)), done, all, w.Name, s.Server, s.Brief(w.Unit))
	}
	r := &report.Report{
		Date:    time.Now().UTC().Format(time.RFC3339),
		Machine: machine,
		Settings: report.Settings{
			Repetitions: o.repeat, Seconds: o.seconds, SizeBytes: o.size, Seed: o.seed,
		},
		Programs: p.Programs(ctx),
	}
	for _, s := range p.Servers {
		r.Servers = append(r.Servers, s.Documented(o.sluice))
	}
	for _, w := range p.Workloads {
		r.Workloads = append(r.Workloads, w.Workload)
	}
	r.Samples, err = p.Run(ctx)
	return r, err
}

// write renders the report to the files that were asked for, and as Markdown to stdout when none was.
func (o options) write(r *report.Report, stdout io.Writer) error {
	for _, out := range []struct {
		path   string
		render func(io.Writer) error
	}{
		{o.json, r.JSON},
		{o.markdown, r.Markdown},
		{o.svg, r.SVG},
	} {
		if out.path == "" {
			continue
		}
		if err := writeFile(out.path, out.render); err != nil {
			return err
		}
	}
	if o.markdown == "" && !o.check {
		return r.Markdown(stdout)
	}
	return nil
}

// writeFile replaces a file in one step, so that an older result is whole until the new one is.
func writeFile(path string, render func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".bench-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(render(f), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func load(path string) (*report.Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report.Report{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
