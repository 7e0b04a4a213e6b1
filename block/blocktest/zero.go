package blocktest

import (
	"bytes"
	"fmt"

	"sluice/block"
)

// The checks of WriteZeroes and Discard.

// span is a range of bytes.
type span struct{ off, n int64 }

// spans lists ranges of every shape: whole blocks, one unit, unaligned where
// the Device allows it, up to the end.
func (p *probe) spans() []span {
	b, u, size := p.block, p.unit, p.info.Size
	list := []span{
		{0, b}, {b, 3 * b}, {5 * b, u}, {6*b - u, 2 * u}, {6*b + u, 3 * b}, {size - b, b}, {size - u, u},
		{16 * b, min(64*b, p.win-16*b)},
	}
	if u == 1 {
		list = append(list, span{8*b + 1, 2*b + 511}, span{8*b + 511, 2}, span{8*b + 513, b}, span{size - 513, 513})
	}
	return list
}

// around reads a span with its neighbours.
func (p *probe) around(s span) (lo int64, content []byte) {
	p.t.Helper()
	lo = max(s.off-p.block/p.unit*p.unit, 0)
	hi := min(s.off+s.n+p.block, p.info.Size)
	return lo, p.read(lo, hi-lo)
}

// zeroFlags lists the combinations of flags that the Device knows.
func (p *probe) zeroFlags() []block.Flags {
	var list []block.Flags
	for f := block.Flags(0); f <= block.FUA|block.MayUnmap|block.FastOnly; f++ {
		if f&block.FUA == 0 || p.info.Has(block.CapFUA) {
			list = append(list, f)
		}
	}
	return list
}

func checkZeroes(p *probe) {
	for i, flags := range p.zeroFlags() {
		for j, s := range p.spans() {
			lo, hi := max(s.off-p.block, 0), min(s.off+s.n+p.block, p.info.Size)
			p.write(lo, pattern(int64(100*i+j), hi-lo))
			p.zero(s, flags)
			p.zero(s, flags) // and what is zero already
		}
	}
	p.ok(p.dev.Zeroer.WriteZeroes(background, 0, p.info.Size, block.MayUnmap), "write zeroes to the whole device")
	p.expect(0, make([]byte, p.win), "the whole device zeroed")
	data := pattern(77, p.block)
	p.write(p.block, data)
	p.expect(p.block, data, "a write after zeroing")
	p.expect(0, make([]byte, p.block), "before the write after zeroing")
	p.expect(2*p.block, make([]byte, p.block), "behind the write after zeroing")
}

// zero calls WriteZeroes once and checks its effect and its surroundings.
func (p *probe) zero(s span, flags block.Flags) {
	p.t.Helper()
	what := fmt.Sprintf("write zeroes of %d bytes at %d, flags %#x", s.n, s.off, flags)
	lo, want := p.around(s)
	err := p.dev.Zeroer.WriteZeroes(background, s.off, s.n, flags)
	switch {
	case err == nil:
		clear(want[s.off-lo : s.off-lo+s.n])
	case flags&block.FastOnly != 0 && !p.info.Has(block.CapFastZero):
		p.kinds(err, what, block.Unsupported)
	default:
		p.t.Fatalf("%s: %v", what, err)
	}
	p.expect(lo, want, what)
	if err == nil && flags&block.MayUnmap == 0 {
		p.noHole(s, what)
	}
}

// noHole: what was zeroed without MayUnmap is allocated.
func (p *probe) noHole(s span, what string) {
	p.t.Helper()
	if p.dev.Extenter == nil || p.s.LooseZero {
		return
	}
	at := s.off
	for _, e := range p.extents(s.off, s.n, 64) {
		if e.State&block.Hole != 0 {
			p.t.Fatalf("%s: a hole of %d bytes at %d after it", what, e.Len, at)
		}
		at += e.Len
	}
}

// checkZeroesAllocate zeroes without MayUnmap where nothing was ever written:
// the range becomes allocated.
func checkZeroesAllocate(p *probe) {
	for _, s := range p.spans() {
		p.zero(s, 0)
	}
	p.zero(span{0, p.win}, 0)
	if p.dev.Discarder != nil {
		p.ok(p.dev.Discarder.Discard(background, 0, p.win, 0), "discard")
		p.zero(span{p.block, 4 * p.block}, 0)
	}
	p.zero(span{0, p.block}, block.MayUnmap)
	p.zero(span{0, p.block}, 0)
}

// checkDiscard: nothing but the range itself changes, and it can be written
// again.
func checkDiscard(p *probe) {
	flags := []block.Flags{0}
	if p.info.Has(block.CapFUA) {
		flags = append(flags, block.FUA)
	}
	for i, f := range flags {
		for j, s := range p.spans() {
			seed := int64(1000*(i+1) + j)
			lo, hi := max(s.off-p.block, 0), min(s.off+s.n+p.block, p.info.Size)
			p.write(lo, pattern(seed, hi-lo))
			what := fmt.Sprintf("discard of %d bytes at %d, flags %#x", s.n, s.off, f)
			before := p.read(lo, hi-lo)
			p.ok(p.dev.Discarder.Discard(background, s.off, s.n, f), what)
			after := p.read(lo, hi-lo)
			same(p.t, after[:s.off-lo], before[:s.off-lo], lo, "in front of a "+what)
			end := s.off + s.n - lo
			same(p.t, after[end:], before[end:], lo+end, "behind a "+what)

			again := pattern(seed+500, s.n)
			p.write(s.off, again)
			copy(before[s.off-lo:], again)
			p.expect(lo, before, "a write after a "+what)
		}
	}
	p.ok(p.dev.Discarder.Discard(background, 0, p.info.Size, 0), "discard of the whole device")
	first := p.read(0, p.win)
	if !bytes.Equal(first, p.read(0, p.win)) {
		p.t.Logf("discarded ranges read differently each time")
	}
}
