package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"syscall"

	"sluice/block"
	"sluice/block/buffer"
)

// The checks of the smaller optional powers.

func checkPrefetch(p *probe) {
	for _, s := range append(p.spans(), span{0, p.win}, span{0, p.info.Size}) {
		p.ok(p.dev.Prefetch.Prefetch(background, s.off, s.n), fmt.Sprintf("prefetch of %d bytes at %d", s.n, s.off))
	}
	p.expect(0, p.initial(0, p.win), "after prefetching")
}

func checkNowait(p *probe) {
	content := p.initial(0, p.win)
	if !p.info.ReadOnly {
		copy(content, pattern(1, 8*p.block))
		p.write(0, content[:8*p.block])
	}
	answered := 0
	for _, n := range []int64{p.unit, p.block, step(p.info, 16*p.block)} {
		for off := int64(0); off+n <= p.win; off += max(n, p.win/64/p.unit*p.unit) {
			buf := bytes.Repeat([]byte{0xa5}, int(n)+16)
			err := p.dev.Nowaiter.ReadNowait(buf[:n], off)
			switch {
			case err == nil:
				answered++
				same(p.t, buf[:n], content[off:off+n], off, "read nowait")
			case !errors.Is(err, block.ErrWouldBlock):
				p.t.Fatalf("read nowait of %d bytes at %d: %v", n, off, err)
			}
			same(p.t, buf[n:], bytes.Repeat([]byte{0xa5}, 16), 0, "the surroundings of a read nowait")
		}
	}
	p.t.Logf("%d reads answered without waiting", answered)
}

// checkFileRange compares a pinned range of a file with the Device, both ways.
func checkFileRange(p *probe) {
	if !p.info.ReadOnly {
		p.write(0, pattern(1, p.win))
	}
	pinned := 0
	for i, s := range append(p.spans(), span{0, p.win}) {
		r, ok := p.dev.Ranger.PinRange(s.off, s.n)
		if !ok {
			continue
		}
		pinned++
		p.onePin(r, s, int64(i))
	}
	p.t.Logf("%d ranges pinned", pinned)
	for _, s := range []span{{p.info.Size, p.unit}, {-p.unit, p.unit}, {math.MaxInt64 / p.unit * p.unit, p.unit}, {0, p.info.Size + p.unit}} {
		if r, ok := p.dev.Ranger.PinRange(s.off, s.n); ok {
			p.dev.Ranger.UnpinRange(r)
			p.t.Errorf("%d bytes at %d of %d could be pinned", s.n, s.off, p.info.Size)
		}
	}
}

// onePin looks at one pinned range and gives it back.
func (p *probe) onePin(r block.FileRange, s span, seed int64) {
	p.t.Helper()
	defer p.dev.Ranger.UnpinRange(r)
	what := fmt.Sprintf("range of %d bytes at %d, pinned %d", s.n, s.off, r.Len)
	if r.Len <= 0 || r.Len > s.n || r.Off < 0 {
		p.t.Fatalf("%s: impossible range %+v", what, r)
	}
	p.sameInFile(r, s.off, what)
	if p.info.ReadOnly {
		return
	}
	p.write(s.off, pattern(400+seed, r.Len))
	p.sameInFile(r, s.off, what+", written through the device")

	n := max(p.unit, 4096)
	if r.Off%4096 != 0 || r.Len < n {
		return // writing through the descriptor below, as O_DIRECT allows it too
	}
	buf := buffer.Get(int(n))
	defer buf.Release()
	copy(buf.B, pattern(800+seed, n))
	if n, err := syscall.Pwrite(r.FD, buf.B, r.Off); err != nil || n != len(buf.B) {
		p.t.Fatalf("%s: pwrite: %d, %v", what, n, err)
	}
	p.expect(s.off, buf.B, what+", written through the descriptor")
	p.sameInFile(r, s.off, what+", written through the descriptor")
}

// sameInFile compares what the file holds with what the Device reads. It reads
// whole pages, so that descriptors opened with O_DIRECT can be read as well.
func (p *probe) sameInFile(r block.FileRange, off int64, what string) {
	p.t.Helper()
	first := r.Off / 4096 * 4096
	skip := r.Off - first
	pages := (skip + r.Len + 4095) / 4096
	buf := buffer.Get(int(pages * 4096))
	defer buf.Release()
	got := 0
	for got < int(skip+r.Len) {
		n, err := syscall.Pread(r.FD, buf.B[got:], first+int64(got))
		if err != nil || n == 0 {
			p.t.Fatalf("%s: pread: %d, %v", what, n, err)
		}
		got += n
	}
	same(p.t, buf.B[skip:skip+r.Len], p.read(off, r.Len), off, what)
}

// checkBitmaps looks at the form of what is told of each bitmap.
func checkBitmaps(p *probe) {
	for _, name := range p.dev.Bitmapper.Bitmaps() {
		for _, room := range []int{1, 2, 64} {
			ask := func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
				return p.dev.Bitmapper.BitmapExtents(background, name, off, n, dst)
			}
			w := walk{t: p.t, info: p.info, room: room, known: block.Dirty}
			w.cover(0, p.win, ask)
			w.cover(p.info.Size-p.unit, p.unit, ask)
			_, err := ask(p.info.Size, p.unit, make([]block.Extent, 0, room))
			p.kinds(err, "bitmap extents beyond the end", block.OutOfRange)
		}
	}
	_, err := p.dev.Bitmapper.BitmapExtents(background, "no such bitmap", 0, p.unit, make([]block.Extent, 0, 1))
	p.kinds(err, "a bitmap that is not there", block.NotFound)
}
