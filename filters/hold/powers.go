package hold

import (
	"context"

	"sluice/block"
)

// WriteZeroes makes n bytes at off read as zeroes.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	r := request{op: opZero, off: off, n: n, flags: flags}
	if d.state.Load()&blocksWrite != 0 {
		return d.join(ctx, r)
	}
	if err := d.dev.Zeroer.WriteZeroes(ctx, off, n, flags); err != nil {
		return d.failed(ctx, r, err)
	}
	return nil
}

// Discard says that n bytes at off are not needed.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	r := request{op: opDiscard, off: off, n: n, flags: flags}
	if d.state.Load()&blocksDiscard != 0 {
		return d.join(ctx, r)
	}
	if err := d.dev.Discarder.Discard(ctx, off, n, flags); err != nil {
		return d.failed(ctx, r, err)
	}
	return nil
}

// Prefetch asks for the range to be brought into a cache.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	r := request{op: opPrefetch, off: off, n: n}
	if d.state.Load()&blocksRead != 0 {
		return d.join(ctx, r)
	}
	if err := d.dev.Prefetch.Prefetch(ctx, off, n); err != nil {
		return d.failed(ctx, r, err)
	}
	return nil
}

// Resize sets the size.
func (d *Device) Resize(ctx context.Context, size int64) error {
	r := request{op: opResize, n: size}
	if d.state.Load()&blocksWrite != 0 {
		return d.join(ctx, r)
	}
	if err := d.dev.Resizer.Resize(ctx, size); err != nil {
		return d.failed(ctx, r, err)
	}
	return nil
}

// Extents tells which ranges hold data.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if d.state.Load()&blocksRead == 0 {
		got, err := d.dev.Extenter.Extents(ctx, off, n, dst)
		if err == nil {
			return got, nil
		}
		return d.extents(ctx, request{op: opExtents, off: off, n: n, dst: dst}, err)
	}
	return d.extents(ctx, request{op: opExtents, off: off, n: n, dst: dst}, nil)
}

// Bitmaps lists the bitmaps below.
func (d *Device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

// BitmapExtents tells which ranges a bitmap has marked.
func (d *Device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if d.state.Load()&blocksRead == 0 {
		got, err := d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
		if err == nil {
			return got, nil
		}
		return d.extents(ctx, request{op: opBitmap, bitmap: name, off: off, n: n, dst: dst}, err)
	}
	return d.extents(ctx, request{op: opBitmap, bitmap: name, off: off, n: n, dst: dst}, nil)
}

// extents goes on with a question that failed with err, or that was not asked
// yet where that is nil.
func (d *Device) extents(ctx context.Context, r request, err error) ([]block.Extent, error) {
	var got []block.Extent
	r.got = &got
	if err != nil {
		err = d.failed(ctx, r, err)
	} else {
		err = d.join(ctx, r)
	}
	if err != nil {
		return r.dst, err
	}
	return got, nil
}

// ReadNowait reads what is at hand. While reads wait, and where one would begin
// to, nothing is.
func (d *Device) ReadNowait(p []byte, off int64) error {
	if d.state.Load()&blocksRead != 0 {
		return block.ErrWouldBlock
	}
	err := d.dev.Nowaiter.ReadNowait(p, off)
	if err != nil && err != block.ErrWouldBlock && block.KindOf(err) == block.Transient {
		return block.ErrWouldBlock // ReadAt deals with it
	}
	return err
}

// PinRange tells where the range lies in a local file; not while anything is
// amiss, since what the kernel moves by itself can be neither held nor refused.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	if d.state.Load() != 0 {
		return block.FileRange{}, false
	}
	return d.dev.Ranger.PinRange(off, n)
}

// UnpinRange gives back what PinRange returned.
func (d *Device) UnpinRange(r block.FileRange) { d.dev.Ranger.UnpinRange(r) }

// StartRead begins a read, unless requests wait. One that ends in an error comes back as
// ReadAt.
func (d *Device) StartRead(p []byte, off int64, done block.Done) bool {
	return d.state.Load()&blocksRead == 0 && d.dev.Starter.StartRead(p, off, done)
}

// StartWrite begins a write: see StartRead.
func (d *Device) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	return d.state.Load()&blocksWrite == 0 && d.dev.Starter.StartWrite(p, off, flags, done)
}

// Kick sends off what was started.
func (d *Device) Kick() { d.dev.Starter.Kick() }
