package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/bench/report"
)

// Plan is what a run does.
type Plan struct {
	Servers     []Server
	Workloads   []Workload
	Repetitions int
	Seconds     float64 // per sample
	Size        int64   // bytes of the image, a multiple of 4 MiB
	Seed        uint64  // of the order of the servers
	Dir         string  // where the image lies
	Sluice      string  // our program
	Bench       string  // this program
	// Progress, if not nil, is called after each sample with its number and the number of all.
	Progress func(s report.Sample, w Workload, done, all int)
}

// runner holds what lives as long as a run.
type runner struct {
	Plan
	data    *dataset
	sockets string              // folder for sockets, short enough for a socket's address
	kept    map[string]*process // servers in memory, started once because they have to be filled
	nfs     *nfsServer          // started when the first server needs it
}

// cell is one server under one workload.
type cell struct {
	server   Server
	workload Workload
}

// Samples tells how many samples the plan takes.
func (p Plan) Samples() int { return p.Repetitions * len(p.cells(0)) }

// Duration estimates how long the run takes; a sample costs about half a second besides the measured time.
func (p Plan) Duration() time.Duration {
	return time.Duration(float64(p.Samples()) * (p.Seconds + 0.5) * float64(time.Second))
}

// cells returns one repetition: workload by workload, and within each all its servers in turn, in an order that the
// seed decides anew each time. So the samples that are compared lie within seconds of each other, and no server is
// always the one that runs after a certain other one. A variation of a server comes right before or after it.
func (p Plan) cells(repetition int) []cell {
	random := rand.New(rand.NewPCG(p.Seed, uint64(repetition)))
	var out []cell
	for _, w := range p.Workloads {
		for _, i := range random.Perm(len(p.Servers)) {
			together := p.variations(i)
			random.Shuffle(len(together), func(a, b int) { together[a], together[b] = together[b], together[a] })
			for _, s := range together {
				if s.takes(w) {
					out = append(out, cell{s, w})
				}
			}
		}
	}
	return out
}

// variations returns a server of the plan with its variations, and nothing for a variation whose server takes part.
func (p Plan) variations(i int) []Server {
	s := p.Servers[i]
	if slices.ContainsFunc(p.Servers, func(base Server) bool { return s.Against == base.Name }) {
		return nil
	}
	out := []Server{s}
	for _, v := range p.Servers {
		if v.Against == s.Name {
			out = append(out, v)
		}
	}
	return out
}

// Run takes all samples. A server or client that fails makes a sample with an error and the run goes on; Run itself
// fails only when the run as a whole cannot be made or ctx is done. When it returns, everything that it started has
// ended and its files are gone.
func (p Plan) Run(ctx context.Context) (samples []report.Sample, err error) {
	r := &runner{Plan: p, kept: map[string]*process{}}
	defer func() { err = errors.Join(err, r.close()) }()
	if r.sockets, err = os.MkdirTemp("", "slb-"); err != nil {
		return nil, err
	}
	withSource := false
	for _, w := range p.Workloads {
		withSource = withSource || w.Copy && w.write
	}
	for _, s := range p.Servers {
		withSource = withSource || s.Kind == report.Mem // its memory is filled from the same file
	}
	if r.data, err = newDataset(ctx, p.Dir, p.Size, withSource); err != nil {
		return nil, err
	}
	for repetition := 1; repetition <= p.Repetitions; repetition++ {
		if err := r.data.cache(ctx); err != nil {
			return nil, err
		}
		for _, c := range p.cells(repetition) {
			s, err := r.sample(ctx, c, repetition)
			if err != nil {
				return nil, err
			}
			samples = append(samples, s)
			if p.Progress != nil {
				p.Progress(s, c.workload, len(samples), p.Samples())
			}
		}
	}
	return samples, nil
}

func (r *runner) close() error {
	for _, p := range r.kept {
		p.stop()
	}
	r.nfsDown()
	var errs []error
	if r.data != nil {
		errs = append(errs, r.data.remove())
	}
	if r.sockets != "" {
		errs = append(errs, os.RemoveAll(r.sockets))
	}
	return errors.Join(errs...)
}

