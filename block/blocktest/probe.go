package blocktest

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"sluice/block"
)

// tester is what checks need of a test: testing.TB and rapid.T both have it.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// probe is one Device under test with what the checks ask of it all the time.
type probe struct {
	t    testing.TB
	s    *Suite
	dev  *block.Resolved
	info block.Info

	unit  int64 // the smallest request
	block int64 // a comfortable request: a multiple of unit, at least 4 KiB
	win   int64 // checks work within [0, win) and at the very end
}

// background is for calls that nobody cancels.
var background = context.Background()

// winMax bounds the part of a large Device that is looked at as a whole.
const winMax = 4 << 20

func newProbe(t testing.TB, s *Suite, dev block.Device) *probe {
	p := &probe{t: t, s: s, dev: block.Resolve(dev)}
	p.info = p.dev.Info
	p.unit = max(p.info.Block.Min, 1)
	p.block = step(p.info, max(p.unit, 4096))
	p.win = min(p.info.Size, winMax) / p.block * p.block
	return p
}

func (p *probe) close() {
	if err := p.dev.Close(); err != nil {
		p.t.Errorf("close: %v", err)
	}
}

// kinds asserts that err is of one of the kinds.
func (p *probe) kinds(err error, what string, kinds ...block.Kind) {
	p.t.Helper()
	if got := block.KindOf(err); !slices.Contains(kinds, got) {
		p.t.Fatalf("%s: got kind %q (error: %v), want %v", what, got, err, kinds)
	}
}

func (p *probe) ok(err error, what string) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// step is how much one request may carry.
func step(info block.Info, n int64) int64 {
	if info.Block.Max > 0 {
		return min(n, info.Block.Max)
	}
	return n
}

// readDev reads n bytes in requests as large as the Device takes.
func readDev(t tester, dev block.Device, off, n int64) []byte {
	t.Helper()
	info := dev.Info()
	p := make([]byte, n)
	for done := int64(0); done < n; {
		c := step(info, n-done)
		if err := dev.ReadAt(background, p[done:done+c], off+done); err != nil {
			t.Fatalf("read %d bytes at %d: %v", c, off+done, err)
		}
		done += c
	}
	return p
}

// writeDev writes data in requests as large as the Device takes.
func writeDev(t tester, dev block.Device, off int64, data []byte, flags block.Flags) {
	t.Helper()
	info := dev.Info()
	for len(data) > 0 {
		c := step(info, int64(len(data)))
		if err := dev.WriteAt(background, data[:c], off, flags); err != nil {
			t.Fatalf("write %d bytes at %d, flags %d: %v", c, off, flags, err)
		}
		data, off = data[c:], off+c
	}
}

// expectDev asserts the content at off.
func expectDev(t tester, dev block.Device, off int64, want []byte, what string) {
	t.Helper()
	same(t, readDev(t, dev, off, int64(len(want))), want, off, what)
}

// same asserts that two contents are equal and tells where they differ first.
func same(t tester, got, want []byte, off int64, what string) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	end := min(i+8, len(got), len(want))
	t.Fatalf("%s: wrong content at byte %d: got % x, want % x (checked %d bytes from %d)",
		what, off+int64(i), got[i:end], want[i:end], len(want), off)
}

func (p *probe) read(off, n int64) []byte {
	p.t.Helper()
	return readDev(p.t, p.dev.Device, off, n)
}

func (p *probe) write(off int64, data []byte) {
	p.t.Helper()
	writeDev(p.t, p.dev.Device, off, data, 0)
}

func (p *probe) expect(off int64, want []byte, what string) {
	p.t.Helper()
	expectDev(p.t, p.dev.Device, off, want, what)
}

// initial is what a new image holds at [off, off+n).
func (p *probe) initial(off, n int64) []byte {
	out := make([]byte, n)
	if off < int64(len(p.s.Content)) {
		copy(out, p.s.Content[off:])
	}
	return out
}

// noise is what patterns are cut from. Its length is prime, so that blocks and
// sectors of one pattern differ.
var noise = func() []byte {
	p := make([]byte, 131071)
	x := uint64(0x9e3779b97f4a7c15)
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x>>32) | 1
	}
	return p
}()

// pattern makes n bytes, none of them zero, that differ by seed and position.
func pattern(seed, n int64) []byte {
	out := make([]byte, n)
	at := int64(uint64(seed) * 7919 % uint64(len(noise)))
	for done := int64(0); done < n; at = 0 {
		done += int64(copy(out[done:], noise[at:]))
	}
	return out
}

var zeroPage [4096]byte

func allZero(p []byte) bool {
	for len(p) > len(zeroPage) {
		if !bytes.Equal(p[:len(zeroPage)], zeroPage[:]) {
			return false
		}
		p = p[len(zeroPage):]
	}
	return bytes.Equal(p, zeroPage[:len(p)])
}

// patience is how long a check waits for something that should come at once.
const patience = 30 * time.Second

// within runs f and fails the test when it takes longer than patience.
func (p *probe) within(what string, f func()) {
	p.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	p.await(done, what)
}

func (p *probe) await(done <-chan struct{}, what string) {
	p.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		p.t.Fatalf("%s: not done after %v", what, patience)
	}
}
