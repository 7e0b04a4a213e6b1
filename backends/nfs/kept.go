package nfs

import (
	"context"
	"errors"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
)

// kept is a Device as its client sees it, which asks for what is not committed when
// the server may have lost it. None of it takes the Device's turn: who has that may
// have a call that waits for the client.
type kept struct{ d *Device }

// Verify implements remote.Kept. It sends a COMMIT also where nothing is kept, since
// a write that the server has answered may not have been noted yet.
func (k kept) Verify(ctx context.Context, raw remote.RawWriter) error {
	log := k.d.log
	mark := log.Mark()
	v, err := raw.Commit(ctx)
	switch {
	case err == nil:
		k.d.saw(v)
		if log.Committed(mark, unstable.Verifier(v)) {
			return nil
		}
	default:
		log.CommitFailed() // or its answer was lost, and it was that
		if !refused(err) {
			return err
		}
	}
	return k.restore(ctx, raw)
}

// Restore implements remote.Kept.
func (k kept) Restore(ctx context.Context, raw remote.RawWriter) error {
	k.d.renewed()
	return k.restore(ctx, raw)
}

// restore writes all that is stale again. A server that refuses it is no reason for
// all others to wait: the log stays stale, and the Device's next call meets the error.
func (k kept) restore(ctx context.Context, raw remote.RawWriter) error {
	if !k.d.log.Stale() {
		return nil
	}
	err := k.d.log.Restore(ctx, rawRewriter{raw, k.d}, k.d.wsize)
	if refused(err) {
		return nil
	}
	return err
}

// refused tells an answer of the server that will not change from one that did not
// come.
func refused(err error) bool {
	var status *nfsstat.Error
	return errors.As(err, &status) && block.KindOf(err) != block.Transient
}

// again is the Device as what package unstable writes to.
type again struct{ d *Device }

// Write implements unstable.Rewriter.
func (a again) Write(ctx context.Context, p []byte, off int64) (unstable.Verifier, bool, error) {
	w, err := writeAll(ctx, a.d.file, p, off, false)
	return unstable.Verifier(w.Verifier), w.Durable, err
}

// Zero implements unstable.Rewriter.
func (a again) Zero(ctx context.Context, off, n int64) (unstable.Verifier, error) {
	v, err := a.d.verifier(ctx)
	if err == nil {
		err = a.d.allocator.Deallocate(ctx, off, n)
	}
	return unstable.Verifier(v), err
}

// Commit implements unstable.Rewriter.
func (a again) Commit(ctx context.Context) (unstable.Verifier, error) {
	v, err := a.d.file.Commit(ctx)
	if err == nil {
		a.d.commits.learn(v)
	}
	return unstable.Verifier(v), err
}

// rawRewriter is what package unstable writes to while calls in general wait.
type rawRewriter struct {
	raw remote.RawWriter
	d   *Device
}

// Write implements unstable.Rewriter.
func (r rawRewriter) Write(ctx context.Context, p []byte, off int64) (unstable.Verifier, bool, error) {
	w, err := writeAll(ctx, rawFile{r.raw}, p, off, false)
	return unstable.Verifier(w.Verifier), w.Durable, err
}

// Zero implements unstable.Rewriter.
func (r rawRewriter) Zero(ctx context.Context, off, n int64) (unstable.Verifier, error) {
	v, err := r.raw.Zero(ctx, off, n)
	return unstable.Verifier(v), err
}

// Commit implements unstable.Rewriter.
func (r rawRewriter) Commit(ctx context.Context) (unstable.Verifier, error) {
	v, err := r.raw.Commit(ctx)
	if err == nil {
		r.d.commits.learn(v)
	}
	return unstable.Verifier(v), err
}

// rawFile fits a RawWriter to writeAll.
type rawFile struct{ raw remote.RawWriter }

// Write is an UNSTABLE write.
func (f rawFile) Write(ctx context.Context, p []byte, off int64, _ bool) (remote.Written, error) {
	return f.raw.Write(ctx, p, off)
}