const (
	// maxSteal is the share of the machine's CPU time that its host may take during a sample. One in which it took
	// more tells of the host: it is taken again, up to maxTries times, and the least disturbed one counts.
	maxSteal = 0.03
	maxTries = 4
)

// sample measures one cell; the error is only for what ends the whole run.
func (r *runner) sample(ctx context.Context, c cell, repetition int) (report.Sample, error) {
	s, err := r.attempt(ctx, c)
	for try := 2; err == nil && s.Error == "" && s.Steal > maxSteal && try <= maxTries; try++ {
		var again report.Sample
		if again, err = r.attempt(ctx, c); again.Steal < s.Steal || again.Error != "" {
			s = again
		}
		s.Tries = try
	}
	s.Server, s.Workload, s.Repetition = c.server.Name, c.workload.Name, repetition
	return s, err
}

func (r *runner) attempt(ctx context.Context, c cell) (report.Sample, error) {
	s, err := r.measure(ctx, c)
	if err != nil {
		s = report.Sample{Error: err.Error()}
	}
	s.Tries = 1
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	if !c.workload.write || !c.server.onFile() {
		return s, nil
	}
	if err := r.data.settle(); err != nil || !c.server.past() {
		return s, err
	}
	return s, r.data.cache(ctx) // what is written past the page cache leaves it
}

func (r *runner) measure(ctx context.Context, c cell) (report.Sample, error) {
	switch c.server.Kind {
	case report.Local, report.Direct:
		return r.withMachine(func() (report.Sample, error) { return r.drive(ctx, c) })
	case report.Copier:
		return r.transfer(ctx, c)
	case report.Fuse:
		return r.mounted(ctx, c)
	case report.NFS:
		if err := r.nfsUp(); err != nil {
			return report.Sample{}, err
		}
		return r.served(ctx, c)
	}
	return r.served(ctx, c)
}

// served measures a server.
func (r *runner) served(ctx context.Context, c cell) (report.Sample, error) {
	server, err := r.server(ctx, c.server)
	if err != nil {
		return report.Sample{}, err
	}
	if c.server.onFile() {
		defer server.stop()
	}
	return r.withMachine(func() (report.Sample, error) {
		return withServer(server, func() (report.Sample, error) {
			return unhung(ctx, server, r.limit(c.workload), func(ctx context.Context) (report.Sample, error) {
				return r.withNFS(c.server, func() (report.Sample, error) { return r.drive(ctx, c) })
			})
		})
	})
}

var errHung = errors.New("hung")

// limit is how long a client may take, what it does besides its work included. A copy that has begun goes to its end.
func (r *runner) limit(w Workload) time.Duration {
	limit := time.Duration(r.Seconds*float64(time.Second)) + hangLimit
	if w.Copy {
		limit += time.Duration(r.Size>>20) * time.Second / 10
	}
	return limit
}

// unhung ends a client that takes too long, and kills its server first: a client that waits for an answer from a FUSE
// server cannot be killed as long as that lives.
func unhung(ctx context.Context, server *process, limit time.Duration, drive func(context.Context) (report.Sample, error)) (report.Sample, error) {
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: the client of %s did not end within %s", errHung, server.name, limit))
	defer cancel()
	watched := make(chan struct{})
	stop := context.AfterFunc(limited, func() {
		defer close(watched)
		server.kill()
	})
	s, err := drive(limited)
	if !stop() {
		<-watched
		err = context.Cause(limited)
	}
	return s, err
}

// withMachine adds what the whole machine used meanwhile.
func (r *runner) withMachine(measure func() (report.Sample, error)) (report.Sample, error) {
	before, err := readMachineTimes()
	if err != nil {
		return report.Sample{}, err
	}
	s, err := measure()
	if err != nil {
		return s, err
	}
	after, err := readMachineTimes()
	s.MachineCPU, s.Steal = after.since(before)
	return s, err
}

// withServer adds what the server used meanwhile.
func withServer(server *process, measure func() (report.Sample, error)) (report.Sample, error) {
	before, err := treeUsage(server.cmd.Process.Pid)
	if err != nil {
		return report.Sample{}, err
	}
	s, err := measure()
	if errors.Is(err, errHung) {
		return s, err
	}
	if !server.alive() {
		return s, errors.Join(err, fmt.Errorf("%s ended during the sample: %s", server.name, server.output))
	}
	if err != nil {
		return s, err
	}
	after, err := treeUsage(server.cmd.Process.Pid)
	s.ServerCPU, s.RSSBytes = after.cpu-before.cpu, after.rss
	return s, err
}

