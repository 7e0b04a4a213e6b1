package align

import (
	"context"
	"fmt"
	"testing"

	"sluice/block"
)

// told is a Device of whole blocks that answers every question for extents, and
// for those of its bitmap, with the same.
type told struct {
	*coarse
	answer []block.Extent
	off, n int64 // what was asked for
}

func (d *told) Info() block.Info {
	info := d.coarse.Info()
	info.Caps |= block.CapDepth | block.CapBitmaps
	return info
}

func (d *told) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	d.off, d.n = off, n
	return append(dst, d.answer...), nil
}

func (d *told) Bitmaps() []string { return []string{"b"} }

func (d *told) BitmapExtents(ctx context.Context, _ string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.Extents(ctx, off, n, dst)
}

const toldUnit = 4096

// Extents and bitmaps are asked for in whole blocks, and cut to what was asked
// for above.
func TestExtentsAreCut(t *testing.T) {
	hole, data := block.Extent{State: block.Hole | block.Zero}, block.Extent{Depth: 2}
	long := func(e block.Extent, n int64) block.Extent {
		e.Len = n
		return e
	}
	below := &told{coarse: newCoarse(t, 16*toldUnit, toldUnit), answer: []block.Extent{long(hole, 2*toldUnit), long(data, toldUnit)}}
	d := block.Resolve(New(below))
	before := block.Extent{Len: 7}
	for _, c := range []struct {
		off, n int64
		want   []block.Extent
	}{
		{4 * toldUnit, 3 * toldUnit, below.answer},
		{4*toldUnit + 1, 3*toldUnit - 2, []block.Extent{long(hole, 2*toldUnit-1), long(data, toldUnit-1)}},
		{4*toldUnit + 100, 8 * toldUnit, []block.Extent{long(hole, 2*toldUnit-100), long(data, toldUnit)}}, // told in part
		{4*toldUnit + 100, 50, []block.Extent{long(hole, 50)}},
		{4*toldUnit + 100, 2*toldUnit - 100, []block.Extent{long(hole, 2*toldUnit-100)}},
	} {
		for name, ask := range map[string]asker{
			"extents": func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
				return d.Extenter.Extents(ctx, off, n, dst)
			},
			"bitmap": func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
				return d.Bitmapper.BitmapExtents(ctx, "b", off, n, dst)
			},
		} {
			got, err := ask(c.off, c.n, append(make([]block.Extent, 0, 5), before))
			if want := append([]block.Extent{before}, c.want...); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s of %d bytes at %d: %v, want %v (%v)", name, c.n, c.off, got, want, err)
			}
			if lo, hi := c.off&^(toldUnit-1), (c.off+c.n+toldUnit-1)&^(toldUnit-1); below.off != lo || below.n != hi-lo {
				t.Errorf("%s of %d bytes at %d: asked for %d at %d", name, c.n, c.off, below.n, below.off)
			}
		}
	}
}

// A Device that breaks the contract gets an error, not its word for a hole where
// there is none.
func TestUnevenExtentsBelow(t *testing.T) {
	for _, bad := range [][]block.Extent{
		nil, {{Len: 0}}, {{Len: 100}, {Len: toldUnit}}, {{Len: -toldUnit, State: block.Hole | block.Zero}}, {{Len: toldUnit}, {Len: -toldUnit}},
	} {
		d := block.Resolve(New(&told{coarse: newCoarse(t, 16*toldUnit, toldUnit), answer: bad}))
		got, err := d.Extenter.Extents(ctx, 8000, 9000, make([]block.Extent, 0, 4))
		if block.KindOf(err) != block.IO || len(got) != 0 {
			t.Errorf("%v became %v, %v", bad, got, err)
		}
	}
}
