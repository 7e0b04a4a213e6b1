package blocktest

import (
	"fmt"

	"sluice/block"
)

// The checks of Extents.

// extents walks [off, off+n) with room for that many extents in each call and
// checks the form of every answer.
func (p *probe) extents(off, n int64, room int) []block.Extent {
	p.t.Helper()
	w := walk{t: p.t, info: p.info, room: room, known: block.Hole | block.Zero}
	return w.cover(off, n, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return p.dev.Extenter.Extents(background, off, n, dst)
	})
}

// walk covers ranges with calls that tell extents, and checks each answer.
type walk struct {
	t     tester
	info  block.Info
	room  int               // for so many extents in each call
	known block.ExtentState // the bits that may be set
}

// cover calls ask until [off, off+n) is covered, each time with an extent in
// dst that is there already.
func (w walk) cover(off, n int64, ask func(off, n int64, dst []block.Extent) ([]block.Extent, error)) []block.Extent {
	w.t.Helper()
	mark := block.Extent{Len: -7, Depth: 99}
	var all []block.Extent
	for end := off + n; off < end; {
		what := fmt.Sprintf("extents of %d bytes at %d, room for %d", end-off, off, w.room)
		dst := append(make([]block.Extent, 0, w.room+1), mark)
		got, err := ask(off, end-off, dst)
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		if len(got) < 2 || got[0] != mark {
			w.t.Fatalf("%s: nothing appended to dst, or dst overwritten: %v", what, got)
		}
		if len(got) > w.room+1 || cap(got) != cap(dst) {
			w.t.Fatalf("%s: dst outgrown: %d extents", what, len(got)-1)
		}
		covered := w.check(got[1:], what)
		if covered > end-off {
			w.t.Fatalf("%s: %d bytes told, past the end of what was asked", what, covered)
		}
		if covered < end-off && len(got) <= w.room {
			w.t.Fatalf("%s: stopped after %d bytes with room for %d more extents", what, covered, w.room+1-len(got))
		}
		all, off = append(all, got[1:]...), off+covered
	}
	return all
}

// check looks at each extent of an answer and adds up their lengths.
func (w walk) check(list []block.Extent, what string) (covered int64) {
	w.t.Helper()
	for _, e := range list {
		if e.Len <= 0 || e.Len%max(w.info.Block.Min, 1) != 0 {
			w.t.Fatalf("%s: an extent of %d bytes", what, e.Len)
		}
		if e.State&^w.known != 0 {
			w.t.Fatalf("%s: unknown state %#x", what, e.State)
		}
		if e.Depth > 1 && !w.info.Has(block.CapDepth) {
			w.t.Fatalf("%s: depth %d without CapDepth", what, e.Depth)
		}
		covered += e.Len
	}
	return covered
}

// truthful checks the extents of [off, off+n) against the content: what is
// told to be zero reads as zeroes, and where filled says that data was written
// there is neither zero nor hole. filled may be nil.
func (p *probe) truthful(off, n int64, room int, filled func(at int64) bool) {
	p.t.Helper()
	content := p.read(off, n)
	at := int64(0)
	for _, e := range p.extents(off, n, room) {
		if e.State&block.Zero != 0 && !allZero(content[at:at+e.Len]) {
			p.t.Fatalf("extent of %d bytes at %d is told to be zero and is not", e.Len, off+at)
		}
		for u := int64(0); filled != nil && e.State != 0 && u < e.Len; u += p.unit {
			if filled(off + at + u) {
				p.t.Fatalf("data written at %d lies in an extent of state %#x", off+at+u, e.State)
			}
		}
		at += e.Len
	}
}

// checkExtents looks at a new image.
func checkExtents(p *probe) {
	u, size := p.unit, p.info.Size
	for _, room := range []int{1, 2, 64} {
		p.truthful(0, p.win, room, nil)
		p.truthful(u, p.win-u, room, nil)
		for _, s := range p.spans() {
			p.truthful(s.off, s.n, room, nil)
		}
		p.truthful(size-u, u, room, nil)
	}
	p.extents(0, size, 1024)
	got, err := p.dev.Extenter.Extents(background, u, 0, make([]block.Extent, 0, 4))
	p.ok(err, "extents of nothing")
	for _, e := range got {
		if e.Len != 0 {
			p.t.Errorf("extents of nothing told of %d bytes", e.Len)
		}
	}
}

// checkExtentsTruth changes the image at random and compares what is told with
// what is there.
func checkExtentsTruth(p *probe) {
	rng := p.rand(3, 4)
	blocks := min(p.win/p.block, 64)
	filled := make([]bool, blocks) // every byte of the block was written and is not zero
	at := func(off int64) bool { return off/p.block < blocks && filled[off/p.block] }
	for i := range int64(200) {
		b := rng.Int64N(blocks)
		n := 1 + rng.Int64N(min(4, blocks-b))
		op := rng.IntN(4)
		switch {
		case op == 0 && p.dev.Zeroer != nil:
			p.ok(p.dev.Zeroer.WriteZeroes(background, b*p.block, n*p.block, block.MayUnmap*block.Flags(rng.IntN(2))), "write zeroes")
			clear(filled[b : b+n])
		case op == 1 && p.dev.Discarder != nil:
			p.ok(p.dev.Discarder.Discard(background, b*p.block, n*p.block, 0), "discard")
			clear(filled[b : b+n])
		case op == 2: // zeroes as data
			p.write(b*p.block, make([]byte, n*p.block))
			clear(filled[b : b+n])
		default:
			p.write(b*p.block, pattern(i, n*p.block))
			for j := b; j < b+n; j++ {
				filled[j] = true
			}
		}
		if i%10 == 0 {
			off := rng.Int64N(blocks*p.block/p.unit) * p.unit
			p.truthful(off, blocks*p.block-off, []int{1, 2, 64}[rng.IntN(3)], at)
		}
	}
	p.ok(p.dev.Flush(background), "flush")
	p.truthful(0, p.win, 64, at)
}
