package align

import (
	"context"

	"sluice/block"
)

func (d *device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.extents(question{"extents", off, n, 0}, dst, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return d.dev.Extenter.Extents(ctx, off, n, dst)
	})
}

func (d *device) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

func (d *device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.extents(question{"bitmap", off, n, block.Dirty}, dst, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
	})
}

// asker is Extents of the Device below.
type asker func(off, n int64, dst []block.Extent) ([]block.Extent, error)

// question is a call for extents. data is the state that is never wrong to tell:
// that of bytes that must be read or copied.
type question struct {
	op     string
	off, n int64
	data   block.ExtentState
}

// extents asks for the range rounded outward and cuts the answer.
func (d *device) extents(q question, dst []block.Extent, ask asker) ([]block.Extent, error) {
	if err := d.enter(q.op, q.off, q.n); err != nil {
		return dst, err
	}
	defer d.gate.Leave()
	off, n := q.off, q.n
	if n == 0 {
		return append(dst, block.Extent{}), nil
	}
	first, lo, hi := len(dst), d.down(off), d.up(off+n)
	got, err := ask(lo, hi-lo, dst)
	if err != nil {
		return dst, err
	}
	if d.whole(got[first:]) {
		return clip(got, first, off-lo, n), nil
	}
	w := widener{unit: d.unit, data: q.data, from: off, to: off + n, dst: dst, first: first, pos: lo, end: hi}
	if err := w.run(ask); err != nil {
		return dst, err
	}
	return w.dst, nil
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

// widener makes extents of whole blocks, within [from, to), of extents that
// begin and end anywhere: not every NBD server keeps to its own block size. A
// block in which states meet, or of which not all was told, has what can be said
// of all of it; where in doubt it is data.
type widener struct {
	unit     int64
	data     block.ExtentState
	from, to int64

	dst   []block.Extent
	first int // where ours begin in dst

	pos, end int64        // what was added reaches to pos, from the beginning of a block; end: that of the last
	mixed    block.Extent // what holds from the beginning of the block to pos, where pos is inside one
}

// widened is how many extents the widener asks for at once.
const widened = 256

// run asks and adds until the range is covered or dst is full.
func (w *widener) run(ask asker) error {
	told := make([]block.Extent, 0, widened)
	for w.pos < w.end {
		at := w.pos
		var err error
		if told, err = ask(at, w.end-at, told[:0]); err != nil {
			return err
		}
		for _, e := range told {
			w.add(e)
		}
		w.pos &^= w.unit - 1 // the rest of a block that was told in part is asked for with it
		if w.pos == at {     // not even one block
			w.add(block.Extent{Len: w.unit, State: w.data, Depth: 1})
		}
	}
	return nil
}

// add takes the extent at w.pos.
func (w *widener) add(e block.Extent) {
	for e.Len > 0 && w.pos < w.end {
		in := w.pos & (w.unit - 1)
		n := min(e.Len, w.unit-in)
		switch {
		case in == 0 && e.Len >= w.unit:
			n = min(e.Len&^(w.unit-1), w.end-w.pos)
			w.emit(w.pos, w.pos+n, e)
		case in == 0:
			w.mixed = e
		default:
			w.mixed = w.meet(w.mixed, e)
			if in+n == w.unit {
				w.emit(w.pos-in, w.pos+n, w.mixed)
			}
		}
		w.pos, e.Len = w.pos+n, e.Len-n
	}
}

// meet gives what is true of a and b alike: a hole or zeroes where both are,
// dirty where one is. Of depths that of the upper layer which has bytes.
func (w *widener) meet(a, b block.Extent) block.Extent {
	const all = block.Hole | block.Zero
	m := block.Extent{State: a.State&b.State&all | (a.State|b.State)&^all, Depth: min(a.Depth, b.Depth)}
	if m.Depth == 0 {
		m.Depth = max(a.Depth, b.Depth)
	}
	return m
}

// emit adds the part of [lo, hi) that was asked for, while there is room.
func (w *widener) emit(lo, hi int64, e block.Extent) {
	lo, hi = max(lo, w.from), min(hi, w.to)
	if lo >= hi {
		return
	}
	last := len(w.dst) - 1
	switch {
	case last >= w.first && w.dst[last].State == e.State && w.dst[last].Depth == e.Depth:
		w.dst[last].Len += hi - lo
	case len(w.dst) < cap(w.dst) || last < w.first:
		w.dst = append(w.dst, block.Extent{Len: hi - lo, State: e.State, Depth: e.Depth})
	default:
		w.end = 0 // full
	}
}
