package v3

import (
	"context"
	"slices"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
)

// revive asks for what is kept, over a connection that nothing else is sent over yet.
// One connection does so at a time: the next one finds everything in order.
func (c *Client) revive(ctx context.Context, l *lane, link *rpc.Link) error {
	select {
	case c.reviving <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.reviving }()
	l.ready = nil
	r := &revival{c: c, lane: l, link: link}
	for _, f := range c.openFiles() {
		if err := f.verify(ctx, r); err != nil {
			l.gone(err)
			return err
		}
	}
	l.ready = link.Conn()
	l.there()
	return nil
}

func (c *Client) openFiles() []*File {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := make([]*File, 0, len(c.files))
	for f := range c.files {
		files = append(files, f)
	}
	return files
}

// verify has what was written to the file and not committed be verified.
func (f *File) verify(ctx context.Context, r *revival) error {
	if f.kept == nil {
		return nil
	}
	f.verifying.Lock()
	defer f.verifying.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.setCancel(cancel)
	defer f.setCancel(nil)
	if f.isClosing() {
		return nil
	}
	err := f.kept.Verify(ctx, &rawFile{r: r, f: f})
	if f.isClosing() {
		return nil
	}
	return err
}

func (f *File) setCancel(cancel context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel = cancel
}

// revival is a connection that is being revived.
type revival struct {
	c       *Client
	lane    *lane
	link    *rpc.Link
	stopped bool // no other connection is in use
}

// ask implements asker.
func (r *revival) ask(ctx context.Context, proc uint32, args []byte) (result, error) {
	wait := patience{limit: r.c.cfg.Patience, closing: r.c.closing}
	return persist(ctx, &wait, func() (result, error) { return r.once(ctx, proc, args, nil) })
}

func (r *revival) once(ctx context.Context, proc uint32, args, data []byte) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{proc: proc}, err
	}
	results, err := r.link.Call(ctx, proc, args, data)
	if err != nil {
		return result{proc: proc}, callError(nameOf(proc), err)
	}
	return open(proc, slices.Clone(results))
}

// stopOthers keeps all calls from the server until everything is in order again: those
// under way over other connections are parked, and their connections wait for this one
// when they are made anew.
func (r *revival) stopOthers() {
	if r.stopped {
		return
	}
	r.stopped = true
	for _, l := range r.c.lanes {
		if l != r.lane {
			l.stop()
		}
	}
}

// rawFile implements remote.RawWriter over a connection that is being revived.
type rawFile struct {
	r *revival
	f *File
}

var _ remote.RawWriter = (*rawFile)(nil)

// call makes a call on the file, looking it up again where its handle is stale.
func (w *rawFile) call(ctx context.Context, proc uint32, args func(fh handle) []byte, data []byte) (result, error) {
	wait := w.f.patience()
	for {
		fh := w.f.handle.Load()
		r, err := w.r.once(ctx, proc, args(*fh), data)
		switch {
		case statusOf(err) == nfsstat.Delay:
			err = wait.wait(ctx, err)
		case isStale(err) && !wait.moved:
			wait.moved = true
			err = w.f.relocate(ctx, w.r, fh, err)
		default:
			return r, err
		}
		if err != nil {
			return r, err
		}
	}
}

// Write implements remote.RawWriter.
func (w *rawFile) Write(ctx context.Context, p []byte, off int64) (remote.Written, error) {
	w.r.stopOthers()
	op := write{p: p[:min(len(p), w.f.limits.Write)], off: off}
	if len(op.p) == 0 {
		return remote.Written{Durable: true}, nil
	}
	r, err := w.call(ctx, procWrite, func(fh handle) []byte { return op.append(nil, fh) }, op.p)
	if err != nil {
		return remote.Written{}, err
	}
	written, err := op.decode(&r)
	if err == nil {
		w.f.see(written.Verifier)
	}
	return written, err
}

// Zero implements remote.RawWriter. NFSv3 has nothing better than to write zeroes.
func (w *rawFile) Zero(ctx context.Context, off, n int64) (v remote.Verifier, err error) {
	zeroes := make([]byte, min(n, int64(w.f.limits.Write)))
	for done := int64(0); done < n; {
		written, err := w.Write(ctx, zeroes[:min(n-done, int64(len(zeroes)))], off+done)
		if err != nil {
			return 0, err
		}
		if done == 0 { // of a later one the server may have lost the first
			v = written.Verifier
		}
		done += int64(written.N)
	}
	return v, nil
}

// Commit implements remote.RawWriter.
func (w *rawFile) Commit(ctx context.Context) (remote.Verifier, error) {
	r, err := w.call(ctx, procCommit, func(fh handle) []byte { return appendCommit(nil, fh) }, nil)
	if err != nil {
		return 0, err
	}
	v, err := readCommit(&r)
	if err == nil && w.f.see(v) {
		w.r.stopOthers()
	}
	return v, err
}
