package blocktest

import (
	"bytes"
	"fmt"

	"pgregory.net/rapid"

	"sluice/block"
)

// The random-operation test: a Device and a byte slice get the same operations
// and must agree wherever the content is defined.

// modelMax is the largest Device whose every byte is in the model. Of a larger
// one the model has the first bytes, and its size is left alone.
const modelMax = 2 << 20

// model is a Device beside what it should hold.
type model struct {
	p     *probe
	t     *rapid.T
	data  []byte // [0, len(data)) of the Device
	undef []byte // per unit: 1 where discarded and not written since
	whole bool   // data is all of the Device
	seed  int64
}

// checkModel runs sequences of random operations, each on a new image.
func checkModel(p *probe) {
	rapid.Check(p.t, func(t *rapid.T) {
		q := newProbe(p.t, p.s, p.s.Open(p.t))
		defer func() { q.close() }()
		m := &model{p: q, t: t, whole: q.info.Size <= modelMax}
		size := q.info.Size
		if !m.whole {
			size = modelMax / 4 / q.unit * q.unit
		}
		m.data = q.initial(0, size)
		m.undef = make([]byte, size/q.unit)
		t.Repeat(m.actions())
		m.compare(0, int64(len(m.data)), "at the end")
	})
}

// actions lists the operations that the Device has.
func (m *model) actions() map[string]func(*rapid.T) {
	a := map[string]func(*rapid.T){
		"read": m.read, "write": m.write(0), "write-zero-bytes": m.writeZeroBytes, "flush": m.flush,
	}
	r := m.p.dev
	if m.p.info.Has(block.CapFUA) {
		a["write-fua"] = m.write(block.FUA)
	}
	if r.Zeroer != nil {
		a["zero"] = m.zero
	}
	if r.Discarder != nil {
		a["discard"] = m.discard
	}
	if r.Extenter != nil {
		a["extents"] = m.extents
	}
	if r.Resizer != nil && m.whole {
		a["resize"] = m.resize
	}
	if m.p.s.Reopen != nil {
		a["reopen"] = m.reopen
	}
	return a
}

// draw picks a range: mostly short, mostly near block borders.
func (m *model) draw(t *rapid.T, limit int64) span {
	u := m.p.unit
	units := int64(len(m.data)) / u
	perBlock := m.p.block / u
	var from int64
	if rapid.Bool().Draw(t, "near a border") && units > perBlock {
		from = rapid.Int64Range(0, units/perBlock-1).Draw(t, "block") * perBlock
		from += rapid.Int64Range(-min(from, 2), min(2, units-from-1)).Draw(t, "shift")
	} else {
		from = rapid.Int64Range(0, units-1).Draw(t, "unit")
	}
	most := min(units-from, max(limit/u, 1))
	n := rapid.Int64Range(1, min(most, 2*perBlock+1)).Draw(t, "units")
	if rapid.IntRange(0, 9).Draw(t, "long") == 9 {
		n = most
	}
	return span{from * u, n * u}
}

// longest bounds reads and writes.
func (m *model) longest() int64 { return step(m.p.info, max(64<<10, 2*m.p.block)) }

func (m *model) read(t *rapid.T) {
	s := m.draw(t, m.longest())
	m.compare(s.off, s.n, "read")
}

// compare asserts that [off, off+n) of the Device is as the model says.
func (m *model) compare(off, n int64, what string) {
	m.t.Helper()
	got := readDev(m.t, m.p.dev.Device, off, n)
	want := m.data[off : off+n]
	u := m.p.unit
	for i := m.nextUndef(off/u, (off+n)/u); i >= 0; i = m.nextUndef(i+1, (off+n)/u) {
		copy(want[i*u-off:(i+1)*u-off], got[i*u-off:]) // whatever it reads as
	}
	same(m.t, got, want, off, what)
}

// nextUndef finds the next undefined unit of [from, to), or gives -1.
func (m *model) nextUndef(from, to int64) int64 {
	i := bytes.IndexByte(m.undef[from:to], 1)
	if i < 0 {
		return -1
	}
	return from + int64(i)
}

// near compares a range with what lies around it.
func (m *model) near(s span, what string) {
	m.t.Helper()
	lo, hi := max(s.off-m.p.block, 0), min(s.off+s.n+m.p.block, int64(len(m.data)))
	m.compare(lo, hi-lo, fmt.Sprintf("after %s of %d bytes at %d", what, s.n, s.off))
}

// put stores bytes in the model and marks them as defined.
func (m *model) put(s span, data []byte) {
	if data == nil {
		clear(m.data[s.off : s.off+s.n])
	} else {
		copy(m.data[s.off:], data)
	}
	clear(m.undef[s.off/m.p.unit : (s.off+s.n)/m.p.unit])
}

