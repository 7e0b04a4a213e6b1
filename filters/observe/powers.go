package observe

import (
	"context"

	"sluice/block"
)

// ReadNowait passes on. Only a read that was answered is told of.
func (d *Device) ReadNowait(p []byte, off int64) error {
	start := d.clock.now()
	err := d.dev.Nowaiter.ReadNowait(p, off)
	if err == block.ErrWouldBlock {
		return err
	}
	kind := block.OK
	if err != nil {
		kind = block.KindOf(err)
	}
	d.obs.Request(OpRead, int64(len(p)), d.clock.now()-start, kind)
	return err
}

// WriteZeroes passes on.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	c := d.begin(OpZero, off, n)
	err := d.dev.Zeroer.WriteZeroes(ctx, off, n, flags)
	d.end(&c, err)
	return err
}

// Discard passes on.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	c := d.begin(OpTrim, off, n)
	err := d.dev.Discarder.Discard(ctx, off, n, flags)
	d.end(&c, err)
	return err
}

// Prefetch passes on.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	c := d.begin(OpCache, off, n)
	err := d.dev.Prefetch.Prefetch(ctx, off, n)
	d.end(&c, err)
	return err
}

// Extents passes on.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	c := d.begin(OpStatus, off, n)
	got, err := d.dev.Extenter.Extents(ctx, off, n, dst)
	d.end(&c, err)
	return got, err
}

// Bitmaps passes on.
func (d *Device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

// BitmapExtents passes on.
func (d *Device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	c := d.begin(OpStatus, off, n)
	got, err := d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
	d.end(&c, err)
	return got, err
}

// Resize passes on.
func (d *Device) Resize(ctx context.Context, size int64) error {
	c := d.begin(opResize, 0, size)
	err := d.dev.Resizer.Resize(ctx, size)
	d.end(&c, err)
	return err
}

// PinRange passes on.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	r, ok := d.dev.Ranger.PinRange(off, n)
	if ok {
		d.obs.Pinned(r.Len)
	}
	return r, ok
}

// UnpinRange passes on.
func (d *Device) UnpinRange(r block.FileRange) { d.dev.Ranger.UnpinRange(r) }
