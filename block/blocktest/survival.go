package blocktest

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"sluice/block"
)

// checkCrash works on new images, cuts the power at some point, and compares
// what survived with what was promised.
func checkCrash(p *probe) {
	for round := range crashes() {
		q := newProbe(p.t, p.s, p.s.Open(p.t))
		q.crashRound(p.rand(round, 7), round%3 == 2)
	}
}

// crashRound is one image's life: random changes by one caller or by several
// at once, the crash, the check.
func (p *probe) crashRound(rng *rand.Rand, parallel bool) {
	p.t.Helper()
	d := NewDurability(p.t, p.dev.Device)
	r := block.Resolve(d)
	if parallel {
		share := p.win / 4 / p.block * p.block
		var all sync.WaitGroup
		for g := range int64(4) {
			own := rand.New(rand.NewPCG(rng.Uint64(), 8))
			all.Go(func() { p.crashWork(r, own, g*share, share, 40) })
		}
		all.Wait()
	} else {
		p.crashWork(r, rng, 0, p.win, 10+rng.IntN(60))
	}
	after := p.s.Crash(p.t)
	d.Check(p.t, after)
	if q := newProbe(p.t, p.s, after); q.dev.Extenter != nil {
		q.truthful(0, q.win, 64, nil)
	}
	p.ok(after.Close(), "close after the crash")
	_ = d.Close() // what it was opened on is gone
}

// crashWork makes changes in [base, base+share), with flushes and FUA between.
func (p *probe) crashWork(r *block.Resolved, rng *rand.Rand, base, share int64, count int) {
	fua := block.Flags(0)
	if p.info.Has(block.CapFUA) {
		fua = block.FUA
	}
	most := max(2*p.block, 2*p.unit)
	for i := range count {
		off := base + rng.Int64N(share/sectorStep(p.unit))*sectorStep(p.unit)
		n := min(1+rng.Int64N(most), base+share-off)
		n = (n + p.unit - 1) / p.unit * p.unit
		flags := fua * block.Flags(rng.IntN(4)/3)
		var err error
		switch op := rng.IntN(10); {
		case op == 0:
			err = r.Flush(background)
		case op == 1 && r.Zeroer != nil:
			err = r.Zeroer.WriteZeroes(background, off, n, flags|block.MayUnmap)
		case op == 2 && r.Zeroer != nil:
			err = r.Zeroer.WriteZeroes(background, off, n, flags)
		case op == 3 && r.Discarder != nil:
			err = r.Discarder.Discard(background, off, n, flags)
		default:
			n = step(p.info, n)
			err = r.WriteAt(background, pattern(int64(i)*7+base, n), off, flags)
		}
		if err != nil {
			p.t.Errorf("change %d of %d bytes at %d, flags %#x: %v", i, n, off, flags, err)
			return
		}
	}
}

// sectorStep keeps the callers of crashWork, and its places, on sectors.
func sectorStep(unit int64) int64 { return max(unit, sectorSize) }

// fuaSurvives cuts the power after changes with FUA that no flush followed: all
// of them are there.
func (p *probe) fuaSurvives() {
	p.t.Helper()
	p.fuaCrash("write", func(q *probe, s span, want []byte) {
		copy(want, pattern(s.off, s.n))
		writeDev(q.t, q.dev.Device, s.off, want, block.FUA)
	})
	if p.dev.Zeroer == nil {
		return
	}
	for _, flags := range []block.Flags{block.FUA, block.FUA | block.MayUnmap} {
		what := fmt.Sprintf("zeroing, flags %#x,", flags)
		p.fuaCrash(what, func(q *probe, s span, want []byte) {
			clear(want)
			q.ok(q.dev.Zeroer.WriteZeroes(background, s.off, s.n, flags), what)
		})
	}
}

// fuaCrash makes one kind of change everywhere on new images. change puts into
// want what the span has to hold. Several images, since a crash may by chance
// spare everything.
func (p *probe) fuaCrash(what string, change func(q *probe, s span, want []byte)) {
	p.t.Helper()
	for range 4 {
		q := newProbe(p.t, p.s, p.s.Open(p.t))
		want := pattern(5, q.info.Size)
		q.write(0, want)
		q.ok(q.dev.Flush(background), "flush")
		for _, s := range q.spans() {
			change(q, s, want[s.off:s.off+s.n])
		}
		after := p.s.Crash(p.t)
		expectDev(p.t, after, 0, want, "after a crash: "+what+" with FUA")
		p.ok(after.Close(), "close after the crash")
		_ = q.dev.Close() // what it was opened on is gone
	}
}
