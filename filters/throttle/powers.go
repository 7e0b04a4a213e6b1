package throttle

import (
	"context"

	"sluice/block"
)

// WriteZeroes zeroes when its turn has come; all its bytes count.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if d.write.bound.Load() {
		if err := d.admit(ctx, &d.write, call{"write zeroes", off, n, n}); err != nil {
			return err
		}
	}
	return d.dev.Zeroer.WriteZeroes(ctx, off, n, flags)
}

// Discard discards when its turn has come; it counts as a request of no bytes.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if d.write.bound.Load() {
		if err := d.admit(ctx, &d.write, call{"discard", off, n, 0}); err != nil {
			return err
		}
	}
	return d.dev.Discarder.Discard(ctx, off, n, flags)
}

// ReadNowait returns block.ErrWouldBlock where it would have to wait for its
// turn. Where the Device below fails, the read that follows counts, not this.
func (d *Device) ReadNowait(p []byte, off int64) error {
	n := int64(len(p))
	if !d.read.bound.Load() || !d.counts(&d.read, off, n) {
		return d.dev.Nowaiter.ReadNowait(p, off)
	}
	if !d.read.try(n) {
		return block.ErrWouldBlock
	}
	err := d.dev.Nowaiter.ReadNowait(p, off)
	if err != nil {
		d.read.giveBack(n)
	}
	return err
}

// longestRead is more than exporters read at once, in bytes. A longer range is
// pinned to do more with it than one read, such as FUSE passthrough does.
const longestRead = 64 << 20

// PinRange pins, where reads are bounded, what lies in memory as a whole and
// need not wait for its turn: the caller may read anything else in the ordinary
// way instead, where it counts. Ranges too long for one read are not pinned
// where anything is bounded.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	if n > longestRead && (d.read.bound.Load() || d.write.bound.Load()) {
		return block.FileRange{}, false
	}
	r, ok := d.dev.Ranger.PinRange(off, n)
	if !ok || !d.read.bound.Load() {
		return r, ok
	}
	if r.Resident && r.Len == n && d.read.try(n) {
		return r, true
	}
	d.dev.Ranger.UnpinRange(r)
	return block.FileRange{}, false
}

// UnpinRange passes on.
func (d *Device) UnpinRange(r block.FileRange) { d.dev.Ranger.UnpinRange(r) }

// Extents passes on.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.dev.Extenter.Extents(ctx, off, n, dst)
}

// Prefetch passes on.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	return d.dev.Prefetch.Prefetch(ctx, off, n)
}

// Resize passes on.
func (d *Device) Resize(ctx context.Context, size int64) error {
	return d.dev.Resizer.Resize(ctx, size)
}

// Bitmaps passes on.
func (d *Device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

// BitmapExtents passes on.
func (d *Device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
}
