package align

import (
	"context"

	"sluice/block"
)

// WriteZeroes zeroes the middle first: with FastOnly it is the part that can
// turn out not to work, and then nothing has changed.
func (d *device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("write zeroes", off, n, flags, d.known(block.MayUnmap|block.FastOnly)); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	head, middle, tail := d.split(off, n)
	ticket := d.locks.lock(d.down(off), d.up(off+n), middle != n)
	defer d.locks.unlock(ticket)
	if middle > 0 {
		if err := d.dev.Zeroer.WriteZeroes(ctx, off+head, middle, flags); err != nil {
			return err
		}
	}
	if err := d.patch(ctx, nil, off, head, flags&block.FUA); err != nil {
		return err
	}
	return d.patch(ctx, nil, off+head+middle, tail, flags&block.FUA)
}

// Discard gives up the whole blocks in the range.
func (d *device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("discard", off, n, flags, d.known(0)); err != nil {
		return err
	}
	defer d.gate.Leave()
	head, middle, _ := d.split(off, n)
	if middle == 0 {
		return nil
	}
	ticket := d.locks.lock(off+head, off+head+middle, false)
	defer d.locks.unlock(ticket)
	return d.dev.Discarder.Discard(ctx, off+head, middle, flags)
}

func (d *device) Prefetch(ctx context.Context, off, n int64) error {
	if err := d.enter("prefetch", off, n); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	lo := d.down(off)
	return d.dev.Prefetch.Prefetch(ctx, lo, d.up(off+n)-lo)
}

// PinRange passes aligned ranges on; New lets it do so for read-only Devices
// alone.
func (d *device) PinRange(off, n int64) (block.FileRange, bool) {
	if block.CheckRange(d.info, "pin", off, n) != nil || (off|n)&(d.unit-1) != 0 {
		return block.FileRange{}, false
	}
	return d.dev.Ranger.PinRange(off, n)
}

func (d *device) UnpinRange(r block.FileRange) { d.dev.Ranger.UnpinRange(r) }
