package blocktest

import (
	"bytes"
	"sync"
	"sync/atomic"

	"sluice/block"
)

// The checks of Close and of what is left after it.

func checkClose(p *probe) {
	p.write1()
	p.ok(p.dev.Close(), "close")
	p.ok(p.dev.Close(), "second close")
	p.closed()
	p.ok(p.dev.Close(), "third close")
}

// write1 writes something if that is allowed.
func (p *probe) write1() {
	p.t.Helper()
	if !p.info.ReadOnly {
		p.write(0, pattern(1, p.block))
	}
}

// closed asserts that every call fails with Closed and moves nothing.
func (p *probe) closed() {
	p.t.Helper()
	for _, r := range p.requests() {
		err := r.call(0, int(p.unit))
		if err == block.ErrWouldBlock {
			continue // the caller then reads in the ordinary way
		}
		p.kinds(err, r.name+" after close", block.Closed)
	}
	p.kinds(p.dev.Flush(background), "flush after close", block.Closed)
	if p.dev.Resizer != nil && !p.info.ReadOnly {
		p.kinds(p.dev.Resizer.Resize(background, p.info.Size), "resize after close", block.Closed)
	}
	if p.dev.Ranger != nil {
		if _, ok := p.dev.Ranger.PinRange(0, p.unit); ok {
			p.t.Errorf("a range could be pinned after close")
		}
	}
	if got := p.dev.Device.Info().Block; got != p.info.Block {
		p.t.Errorf("Info().Block after close is %+v", got)
	}
}

// closeUser is one caller that keeps the Device busy until it is closed.
type closeUser struct {
	p       *probe
	off     int64
	want    []byte
	current atomic.Pointer[[]byte] // the buffer of the read in progress, or of the last one
	started chan struct{}
}

// run reads (or, every other time, writes what is there) until the Device is
// closed. It never touches a buffer once it is published.
func (u *closeUser) run() {
	writes := !u.p.info.ReadOnly
	for i := 0; ; i++ {
		buf := bytes.Repeat([]byte{0xa5}, len(u.want))
		u.current.Store(&buf)
		err := u.p.dev.ReadAt(background, buf, u.off)
		if err == nil && !bytes.Equal(buf, u.want) {
			u.p.t.Errorf("read wrong data at %d while the device was closed", u.off)
		}
		if err == nil && writes {
			err = u.p.dev.WriteAt(background, u.want, u.off, 0)
		}
		if err == nil && i%4 == 3 {
			err = u.p.dev.Flush(background)
		}
		if i == 1 {
			close(u.started)
		}
		if err != nil {
			if block.KindOf(err) != block.Closed {
				u.p.t.Errorf("a call met by Close failed with kind %q: %v", block.KindOf(err), err)
			}
			if i < 1 {
				close(u.started)
			}
			return
		}
	}
}

// checkCloseInUse closes under load: each call succeeds with the right data or
// fails with Closed, and when Close has returned, nothing moves any more.
func checkCloseInUse(p *probe) {
	n := step(p.info, 4*p.block)
	users := make([]*closeUser, 8)
	var all sync.WaitGroup
	for i := range users {
		off := int64(i) * 4 * p.block
		want := p.initial(off, n)
		if !p.info.ReadOnly {
			want = pattern(int64(i), n)
			p.write(off, want)
		}
		users[i] = &closeUser{p: p, off: off, want: want, started: make(chan struct{})}
		all.Go(users[i].run)
	}
	for _, u := range users {
		p.await(u.started, "the first calls")
	}
	var closers sync.WaitGroup
	for range 2 {
		closers.Go(func() {
			if err := p.dev.Close(); err != nil {
				p.t.Errorf("close in use: %v", err)
			}
		})
	}
	p.within("close in use", closers.Wait)

	// The buffers of reads that Close should have waited for (under -race the
	// detector sees a Device that still writes to one).
	var bufs, then [][]byte
	for _, u := range users {
		buf := *u.current.Load()
		bufs, then = append(bufs, buf), append(then, bytes.Clone(buf))
	}
	p.within("calls after close", all.Wait)
	for i := range bufs {
		same(p.t, bufs[i], then[i], users[i].off, "the buffer of a read after Close returned")
	}
	p.closed()
}

// checkPersistence: what was flushed is there when the image is opened again.
func checkPersistence(p *probe) {
	size := p.info.Size
	p.write(0, pattern(1, p.win))
	p.write(size-p.block, pattern(2, p.block))
	if p.dev.Zeroer != nil {
		p.ok(p.dev.Zeroer.WriteZeroes(background, p.block, 2*p.block, block.MayUnmap), "write zeroes")
	} else {
		p.write(p.block, make([]byte, 2*p.block))
	}
	want, tail := p.read(0, p.win), p.read(size-p.block, p.block)
	p.ok(p.dev.Flush(background), "flush")
	p.ok(p.dev.Close(), "close")

	again := p.s.Reopen(p.t)
	if got := again.Info(); got.Size != size {
		p.t.Errorf("the size after opening again is %d, was %d", got.Size, size)
	}
	expectDev(p.t, again, 0, want, "opened again")
	expectDev(p.t, again, size-p.block, tail, "the end, opened again")
	writeDev(p.t, again, 0, pattern(3, p.block), 0)
	p.ok(again.Flush(background), "flush")
	p.ok(again.Close(), "close")

	third := p.s.Reopen(p.t)
	expectDev(p.t, third, 0, pattern(3, p.block), "opened a third time")
	p.ok(third.Close(), "close")
}
