package imagecopy

import (
	"context"

	"sluice/block"
)

// job is a piece of the source. Its ends are multiples of copier.align, but for
// the end of the source.
type job struct {
	off, n int64
	zero   bool // the source says that it reads as zeroes
}

const (
	// extentSpan is how much of the source is asked about at a time.
	extentSpan = 1 << 30
	// extentCount is how many extents may come back.
	extentCount = 1024
	// zeroPiece is the longest job of zeroes: a bound on how long an interrupt
	// waits where the destination has to write them out.
	zeroPiece = 256 << 20
)

// plan cuts the source into jobs. Extents of the source need not be aligned:
// a block that two extents share is data.
func (c *copier) plan(ctx context.Context, jobs chan<- job) error {
	p := planner{align: c.align, size: c.size, piece: c.piece, emit: func(j job) error {
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	if c.opts.IgnoreExtents || c.src.Extenter == nil {
		if err := p.add(c.size, false); err != nil {
			return err
		}
		return p.flush()
	}
	extents := make([]block.Extent, 0, extentCount)
	for off := int64(0); off < c.size; {
		var err error
		extents, err = c.src.ExtentsAt(ctx, off, min(extentSpan, c.size-off), extents[:0])
		if err != nil {
			return block.Wrap(err, "map", "the source", off)
		}
		for _, e := range extents {
			if err := p.add(e.Len, e.State&block.Zero != 0); err != nil {
				return err
			}
			off += e.Len
		}
	}
	return p.flush()
}

// planner joins extents of one kind, aligns them and cuts them into jobs.
type planner struct {
	align, size, piece int64
	emit               func(job) error

	begin int64 // where the pending range starts, aligned
	end   int64 // where it ends so far
	zero  bool  // what it is; nothing is pending while begin == end
}

// add takes the next n bytes of the source in.
func (p *planner) add(n int64, zero bool) error {
	switch {
	case n == 0:
		return nil
	case p.begin == p.end || p.zero == zero:
		p.zero = zero
		p.end += n
		return p.cut(false)
	case zero:
		// Data ends here: the block that it ends in is data.
		edge := min(roundUp(p.end, p.align), p.end+n, p.size)
		rest := p.end + n - edge
		p.end = edge
		if edge%p.align != 0 && edge < p.size {
			return nil // the zeroes end before the block does
		}
		return p.turn(true, rest)
	}
	// Zeroes end here: the block that they end in is data.
	edge := max(p.end&^(p.align-1), p.begin)
	rest := p.end + n - edge
	p.end = edge
	return p.turn(false, rest)
}

// turn ends the pending range and begins one of the other kind.
func (p *planner) turn(zero bool, n int64) error {
	if err := p.flush(); err != nil {
		return err
	}
	p.zero = zero
	p.end += n
	return p.cut(false)
}

// flush emits all that is pending.
func (p *planner) flush() error { return p.cut(true) }

// cut emits jobs from the pending range while it is longer than one, and with
// all also the rest.
func (p *planner) cut(all bool) error {
	most := p.piece
	if p.zero {
		most = max(zeroPiece, p.align)
	}
	for p.end-p.begin > most || all && p.end > p.begin {
		n := min(p.end-p.begin, most)
		if err := p.emit(job{off: p.begin, n: n, zero: p.zero}); err != nil {
			return err
		}
		p.begin += n
	}
	return nil
}

func roundUp(n, align int64) int64 { return (n + align - 1) &^ (align - 1) }
