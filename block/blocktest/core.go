package blocktest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/bits"

	"sluice/block"
)

// The checks of the five core methods.

func checkInfo(p *probe) {
	i, b := p.info, p.info.Block
	if i.Size < max(MinSize, 32*b.Min) {
		p.t.Fatalf("size %d: the suite needs %d at least, and 32 blocks of %d", i.Size, MinSize, b.Min)
	}
	if b.Min < 1 || b.Min > 65536 || bits.OnesCount64(uint64(b.Min)) != 1 {
		p.t.Errorf("Block.Min %d is no power of two in 1…65536", b.Min)
	}
	if b.Preferred < 512 || b.Preferred < b.Min || bits.OnesCount64(uint64(b.Preferred)) != 1 {
		p.t.Errorf("Block.Preferred %d is no power of two >= 512 and >= Min %d", b.Preferred, b.Min)
	}
	if b.Max < 0 || b.Max%max(b.Min, 1) != 0 {
		p.t.Errorf("Block.Max %d is no multiple of Min %d", b.Max, b.Min)
	}
	if i.Size%max(b.Min, 1) != 0 {
		p.t.Errorf("size %d is no multiple of Min %d", i.Size, b.Min)
	}
	if i.MemAlign < 0 || i.MemAlign > 4096 || bits.OnesCount(uint(i.MemAlign)) > 1 {
		p.t.Errorf("MemAlign %d is no power of two up to a page", i.MemAlign)
	}
	if i.ReadOnly != p.s.ReadOnly {
		p.t.Errorf("ReadOnly is %v, want %v", i.ReadOnly, p.s.ReadOnly)
	}
	if p.s.OddSize && i.Size%512 == 0 {
		p.t.Errorf("size %d is a multiple of 512, want an odd one", i.Size)
	}
	if got := p.dev.Device.Info(); got != i {
		p.t.Errorf("Info changed between two calls: %+v and %+v", i, got)
	}
}

func checkInitialContent(p *probe) {
	p.expect(0, p.initial(0, p.win), "start of a new image")
	tail := p.info.Size - p.block/p.unit*p.unit
	p.expect(tail, p.initial(tail, p.info.Size-tail), "end of a new image")
}

// checkEdges reads and writes the first and the last block, across block
// borders, and looks at the neighbours.
func checkEdges(p *probe) {
	u, size := p.unit, p.info.Size
	places := []struct{ off, n int64 }{
		{0, u}, {size - u, u}, {u, u}, {size - 2*u, u}, {p.block - u, 2 * u},
		{3*p.block - u, p.block + 2*u}, {p.block, p.block}, {size - 4*u, 4 * u}, {0, p.block},
	}
	for i, at := range places {
		lo, hi := max(at.off-u, 0), min(at.off+at.n+u, size)
		want := p.read(lo, hi-lo)
		data := pattern(int64(i+1), at.n)
		p.write(at.off, data)
		copy(want[at.off-lo:], data)
		p.expect(lo, want, fmt.Sprintf("after a write of %d bytes at %d", at.n, at.off))
		p.expect(at.off, data, "the written bytes alone")
	}
	p.ok(p.dev.Flush(background), "flush")
	last := places[len(places)-1]
	p.expect(last.off, pattern(int64(len(places)), last.n), "after a flush")
}

func checkOddOffsets(p *probe) {
	const area = 64 << 10
	model := p.read(0, area)
	for i, at := range []struct{ off, n int64 }{
		{1, 1}, {511, 2}, {513, 510}, {4095, 4098}, {7, 8192}, {12289, 1}, {3, 3}, {20479, 4097}, {1023, 1},
	} {
		data := pattern(100+int64(i), at.n)
		p.write(at.off, data)
		copy(model[at.off:], data)
		p.expect(0, model, fmt.Sprintf("after %d bytes at %d", at.n, at.off))
		p.expect(at.off, data, "the written bytes alone")
	}
	tail := p.info.Size - 777
	data := pattern(200, 777)
	p.write(tail, data)
	p.expect(tail+1, data[1:], "odd bytes up to the end")
}

// checkLarge moves single requests as large as the Device and the window allow.
func checkLarge(p *probe) {
	n := step(p.info, p.win)
	data := pattern(7, n)
	p.write(0, data)
	p.expect(0, data, "one large request")
	limit := p.info.Block.Max
	if limit == 0 || limit+p.unit > p.info.Size {
		return
	}
	over := make([]byte, limit+p.unit)
	if err := p.dev.ReadAt(background, over, 0); err != nil {
		p.kinds(err, "read longer than Block.Max", block.Invalid)
	} else if !bytes.Equal(over[:n], data) {
		p.t.Errorf("a read longer than Block.Max returned other bytes")
	}
}

// request is one call with an offset and a length, for the checks of arguments.
type request struct {
	name string
	call func(off int64, n int) error
}

