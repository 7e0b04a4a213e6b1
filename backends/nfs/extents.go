package nfs

import (
	"context"
	"errors"

	"sluice/backends/nfs/nfsstat"
	"sluice/block"
)

const hole = block.Hole | block.Zero

// Extents tells data and holes, by SEEK. What a server calls a hole may be space that
// is reserved.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := d.enter("extents", off, n); err != nil {
		return dst, err
	}
	defer d.gate.Leave()
	if err := d.current(ctx); err != nil {
		return dst, d.fail("extents", off, err)
	}
	w := extentWriter{dst: dst, first: len(dst), pos: off, end: off + n}
	if n == 0 {
		return append(dst, block.Extent{Depth: 1}), nil
	}
	for w.pos < w.end && !w.full {
		if err := d.nextExtents(ctx, &w); err != nil {
			return dst, d.fail("extents", w.pos, err)
		}
	}
	return w.dst, nil
}

// nextExtents adds the hole at w.pos, if there is one, and the data behind it.
func (d *Device) nextExtents(ctx context.Context, w *extentWriter) error {
	data, end, err := d.seeker.Seek(ctx, w.pos, false)
	if unknown(err) {
		w.add(w.end, 0)
		return nil
	}
	if err != nil {
		return err
	}
	if end {
		// A file that somebody cut off is shorter than the Device: what it no longer
		// has is called data, so that whoever wants it meets the error.
		a, err := d.file.Attr(ctx)
		if err != nil {
			return err
		}
		w.add(a.Size, hole)
		w.add(w.end, 0)
		return nil
	}
	w.add(data, hole)
	if w.pos >= w.end || w.full {
		return nil
	}
	next, end, err := d.seeker.Seek(ctx, w.pos, true)
	switch {
	case unknown(err):
	case err != nil:
		return err
	case !end && next > w.pos:
		w.add(next, 0)
		return nil
	}
	w.add(w.end, 0)
	return nil
}

// unknown reports whether a SEEK failed because the server cannot tell, or because
// there is no file any more where it should look.
func unknown(err error) bool {
	return block.KindOf(err) == block.Unsupported || errors.Is(err, nfsstat.NXIO)
}

// extentWriter collects extents in order. add with an end at or before pos does
// nothing.
type extentWriter struct {
	dst      []block.Extent
	first    int
	pos, end int64
	full     bool
}

func (w *extentWriter) add(to int64, state block.ExtentState) {
	n := min(to, w.end) - w.pos
	if n <= 0 || w.full {
		return
	}
	last := len(w.dst) - 1
	switch {
	case last >= w.first && w.dst[last].State == state:
		w.dst[last].Len += n
	case len(w.dst) == cap(w.dst) && last >= w.first:
		w.full = true
		return
	default:
		w.dst = append(w.dst, block.Extent{Len: n, State: state, Depth: 1})
	}
	w.pos += n
}
