package filtertest

import (
	"context"
	"sync/atomic"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

// Every is the set of the powers that filters may pass on. CapCopy is none of them: the
// bytes would go past the filter.
const Every = block.CapStart<<1 - 1

// What Full answers for the powers that RAM lacks.
const (
	FullFD     = 77       // the descriptor of its ranges, which is no file's
	FullBitmap = "monday" // its only bitmap, in which all is dirty

	fullToken = 5
)

// Full is a Device in RAM that has the methods of every power. What a test sets
// of it, it sets while no call is under way.
type Full struct {
	*mem.Device
	Caps     block.Cap // claimed
	Resident bool      // of the ranges that are pinned
	Blocks   bool      // ReadNowait would block

	Kicks atomic.Int64 // calls of Kick

	pins atomic.Int64
}

// NewFull makes a Device of size bytes that claims every power.
func NewFull(t testing.TB, size int64) *Full {
	t.Helper()
	return &Full{Device: NewMem(t, size), Caps: Every}
}

// Info implements block.Device.
func (f *Full) Info() block.Info {
	info := f.Device.Info()
	info.Caps = f.Caps
	return info
}

// Pins is the number of ranges that were not given back.
func (f *Full) Pins() int64 { return f.pins.Load() }

// PinRange implements block.Ranger: all n bytes are at off of FullFD.
func (f *Full) PinRange(off, n int64) (block.FileRange, bool) {
	if block.CheckRange(f.Info(), "pin", off, n) != nil {
		return block.FileRange{}, false
	}
	f.pins.Add(1)
	return block.FileRange{FD: FullFD, Off: off, Len: n, Resident: f.Resident, Token: fullToken}, true
}

// UnpinRange implements block.Ranger. A range that is not its own is not counted.
func (f *Full) UnpinRange(r block.FileRange) {
	if r.FD == FullFD && r.Token == fullToken {
		f.pins.Add(-1)
	}
}

// ReadNowait implements block.Nowaiter.
func (f *Full) ReadNowait(p []byte, off int64) error {
	if f.Blocks {
		return block.ErrWouldBlock
	}
	return f.Device.ReadNowait(p, off)
}

// Bitmaps implements block.Bitmapper.
func (f *Full) Bitmaps() []string { return []string{FullBitmap} }

// BitmapExtents implements block.Bitmapper: NotFound for any bitmap but
// FullBitmap.
func (f *Full) BitmapExtents(_ context.Context, name string, _, n int64, dst []block.Extent) ([]block.Extent, error) {
	if name != FullBitmap {
		return dst, block.Errorf(block.NotFound, "bitmap", name, -1, "")
	}
	return append(dst, block.Extent{Len: n, State: block.Dirty}), nil
}

// CloneRange implements block.Copier; it is Unsupported.
func (f *Full) CloneRange(_ context.Context, _ block.Device, _, off, _ int64) error {
	return block.Errorf(block.Unsupported, "copy", "", off, "")
}

// CopyRange implements block.Copier; it is Unsupported. No filter passes it on: the
// bytes would go past it.
func (f *Full) CopyRange(ctx context.Context, from block.Device, fromOff, off, n int64) (int64, error) {
	return 0, f.CloneRange(ctx, from, fromOff, off, n)
}

// StartRead implements block.Starter: it ends before it returns.
func (f *Full) StartRead(p []byte, off int64, done block.Done) bool {
	return f.ended(done, f.ReadAt(context.Background(), p, off))
}

// StartWrite implements block.Starter.
func (f *Full) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	return f.ended(done, f.WriteAt(context.Background(), p, off, flags))
}

func (f *Full) ended(done block.Done, err error) bool {
	if p := done.Done(err); p != nil {
		p.Push()
	}
	return true
}

// Kick implements block.Starter.
func (f *Full) Kick() { f.Kicks.Add(1) }