func (m *model) write(flags block.Flags) func(*rapid.T) {
	return func(t *rapid.T) {
		s := m.draw(t, m.longest())
		m.seed++
		data := pattern(m.seed, s.n)
		writeDev(m.t, m.p.dev.Device, s.off, data, flags)
		m.put(s, data)
		m.near(s, "a write")
	}
}

func (m *model) writeZeroBytes(t *rapid.T) {
	s := m.draw(t, m.longest())
	writeDev(m.t, m.p.dev.Device, s.off, make([]byte, s.n), 0)
	m.put(s, nil)
	m.near(s, "a write of zero bytes")
}

func (m *model) zero(t *rapid.T) {
	s := m.draw(t, int64(len(m.data)))
	flags := rapid.SampledFrom(m.p.zeroFlags()).Draw(t, "flags")
	err := m.p.dev.Zeroer.WriteZeroes(background, s.off, s.n, flags)
	fast := flags&block.FastOnly != 0 && !m.p.info.Has(block.CapFastZero)
	switch {
	case err == nil:
		m.put(s, nil)
	case !fast || block.KindOf(err) != block.Unsupported:
		m.t.Fatalf("write zeroes of %d bytes at %d, flags %#x: %v", s.n, s.off, flags, err)
	}
	m.near(s, "write zeroes")
}

func (m *model) discard(t *rapid.T) {
	s := m.draw(t, int64(len(m.data)))
	if err := m.p.dev.Discarder.Discard(background, s.off, s.n, 0); err != nil {
		m.t.Fatalf("discard of %d bytes at %d: %v", s.n, s.off, err)
	}
	for i := s.off / m.p.unit; i < (s.off+s.n)/m.p.unit; i++ {
		m.undef[i] = 1
	}
	m.near(s, "a discard")
}

func (m *model) extents(t *rapid.T) {
	s := m.draw(t, int64(len(m.data)))
	room := rapid.SampledFrom([]int{1, 2, 64}).Draw(t, "room")
	w := walk{t: m.t, info: m.p.info, room: room, known: block.Hole | block.Zero}
	got := w.cover(s.off, s.n, func(off, n int64, dst []block.Extent) ([]block.Extent, error) {
		return m.p.dev.Extenter.Extents(background, off, n, dst)
	})
	at := s.off
	for _, e := range got {
		if e.State&block.Zero != 0 {
			m.compareZero(at, e.Len)
		}
		at += e.Len
	}
}

// compareZero asserts that the model holds zeroes where it is defined.
func (m *model) compareZero(off, n int64) {
	m.t.Helper()
	if allZero(m.data[off : off+n]) {
		return
	}
	for i := off; i < off+n; i++ {
		if m.data[i] != 0 && m.undef[i/m.p.unit] == 0 {
			m.t.Fatalf("an extent of %d bytes at %d is told to be zero; byte %d is %#x", n, off, i, m.data[i])
		}
	}
}

func (m *model) flush(*rapid.T) {
	if err := m.p.dev.Flush(background); err != nil {
		m.t.Fatalf("flush: %v", err)
	}
}

func (m *model) resize(t *rapid.T) {
	u := m.p.unit
	most := m.p.s.MaxSize
	if most == 0 {
		most = 2 * m.p.info.Size
	}
	old := int64(len(m.data))
	size := rapid.Int64Range(1, min(most, 2*modelMax)/u).Draw(t, "size") * u
	err := m.p.dev.Resizer.Resize(background, size)
	if size < old && block.KindOf(err) == block.Unsupported {
		return
	}
	if err != nil {
		m.t.Fatalf("resize from %d to %d: %v", old, size, err)
	}
	if got := m.p.dev.Device.Info().Size; got != size {
		m.t.Fatalf("resize from %d to %d: the size is %d", old, size, got)
	}
	if size <= old {
		m.data, m.undef = m.data[:size:size], m.undef[:size/u:size/u]
	} else {
		m.data = append(m.data, make([]byte, size-old)...)
		m.undef = append(m.undef, make([]byte, (size-old)/u)...)
	}
	low := max(min(old, size)-m.p.block, 0)
	m.compare(low, min(size-low, 64*m.p.block), "after a resize")
}

func (m *model) reopen(*rapid.T) {
	if err := m.p.dev.Flush(background); err != nil {
		m.t.Fatalf("flush: %v", err)
	}
	if err := m.p.dev.Close(); err != nil {
		m.t.Fatalf("close: %v", err)
	}
	m.p.dev = block.Resolve(m.p.s.Reopen(m.p.t))
	m.p.info = m.p.dev.Info
	m.compare(0, int64(len(m.data)), "opened again")
}
