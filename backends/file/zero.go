package file

import (
	"context"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/buffer"
)

// Zeroing and discarding, by fallocate. What there is:
//
//	                 file                       block device
//	PUNCH_HOLE       frees                      zeroes in the device, may unmap; fails where
//	                                            it would have to write
//	ZERO_RANGE       stays or becomes           zeroes, keeps the space; writes where the
//	                 allocated                  device cannot zero by itself
//	BLKDISCARD       -                          discards
//
// What the file system lacks is remembered; then zeroes are written.

const (
	punch     = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
)

// WriteZeroes makes n bytes at off read as zeroes.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("write zeroes", off, n, flags, block.FUA|block.MayUnmap|block.FastOnly); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	lo, hi := d.inward(off, off+n)
	if lo < hi {
		if err := d.zeroBlocks(ctx, lo, hi-lo, flags); err != nil {
			return err
		}
	} else {
		lo, hi = off+n, off+n
	}
	if err := d.writeOut(ctx, off, lo-off); err != nil {
		return err
	}
	if err := d.writeOut(ctx, hi, off+n-hi); err != nil {
		return err
	}
	if flags&block.FUA != 0 {
		return d.sync("write zeroes", off)
	}
	return nil
}

// inward rounds a range to what fallocate can do; lo >= hi if nothing is left.
func (d *Device) inward(off, end int64) (lo, hi int64) {
	mask := d.zeroAlign - 1
	return (off + mask) &^ mask, end &^ mask
}

// zeroBlocks zeroes a range that is aligned to d.zeroAlign.
func (d *Device) zeroBlocks(ctx context.Context, off, n int64, flags block.Flags) error {
	fast := flags&block.FastOnly != 0
	if flags&block.MayUnmap != 0 && !d.noPunch.Load() {
		done, err := d.allocate(punch, off, n)
		if done || err != nil {
			return err
		}
		d.noPunch.Store(true)
	}
	if !d.noZeroRange.Load() && !(d.device && fast) {
		done, err := d.allocate(zeroRange, off, n)
		if done || err != nil {
			return err
		}
		d.noZeroRange.Store(true)
	}
	if fast {
		return block.Errorf(block.Unsupported, "write zeroes", d.path, off, "not without writing them")
	}
	return d.writeOut(ctx, off, n)
}

// allocate calls fallocate; done is false where there is no such operation.
func (d *Device) allocate(mode uint32, off, n int64) (done bool, err error) {
	err = retry(func() error { return d.kern.fallocate(d.fd, mode, off, n) })
	switch err {
	case nil:
		return true, nil
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY:
		return false, nil
	}
	return false, d.fail("write zeroes", off, err)
}

// writeOut writes zeroes like data.
func (d *Device) writeOut(ctx context.Context, off, n int64) error {
	if n == 0 {
		return nil
	}
	b := buffer.Get(int(min(n, bounceSize)))
	defer b.Release()
	clear(b.B)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return d.fail("write zeroes", off, err)
		}
		step := min(n, int64(len(b.B)))
		if err := d.write(b.B[:step], off, false); err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

// Discard frees the range where the file system or device can; elsewhere it does
// nothing.
func (d *Device) Discard(_ context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("discard", off, n, flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	lo, hi := d.inward(off, off+n)
	if lo >= hi || !d.device && d.noPunch.Load() {
		return nil
	}
	err := retry(func() error {
		if d.device {
			return d.kern.discard(d.fd, lo, hi-lo)
		}
		return d.kern.fallocate(d.fd, punch, lo, hi-lo)
	})
	switch {
	case err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.ENOTTY:
		if !d.device {
			d.noPunch.Store(true)
		}
		return nil
	case err != nil:
		return d.fail("discard", off, err)
	case flags&block.FUA != 0:
		return d.sync("discard", off)
	}
	return nil
}
