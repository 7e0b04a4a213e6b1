package nfs

import (
	"context"
	"sync"
	"sync/atomic"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
)

// inFlight is how many pieces of one request are with the server at a time.
const inFlight = 4

// ReadAt fills p from off.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	if err := d.current(ctx); err != nil {
		return d.fail("read", off, err)
	}
	if len(p) <= d.rsize {
		return d.read(ctx, p, off)
	}
	return inPieces(ctx, int64(len(p)), int64(d.rsize), func(at, n int64) error {
		return d.read(ctx, p[at:at+n], off+at)
	})
}

// read fills p, which is no longer than a READ can be.
func (d *Device) read(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := d.file.Read(ctx, p, off)
		if err != nil {
			return d.fail("read", off, err)
		}
		if n == 0 {
			return d.cutOff(ctx, off)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// cutOff is the error of a read behind the end of the file.
func (d *Device) cutOff(ctx context.Context, off int64) error {
	a, err := d.file.Attr(ctx)
	if err != nil {
		return d.fail("read", off, err)
	}
	return block.Errorf(block.IO, "read", d.url, off, "the file has %d bytes, and had %d: somebody else has cut it off",
		a.Size, d.size.Load())
}

// WriteAt stores p at off.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if err := d.enterChange("write", off, int64(len(p)), flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	return d.writeLong(ctx, "write", p, off, flags&block.FUA != 0)
}

func (d *Device) writeLong(ctx context.Context, op string, p []byte, off int64, stable bool) error {
	switch {
	case len(p) == 0:
		return nil
	case len(p) <= d.wsize:
		return d.write(ctx, op, p, off, stable)
	}
	return inPieces(ctx, int64(len(p)), int64(d.wsize), func(at, n int64) error {
		return d.write(ctx, op, p[at:at+n], off+at, stable)
	})
}

// write stores p, which is no longer than a WRITE can be.
func (d *Device) write(ctx context.Context, op string, p []byte, off int64, stable bool) error {
	keep := int64(len(p))
	if stable {
		keep = 0
	}
	change, err := d.log.Begin(ctx, off, int64(len(p)), keep)
	if err != nil {
		return d.fail(op, off, err)
	}
	instance := d.commits.instance.Load()
	w, err := writeAll(ctx, d.file, p, off, stable)
	for err == nil && w.Durable && d.commits.instance.Load() != instance {
		// The reply may be from before a recovery, in which older bytes that were
		// kept have been written over these.
		instance = d.commits.instance.Load()
		w, err = writeAll(ctx, d.file, p, off, stable)
	}
	switch {
	case err != nil:
		change.Failed()
		return d.fail(op, off, err)
	case w.Durable:
		change.Stable()
		return nil
	case stable:
		change.Failed()
		return block.Errorf(block.IO, op, d.url, off, "the server has not made a stable write durable")
	}
	change.Unstable(p, unstable.Verifier(w.Verifier))
	d.changed(instance)
	d.saw(w.Verifier)
	return nil
}

// file is what writeAll needs of a remote.File.
type file interface {
	Write(ctx context.Context, p []byte, off int64, stable bool) (remote.Written, error)
}

// writeAll writes again what a short write left over. Where the parts have different
// verifiers the result has the first one: then the whole counts as lost, since the
// part before it may be.
func writeAll(ctx context.Context, f file, p []byte, off int64, stable bool) (remote.Written, error) {
	all, err := f.Write(ctx, p, off, stable)
	for last := all.N; err == nil && all.N < len(p); {
		if last <= 0 {
			return all, block.Errorf(block.IO, "write", "", off+int64(all.N), "the server takes nothing of %d bytes", len(p)-all.N)
		}
		var w remote.Written
		w, err = f.Write(ctx, p[all.N:], off+int64(all.N), stable)
		if all.Durable {
			all.Verifier = w.Verifier
		}
		all.Durable = all.Durable && w.Durable
		all.N += w.N
		last = w.N
	}
	return all, err
}

// inPieces does something to all of n bytes, in pieces, and gives the first error.
func inPieces(ctx context.Context, n, piece int64, do func(at, n int64) error) error {
	var (
		next    atomic.Int64
		stop    atomic.Bool
		once    sync.Once
		failure error
		others  sync.WaitGroup
	)
	work := func() {
		for !stop.Load() {
			at := next.Add(piece) - piece
			if at >= n {
				return
			}
			err := ctx.Err()
			if err == nil {
				err = do(at, min(piece, n-at))
			}
			if err != nil {
				once.Do(func() { failure = err })
				stop.Store(true)
			}
		}
	}
	for range min(inFlight, (n+piece-1)/piece) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return failure
}
