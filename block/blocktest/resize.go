package blocktest

import (
	"fmt"
	"math"

	"sluice/block"
)

// The checks of Resize.

// checkResize grows and shrinks: what is new reads as zeroes, what stays is
// kept, and what was cut off never comes back.
func checkResize(p *probe) {
	size := p.info.Size
	limit := p.s.MaxSize
	if limit == 0 {
		limit = 2 * size
	}
	grown := min(size+3*p.block+p.unit, limit/p.unit*p.unit)
	data := pattern(1, p.win)
	p.write(0, data)
	p.write(size-p.block, pattern(2, p.block))

	p.resize(grown)
	p.expect(size-p.block, pattern(2, p.block), "the old end after growing")
	p.expect(size, make([]byte, grown-size), "the new end")
	if grown > size {
		p.write(grown-p.unit, pattern(3, p.unit))
		p.expect(grown-p.unit, pattern(3, p.unit), "the last bytes of the grown device")
	}

	for i, cut := range []int64{size, size - p.unit, size - p.block - p.unit, p.win / 2 / p.block * p.block, p.block + p.unit, p.unit} {
		high := p.dev.Device.Info().Size
		p.write(high-p.block/p.unit*p.unit, pattern(10+int64(i), p.block))
		keep := p.read(max(cut-p.block, 0), cut-max(cut-p.block, 0))
		if !p.shrink(cut) {
			return
		}
		p.kinds(p.dev.ReadAt(background, make([]byte, p.unit), cut), "read behind the cut", block.OutOfRange)
		p.kinds(p.dev.WriteAt(background, make([]byte, p.unit), cut, 0), "write behind the cut", block.OutOfRange)
		p.resize(grown)
		p.expect(cut-int64(len(keep)), keep, fmt.Sprintf("what was kept of a cut to %d", cut))
		p.expectZero(cut, grown-cut, fmt.Sprintf("what was cut off at %d and grown again", cut))
	}
	p.ok(p.dev.Flush(background), "flush")
	p.resize(size)
	p.write(size-p.unit, pattern(4, p.unit))
	p.expect(size-p.unit, pattern(4, p.unit), "the last bytes of the device")
}

// expectZero asserts that a range of any length reads as zeroes.
func (p *probe) expectZero(off, n int64, what string) {
	p.t.Helper()
	for n > 0 {
		c := min(n, 1<<20/p.unit*p.unit)
		p.expect(off, make([]byte, c), what)
		off, n = off+c, n-c
	}
}

func (p *probe) resize(size int64) {
	p.t.Helper()
	p.ok(p.dev.Resizer.Resize(background, size), fmt.Sprintf("resize to %d", size))
	if got := p.dev.Device.Info().Size; got != size {
		p.t.Fatalf("resize to %d: the size is %d", size, got)
	}
}

// shrink resizes to a smaller size. A Device may not be able to; then nothing
// changes.
func (p *probe) shrink(size int64) bool {
	p.t.Helper()
	before := p.dev.Device.Info()
	err := p.dev.Resizer.Resize(background, size)
	if block.KindOf(err) != block.Unsupported || size == before.Size {
		p.ok(err, fmt.Sprintf("resize from %d to %d", before.Size, size))
	} else {
		size = before.Size
	}
	if got := p.dev.Device.Info().Size; got != size {
		p.t.Fatalf("after a shrink that returned %v the size is %d, want %d", err, got, size)
	}
	return err == nil
}

// checkResizeRefusals: sizes that make no sense change nothing.
func checkResizeRefusals(p *probe) {
	bad := []int64{-1, -p.unit, math.MinInt64}
	if p.unit > 1 {
		bad = append(bad, p.info.Size+1, p.info.Size-1, p.unit/2)
	}
	for _, size := range bad {
		p.kinds(p.dev.Resizer.Resize(background, size), fmt.Sprintf("resize to %d", size), block.Invalid, block.OutOfRange)
		if got := p.dev.Device.Info(); got != p.info {
			p.t.Fatalf("a refused resize to %d changed Info from %+v to %+v", size, p.info, got)
		}
	}
	p.expect(0, p.initial(0, p.win), "after refused sizes")
}
