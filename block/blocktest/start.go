package blocktest

import (
	"bytes"
	"context"
	"sync"

	"sluice/block"
)

// startOutcome is told of a started request.
type startOutcome struct {
	ended chan error
	pile  *pile
}

// Done implements block.Done.
func (o *startOutcome) Done(err error) block.Pusher {
	o.pile.told()
	o.ended <- err
	return o.pile
}

// pile counts what was told and not pushed.
type pile struct {
	mu   sync.Mutex
	held int
	push chan struct{} // closed when nothing is held
}

func (p *pile) told() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held++; p.push == nil {
		p.push = make(chan struct{})
	}
}

// Push implements block.Pusher.
func (p *pile) Push() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.push != nil {
		close(p.push)
		p.held, p.push = 0, nil
	}
}

// pushed waits until all that was told is pushed.
func (p *pile) pushed() {
	p.mu.Lock()
	push := p.push
	p.mu.Unlock()
	if push != nil {
		<-push
	}
}

// start is a request by way of block.Starter, or, where that does not work out, by the
// other. It reports whether it was started.
func (p *probe) start(pile *pile, write bool, buf []byte, off int64, flags block.Flags) (began bool, finish func() error) {
	o := &startOutcome{ended: make(chan error, 1), pile: pile}
	if write {
		began = p.dev.Starter.StartWrite(buf, off, flags, o)
	} else {
		began = p.dev.Starter.StartRead(buf, off, o)
	}
	again := func() error {
		if write {
			return p.dev.WriteAt(context.Background(), buf, off, flags)
		}
		return p.dev.ReadAt(context.Background(), buf, off)
	}
	if !began {
		return false, again
	}
	return true, func() error {
		if <-o.ended == nil {
			return nil
		}
		return again()
	}
}

// checkStart: what is started does what ReadAt and WriteAt do, many at once, and each
// end is told and pushed.
func checkStart(p *probe) {
	content := p.initial(0, p.win)
	var pile pile
	n := step(p.info, max(p.block, 4096))
	count := int(min(p.win/n, 32))
	finish := make([]func() error, count)
	began := 0
	run := func(what string, begin func(i int) (bool, func() error)) {
		for i := range finish {
			var ok bool
			if ok, finish[i] = begin(i); ok {
				began++
			}
		}
		p.dev.Starter.Kick()
		for i, f := range finish {
			if err := f(); err != nil {
				p.t.Fatalf("%s %d: %v", what, i, err)
			}
		}
		pile.pushed()
	}
	for round := range 4 {
		if !p.info.ReadOnly {
			run("started write", func(i int) (bool, func() error) {
				off := int64(i) * n
				copy(content[off:off+n], pattern(int64(round*count+i), n))
				flags := block.Flags(0)
				if i%7 == 3 && p.info.Has(block.CapFUA) {
					flags = block.FUA
				}
				return p.start(&pile, true, content[off:off+n], off, flags)
			})
		}
		bufs := make([][]byte, count)
		run("started read", func(i int) (bool, func() error) {
			bufs[i] = bytes.Repeat([]byte{0xa5}, int(n)+16)
			return p.start(&pile, false, bufs[i][:n:n], int64(i)*n, 0)
		})
		for i, b := range bufs {
			same(p.t, b[:n], content[int64(i)*n:int64(i+1)*n], int64(i)*n, "a started read")
			same(p.t, b[n:], bytes.Repeat([]byte{0xa5}, 16), 0, "the surroundings of a started read")
		}
	}
	p.t.Logf("%d requests started", began)
	p.refuses(&pile, n)
}

// refuses: what ReadAt would refuse is not begun, or ends in an error.
func (p *probe) refuses(pile *pile, n int64) {
	buf := make([]byte, n)
	for _, off := range []int64{p.info.Size, -n, p.info.Size - n + p.unit} {
		if _, finish := p.start(pile, false, buf, off, 0); finish() == nil {
			p.t.Errorf("a started read at %d of %d bytes works", off, p.info.Size)
		}
		if _, finish := p.start(pile, true, buf, off, 0); finish() == nil {
			p.t.Errorf("a started write at %d of %d bytes works", off, p.info.Size)
		}
	}
	if p.info.ReadOnly {
		if _, finish := p.start(pile, true, buf, 0, 0); finish() == nil {
			p.t.Error("a started write to what is read-only works")
		}
	}
}