// requests lists every ranged call that the Device has, those that change
// something only for a writable one. Reads and extents assert that a failed
// call moves nothing.
func (p *probe) requests() []request {
	list := []request{{"read", p.untouchedRead}}
	r := p.dev
	if !p.info.ReadOnly {
		list = append(list, request{"write", func(off int64, n int) error {
			return r.WriteAt(background, pattern(9, int64(n)), off, 0)
		}})
		if r.Zeroer != nil {
			list = append(list, request{"write zeroes", func(off int64, n int) error {
				return r.Zeroer.WriteZeroes(background, off, int64(n), 0)
			}})
		}
		if r.Discarder != nil {
			list = append(list, request{"discard", func(off int64, n int) error {
				return r.Discarder.Discard(background, off, int64(n), 0)
			}})
		}
	}
	if r.Extenter != nil {
		list = append(list, request{"extents", func(off int64, n int) error {
			_, err := r.Extenter.Extents(background, off, int64(n), make([]block.Extent, 0, 4))
			return err
		}})
	}
	if r.Prefetch != nil {
		list = append(list, request{"prefetch", func(off int64, n int) error {
			return r.Prefetch.Prefetch(background, off, int64(n))
		}})
	}
	if r.Nowaiter != nil {
		list = append(list, request{"read nowait", func(off int64, n int) error {
			return r.Nowaiter.ReadNowait(make([]byte, n), off)
		}})
	}
	return list
}

// untouchedRead reads and asserts that a failed read left the buffer alone.
func (p *probe) untouchedRead(off int64, n int) error {
	buf := bytes.Repeat([]byte{0xa5}, n)
	err := p.dev.ReadAt(background, buf, off)
	if err != nil && !bytes.Equal(buf, bytes.Repeat([]byte{0xa5}, n)) {
		p.t.Errorf("a failed read of %d bytes at %d changed the buffer", n, off)
	}
	return err
}

func checkEmptyRequests(p *probe) {
	size := p.info.Size
	for _, r := range p.requests() {
		for _, off := range []int64{0, p.unit, size} {
			if err := r.call(off, 0); err != nil && err != block.ErrWouldBlock {
				p.t.Errorf("%s of nothing at %d of %d: %v", r.name, off, size, err)
			}
		}
		p.kinds(r.call(size+p.unit, 0), r.name+" of nothing beyond the end", block.OutOfRange)
		p.kinds(r.call(-p.unit, 0), r.name+" of nothing at a negative offset", block.OutOfRange)
	}
	if err := p.dev.ReadAt(background, nil, 0); err != nil {
		p.t.Errorf("read into nil: %v", err)
	}
	p.expect(0, p.initial(0, p.win), "after empty requests")
}

func checkOutOfRange(p *probe) {
	u, size := p.unit, p.info.Size
	top := math.MaxInt64 / u * u
	for _, r := range p.requests() {
		for _, at := range []struct {
			off int64
			n   int
		}{
			{size, int(u)}, {size - u, int(2 * u)}, {size + u, int(u)}, {-u, int(u)}, {-u, int(2 * u)},
			{top, int(u)}, {math.MaxInt64 - (u - 1), int(u)}, {math.MinInt64, int(u)}, {size + 1<<40, int(p.block)},
		} {
			p.kinds(r.call(at.off, at.n), fmt.Sprintf("%s of %d bytes at %d (size %d)", r.name, at.n, at.off, size),
				block.OutOfRange)
		}
	}
	p.longRequests()
	p.expect(0, p.initial(0, p.win), "after requests out of range")
	p.expect(size-u, p.initial(size-u, u), "last block after requests out of range")
	if got := p.dev.Device.Info().Size; got != size {
		p.t.Errorf("the size became %d", got)
	}
}

// longRequests asks for lengths that no buffer has: they must not overflow.
func (p *probe) longRequests() {
	top := math.MaxInt64 / p.unit * p.unit
	for _, at := range []struct{ off, n int64 }{{0, top}, {p.unit, top}, {0, -p.unit}, {2 * p.unit, -p.unit}, {p.info.Size, top}} {
		what := fmt.Sprintf("%d bytes at %d", at.n, at.off)
		if p.dev.Extenter != nil {
			_, err := p.dev.Extenter.Extents(background, at.off, at.n, make([]block.Extent, 0, 4))
			p.kinds(err, "extents of "+what, block.OutOfRange)
		}
		if p.dev.Prefetch != nil {
			p.kinds(p.dev.Prefetch.Prefetch(background, at.off, at.n), "prefetch of "+what, block.OutOfRange)
		}
		if p.info.ReadOnly {
			continue
		}
		if p.dev.Zeroer != nil {
			p.kinds(p.dev.Zeroer.WriteZeroes(background, at.off, at.n, 0), "write zeroes of "+what, block.OutOfRange)
		}
		if p.dev.Discarder != nil {
			p.kinds(p.dev.Discarder.Discard(background, at.off, at.n, 0), "discard of "+what, block.OutOfRange)
		}
	}
}