func (r *runner) socket(s Server) string { return filepath.Join(r.sockets, s.Name) }

func (r *runner) config(s Server) string { return filepath.Join(r.sockets, s.Name+".toml") }

// serves returns the probe for the server.
func (r *runner) serves(s Server) probe {
	switch {
	case s.Kind == report.Fuse:
		return mount{file: filepath.Join(r.mountDir(s), mountedName)}.shows(r.Size)
	case s.export != "":
		return exports(uri(r.socket(s), s.export))
	}
	return accepts(r.socket(s))
}

// configure writes the server's configuration, and takes away what an earlier one kept.
func (r *runner) configure(s Server) error {
	if s.config == "" {
		return nil
	}
	path := r.config(s)
	if err := os.RemoveAll(path + ".state"); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(r.places(s).fill([]string{s.config})[0]), 0o600)
}

// server returns a running server. One on the file is started for each sample, because most take a lock on it; one in
// memory is started once, and filled with data.
func (r *runner) server(ctx context.Context, s Server) (*process, error) {
	if p := r.kept[s.Name]; p != nil {
		if p.alive() {
			return p, nil
		}
		p.stop()
		delete(r.kept, s.Name)
	}
	socket := r.socket(s)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := r.configure(s); err != nil {
		return nil, err
	}
	p, err := start(ctx, s.Name, s.Args(r.places(s)), r.serves(s))
	if err != nil || s.onFile() {
		return p, err
	}
	if s.Kind == report.Mem {
		if _, err := runClient(ctx, "nbdcopy", r.data.source, uri(socket, s.export)); err != nil {
			p.stop()
			return nil, fmt.Errorf("fill %s: %w", s.Name, err)
		}
	}
	r.kept[s.Name] = p
	return p, nil
}

func (r *runner) places(s Server) Places {
	p := Places{
		Sluice: r.Sluice, Bench: r.Bench, Socket: r.socket(s), File: r.data.disk, Size: r.Size,
		Config: r.config(s), Mount: r.mountDir(s),
	}
	if r.nfs != nil {
		p.NFS, p.LibNFS = r.nfs.URL(filepath.Base(p.File)), r.nfs.LibURL(filepath.Base(p.File))
	}
	return p
}

// drive runs the client and fills in what the client tells.
func (r *runner) drive(ctx context.Context, c cell) (report.Sample, error) {
	w, socket := c.workload, r.socket(c.server)
	if w.Copy {
		return r.copies(ctx, w, socket)
	}
	t := target{
		socket: socket, export: c.server.export, direct: c.server.past(), size: fmt.Sprint(r.Size), part: fmt.Sprint(r.Size / int64(max(w.Connections, 1))),
		runtime: fmt.Sprintf("%dms", int64(r.Seconds*1000)),
	}
	switch c.server.Kind {
	case report.Local, report.Direct:
		t.file = r.data.disk
	case report.Fuse:
		t.file = filepath.Join(r.mountDir(c.server), mountedName)
	}
	out, err := runClient(ctx, append([]string{"fio"}, w.fioArgs(t)...)...)
	if err != nil {
		return report.Sample{}, err
	}
	f, err := parseFio(out)
	if err != nil {
		return report.Sample{}, err
	}
	return report.Sample{Seconds: f.seconds, Ops: f.ops, Bytes: f.bytes, P50us: f.p50, P99us: f.p99}, nil
}

// copies copies the whole image again and again until the time is over. The time of starting nbdcopy is part of it.
func (r *runner) copies(ctx context.Context, w Workload, socket string) (report.Sample, error) {
	var s report.Sample
	begin := time.Now()
	for s.Seconds < r.Seconds {
		if _, err := runClient(ctx, append([]string{"nbdcopy"}, w.copyArgs(socket, r.data.source)...)...); err != nil {
			return s, err
		}
		s.Bytes += r.Size
		s.Seconds = time.Since(begin).Seconds()
	}
	return s, nil
}
