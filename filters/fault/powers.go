package fault

import (
	"context"

	"sluice/block"
)

// WriteZeroes zeroes, as far as the rules let it.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if d.rules.Load() != nil {
		if _, over, err := d.meet(ctx, call{Zero, "write zeroes", off, n, flags}); err != nil || over {
			return err
		}
	}
	return d.dev.Zeroer.WriteZeroes(ctx, off, n, flags)
}

// Discard discards, as far as the rules let it.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if d.rules.Load() != nil {
		if _, over, err := d.meet(ctx, call{Discard, "discard", off, n, flags}); err != nil || over {
			return err
		}
	}
	return d.dev.Discarder.Discard(ctx, off, n, flags)
}

// Extents tells the extents, if the rules let it.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if d.rules.Load() != nil {
		if _, _, err := d.meet(ctx, call{Extents, "extents", off, n, 0}); err != nil {
			return dst, err
		}
	}
	return d.dev.Extenter.Extents(ctx, off, n, dst)
}

// Prefetch prefetches, if the rules let it.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	if d.rules.Load() != nil {
		if _, _, err := d.meet(ctx, call{Prefetch, "prefetch", off, n, 0}); err != nil {
			return err
		}
	}
	return d.dev.Prefetch.Prefetch(ctx, off, n)
}

// Resize resizes, if the rules let it.
func (d *Device) Resize(ctx context.Context, size int64) error {
	if d.rules.Load() != nil {
		if _, _, err := d.meet(ctx, call{Resize, "resize", -1, 0, 0}); err != nil {
			return err
		}
	}
	return d.dev.Resizer.Resize(ctx, size)
}

// ReadNowait leaves reads to ReadAt while there are rules for them.
func (d *Device) ReadNowait(p []byte, off int64) error {
	if s := d.rules.Load(); s != nil && s.reads {
		if c := (call{Read, "read", off, int64(len(p)), 0}); !d.refused(d.dev.Device.Info(), c) {
			return block.ErrWouldBlock
		}
	}
	return d.dev.Nowaiter.ReadNowait(p, off)
}

// PinRange pins nothing while there are rules.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	if d.rules.Load() != nil {
		return block.FileRange{}, false
	}
	return d.dev.Ranger.PinRange(off, n)
}

// UnpinRange passes on.
func (d *Device) UnpinRange(r block.FileRange) { d.dev.Ranger.UnpinRange(r) }

// Bitmaps passes on.
func (d *Device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

// BitmapExtents tells a bitmap's extents, if the rules for extents let it.
func (d *Device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if d.rules.Load() != nil {
		if _, _, err := d.meet(ctx, call{Extents, "bitmap", off, n, 0}); err != nil {
			return dst, err
		}
	}
	return d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
}