func checkMisaligned(p *probe) {
	u := p.unit
	if u == 1 {
		return
	}
	for _, r := range p.requests() {
		for _, at := range []struct {
			off int64
			n   int
		}{{1, int(u)}, {u - 1, int(u)}, {0, int(u) - 1}, {u, 1}, {u / 2, int(u)}, {1, int(u) - 1}, {u + 1, 0}} {
			p.kinds(r.call(at.off, at.n), fmt.Sprintf("%s of %d bytes at %d (Min %d)", r.name, at.n, at.off, u), block.Invalid)
		}
	}
	p.expect(0, p.initial(0, p.win), "after misaligned requests")
}

func checkUnknownFlags(p *probe) {
	const alien = block.Flags(1 << 7)
	data := pattern(3, p.unit)
	for _, f := range []block.Flags{block.MayUnmap, block.FastOnly, alien, alien | block.FUA} {
		p.kinds(p.dev.WriteAt(background, data, 0, f), fmt.Sprintf("write with flags %#x", f), block.Invalid)
	}
	if p.dev.Zeroer != nil {
		for _, f := range []block.Flags{alien, alien | block.MayUnmap, 1 << 3} {
			p.kinds(p.dev.Zeroer.WriteZeroes(background, 0, p.unit, f), fmt.Sprintf("write zeroes with flags %#x", f), block.Invalid)
		}
	}
	if p.dev.Discarder != nil {
		for _, f := range []block.Flags{alien, block.FastOnly, block.MayUnmap} {
			p.kinds(p.dev.Discarder.Discard(background, 0, p.unit, f), fmt.Sprintf("discard with flags %#x", f), block.Invalid)
		}
	}
	p.expect(0, p.initial(0, p.win), "after unknown flags")
}

// checkFUA: with CapFUA every changing call takes the flag, and what carried it
// survives a crash where there can be one; without CapFUA no call takes it.
func checkFUA(p *probe) {
	data := pattern(4, p.block)
	if !p.info.Has(block.CapFUA) {
		p.kinds(p.dev.WriteAt(background, data, 0, block.FUA), "write with FUA without CapFUA", block.Invalid)
		if p.dev.Zeroer != nil {
			p.kinds(p.dev.Zeroer.WriteZeroes(background, 0, p.block, block.FUA), "zeroes with FUA without CapFUA", block.Invalid)
		}
		if p.dev.Discarder != nil {
			p.kinds(p.dev.Discarder.Discard(background, 0, p.block, block.FUA), "discard with FUA without CapFUA", block.Invalid)
		}
		p.expect(0, p.initial(0, p.block), "after refused FUA")
		return
	}
	p.ok(p.dev.WriteAt(background, data, p.block, block.FUA), "write with FUA")
	p.expect(p.block, data, "after FUA")
	if p.dev.Discarder != nil {
		p.ok(p.dev.Discarder.Discard(background, 2*p.block, p.block, block.FUA), "discard with FUA")
	}
	p.expect(p.block, data, "after discarding the neighbour with FUA")
	p.ok(p.dev.WriteAt(background, nil, 0, block.FUA), "empty write with FUA")
	if p.s.Crash != nil {
		p.fuaSurvives()
	}
}

func checkReadOnly(p *probe) {
	data := pattern(5, p.block)
	p.kinds(p.dev.WriteAt(background, data, 0, 0), "write", block.ReadOnly)
	if p.dev.Zeroer != nil {
		p.kinds(p.dev.Zeroer.WriteZeroes(background, 0, p.block, 0), "write zeroes", block.ReadOnly)
		p.kinds(p.dev.Zeroer.WriteZeroes(background, 0, p.block, block.MayUnmap), "write zeroes", block.ReadOnly)
	}
	if p.dev.Discarder != nil {
		p.kinds(p.dev.Discarder.Discard(background, 0, p.block, 0), "discard", block.ReadOnly)
	}
	if p.dev.Resizer != nil {
		p.kinds(p.dev.Resizer.Resize(background, p.info.Size+p.unit), "resize", block.ReadOnly)
	}
	p.ok(p.dev.Flush(background), "flush")
	p.expect(0, p.initial(0, p.win), "after refused changes")
}

// checkCancelled calls with a context that is over: the call does its work or
// fails with Canceled, nothing else.
func checkCancelled(p *probe) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	buf := make([]byte, p.block)
	if err := p.dev.ReadAt(ctx, buf, 0); err != nil {
		p.kinds(err, "cancelled read", block.Canceled)
	} else {
		same(p.t, buf, p.initial(0, p.block), 0, "read that ignored the cancelled context")
	}
	if err := p.dev.Flush(ctx); err != nil {
		p.kinds(err, "cancelled flush", block.Canceled)
	}
	if p.info.ReadOnly {
		return
	}
	data := pattern(6, p.block)
	err := p.dev.WriteAt(ctx, data, 0, 0)
	if err != nil {
		p.kinds(err, "cancelled write", block.Canceled)
	} else {
		p.expect(0, data, "write that ignored the cancelled context")
	}
	p.write(0, pattern(61, p.block))
	p.expect(0, pattern(61, p.block), "the write after a cancelled one")
}
