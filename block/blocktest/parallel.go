package blocktest

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"sluice/block"
)

// The checks with many callers at once. Their goroutines report with Errorf
// and stop; the check's own goroutine waits for all of them.

const callers = 16

// checkParallelDisjoint lets each goroutine work in a range of its own, with
// every call that the Device has, and compares with what it knows to be there.
func checkParallelDisjoint(p *probe) {
	share := p.win / callers / p.unit * p.unit
	var all sync.WaitGroup
	for g := range int64(callers) {
		all.Go(func() { p.disjoint(g, g*share, share) })
	}
	all.Wait()
}

// disjoint is one caller's work in [base, base+share).
func (p *probe) disjoint(g, base, share int64) {
	rng := p.rand(uint64(g), 5)
	model := p.initial(base, share)
	units := share / p.unit
	for i := range int64(40) {
		from := rng.Int64N(units)
		n := min(1+rng.Int64N(units-from), max(p.block/p.unit*2, 1)) * p.unit
		off := from * p.unit
		var err error
		op := rng.IntN(8)
		switch {
		case op == 0:
			err = p.dev.Flush(background)
		case op == 1 && p.dev.Zeroer != nil:
			err = p.dev.Zeroer.WriteZeroes(background, base+off, n, block.MayUnmap)
			clear(model[off : off+n])
		case op == 2 && p.dev.Extenter != nil:
			_, err = p.dev.Extenter.Extents(background, base+off, n, make([]block.Extent, 0, 4))
		case op <= 5:
			n = step(p.info, n)
			copy(model[off:], pattern(g*1000+i, n))
			err = p.dev.WriteAt(background, model[off:off+n], base+off, 0)
		default:
			n = step(p.info, n)
			got := make([]byte, n)
			if err = p.dev.ReadAt(background, got, base+off); err == nil && !bytes.Equal(got, model[off:off+n]) {
				p.t.Errorf("caller %d: wrong content in %d bytes at %d", g, n, base+off)
				return
			}
		}
		if err != nil {
			p.t.Errorf("caller %d: operation %d on %d bytes at %d: %v", g, op, n, base+off, err)
			return
		}
	}
	p.disjointEnd(g, base, model)
}

// disjointEnd compares a caller's whole range.
func (p *probe) disjointEnd(g, base int64, model []byte) {
	for off := int64(0); off < int64(len(model)); {
		c := step(p.info, int64(len(model))-off)
		got := make([]byte, c)
		if err := p.dev.ReadAt(background, got, base+off); err != nil || !bytes.Equal(got, model[off:off+c]) {
			p.t.Errorf("caller %d: wrong content at the end (error: %v)", g, err)
			return
		}
		off += c
	}
}

// checkParallelOverlap reads and flushes while a range changes from one known
// content to the next: every byte is of the old or of the new one, and when the
// write has returned, of the new one.
func checkParallelOverlap(p *probe) {
	const rounds = 60
	n := step(p.info, max(4*4096, p.unit))
	off := p.block
	p.write(off, bytes.Repeat([]byte{1}, int(n)))
	var round atomic.Int64 // the value last acknowledged
	round.Store(1)
	var all sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		all.Go(func() { p.overlapReader(g, off, n, &round, stop) })
	}
	all.Go(func() {
		for !isDone(stop) {
			if err := p.dev.Flush(background); err != nil {
				p.t.Errorf("flush during writes: %v", err)
				return
			}
		}
	})
	for v := byte(2); v < rounds; v++ {
		if err := p.dev.WriteAt(background, bytes.Repeat([]byte{v}, int(n)), off, 0); err != nil {
			p.t.Errorf("write %d during reads: %v", v, err)
			break
		}
		round.Store(int64(v))
	}
	close(stop)
	all.Wait()
	p.expect(off, bytes.Repeat([]byte{byte(round.Load())}, int(n)), "after all rounds")
}

func (p *probe) overlapReader(g int, off, n int64, round *atomic.Int64, stop <-chan struct{}) {
	rng := p.rand(uint64(g), 6)
	units := n / p.unit
	for !isDone(stop) {
		from := rng.Int64N(units)
		buf := make([]byte, (1+rng.Int64N(units-from))*p.unit)
		low := round.Load()
		err := p.dev.ReadAt(background, buf, off+from*p.unit)
		high := round.Load() + 1
		if err != nil {
			p.t.Errorf("read during writes: %v", err)
			return
		}
		for i, b := range buf {
			if i > 0 && b == buf[i-1] {
				continue
			}
			if int64(b) < low || int64(b) > high {
				p.t.Errorf("read %d at %d, while only %d to %d could be there", b, off+from*p.unit+int64(i), low, high)
				return
			}
		}
	}
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// checkMultiConn opens the image twice: both see completed writes, and a flush
// of one covers the writes of the other.
func checkMultiConn(p *probe) {
	other := p.s.Reopen(p.t)
	defer func() {
		if err := other.Close(); err != nil {
			p.t.Errorf("close the second device: %v", err)
		}
	}()
	for i := range int64(16) {
		from, to := p.dev.Device, other
		if i%2 == 1 {
			from, to = to, from
		}
		writeDev(p.t, from, i*p.block, pattern(i, p.block), 0)
		p.ok(to.Flush(background), "flush through the other device")
		expectDev(p.t, to, i*p.block, pattern(i, p.block), fmt.Sprintf("write %d seen through the other device", i))
		writeDev(p.t, to, 0, pattern(100+i, p.block), 0)
		expectDev(p.t, from, 0, pattern(100+i, p.block), "overwritten through the other device")
	}
}
