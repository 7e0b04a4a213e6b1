package align

import (
	"context"

	"sluice/block"
)

func (d *device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.extents(question{"extents", off, n}, dst, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return d.dev.Extenter.Extents(ctx, off, n, dst)
	})
}

func (d *device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

func (d *device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.extents(question{"bitmap", off, n}, dst, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
	})
}

// asker is Extents of the Device below.
type asker func(off, n int64, dst []block.Extent) ([]block.Extent, error)

// question is a call for extents.
type question struct {
	op     string
	off, n int64
}

// extents asks for the range rounded outward and cuts the answer.
func (d *device) extents(q question, dst []block.Extent, ask asker) ([]block.Extent, error) {
	if err := d.enter(q.op, q.off, q.n); err != nil {
		return dst, err
	}
	defer d.gate.Leave()
	if q.n == 0 {
		return append(dst, block.Extent{}), nil
	}
	first, lo, hi := len(dst), d.down(q.off), d.up(q.off+q.n)
	got, err := ask(lo, hi-lo, dst)
	if err != nil {
		return dst, err
	}
	if !d.whole(got[first:]) { // cut, these would tell wrong holes
		return dst, block.Errorf(block.IO, q.op, "", q.off, "extents that are no blocks of %d bytes: %v", d.unit, got[first:])
	}
	return clip(got, first, q.off-lo, q.n), nil
}

// whole reports whether extents that begin where a block does consist of blocks.
func (d *device) whole(list []block.Extent) bool {
	for _, e := range list {
		if e.Len <= 0 || e.Len&(d.unit-1) != 0 {
			return false
		}
	}
	return len(list) > 0
}

// clip takes off the first skip bytes of the extents in dst from first on, which
// lie in the first of them, and what is more than n.
func clip(dst []block.Extent, first int, skip, n int64) []block.Extent {
	dst[first].Len -= skip
	for i := first; i < len(dst); i++ {
		if dst[i].Len >= n {
			dst[i].Len = n
			return dst[:i+1]
		}
		n -= dst[i].Len
	}
	return dst
}
