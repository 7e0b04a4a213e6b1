package nfs

import (
	"context"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
)

// zeroes is what a range is written with that is to read as zeroes and stay
// allocated.
var zeroes [MaxIO]byte

// WriteZeroes makes n bytes at off read as zeroes: with MayUnmap by DEALLOCATE where
// the server has it, else by writing them.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	const op = "write zeroes"
	if err := d.enterChange(op, off, n, flags, block.FUA|block.MayUnmap|block.FastOnly); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	stable := flags&block.FUA != 0
	if flags&block.MayUnmap != 0 {
		if done, err := d.free(ctx, op, off, n, stable); done || err != nil {
			return err
		}
	}
	if flags&block.FastOnly != 0 {
		return block.Errorf(block.Unsupported, op, d.url, off, "the zeroes would have to be written")
	}
	return d.writeZeroes(ctx, op, off, n, stable)
}

// writeZeroes writes zeroes like data.
func (d *Device) writeZeroes(ctx context.Context, op string, off, n int64, stable bool) error {
	if n <= int64(d.wsize) {
		return d.write(ctx, op, zeroes[:n], off, stable)
	}
	return inPieces(ctx, n, int64(d.wsize), func(at, n int64) error {
		return d.write(ctx, op, zeroes[:n], off+at, stable)
	})
}

// Discard frees the range.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("discard", off, n, flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	_, err := d.free(ctx, "discard", off, n, flags&block.FUA != 0)
	return err
}

// free makes the range a hole, if the server can.
func (d *Device) free(ctx context.Context, op string, off, n int64, stable bool) (done bool, err error) {
	if d.allocator == nil || d.noFree.Load() {
		return false, nil
	}
	v, err := d.verifier(ctx)
	if err != nil {
		return false, d.fail(op, off, err)
	}
	instance := d.commits.instance.Load()
	change, err := d.log.Begin(ctx, off, n, 0)
	if err != nil {
		return false, d.fail(op, off, err)
	}
	if err := d.allocator.Deallocate(ctx, off, n); err != nil {
		change.Failed()
		if block.KindOf(err) == block.Unsupported {
			d.noFree.Store(true)
			return false, nil
		}
		return false, d.fail(op, off, err)
	}
	change.Zeroed(unstable.Verifier(v))
	d.changed(instance)
	if stable {
		return true, d.sync(ctx, op, off)
	}
	return true, nil
}

// verifier gives the one that the server is known to have. The reply to DEALLOCATE has
// none: so it counts as done under the one that was known before it was sent.
func (d *Device) verifier(ctx context.Context) (remote.Verifier, error) {
	c := &d.commits
	if !c.known.Load() {
		v, err := d.file.Commit(ctx)
		if err != nil {
			d.log.CommitFailed()
			return 0, err
		}
		d.saw(v)
	}
	return remote.Verifier(c.verifier.Load()), nil
}
