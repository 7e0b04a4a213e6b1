package blocktest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sectorSize is the unit in which a crash keeps or loses what was written.
const sectorSize = 512

type sector [sectorSize]byte

type changeKind uint8

const (
	changeData    changeKind = iota // data was written; nil data means zeroes
	changeDiscard                   // content undefined
	changeSize                      // n is the new size
)

// change is one request that changed an image.
type change struct {
	kind changeKind
	off  int64
	n    int64
	data []byte
	done bool // returned nil: later reads saw it
	safe bool // promised to survive: FUA, or a flush issued after it was done
}

// history is what happened to an image since it was last known for certain: the
// content that is sure to be on the medium, and the changes since, in the order
// in which they were begun. Its owner guards it with a lock.
//
// From it follows what each sector can hold after a crash: its content after
// any of the changes that touched it, but none older than the last safe one.
// Sectors are independent of each other, with one exception: where a size
// survived, so did the cuts that came before it.
type history struct {
	base []byte
	log  []*change
	most int64 // the largest size so far
}

func newHistory(base []byte) history {
	return history{base: base, most: int64(len(base))}
}

// begin notes a change before it is carried out.
func (h *history) begin(c *change) *change {
	h.log = append(h.log, c)
	if c.kind == changeSize {
		h.most = max(h.most, c.n)
	}
	return c
}

// finished lists the changes that a flush issued now has to make safe.
func (h *history) finished() []*change {
	var list []*change
	for _, c := range h.log {
		if c.done {
			list = append(list, c)
		}
	}
	return list
}

// secure marks changes as safe and moves the oldest safe ones into the base.
func (h *history) secure(list []*change) {
	for _, c := range list {
		c.safe = true
	}
	i := 0
	for ; i < len(h.log) && h.log[i].safe && h.log[i].kind != changeDiscard; i++ {
		c := h.log[i]
		if c.kind == changeSize {
			h.base = resized(h.base, c.n)
		} else if c.off < int64(len(h.base)) {
			put(h.base[c.off:min(c.off+c.n, int64(len(h.base)))], c.data)
		}
	}
	h.log = h.log[i:]
}

func put(dst, data []byte) {
	if data == nil {
		clear(dst)
	} else {
		copy(dst, data)
	}
}

func resized(p []byte, n int64) []byte {
	if n <= int64(len(p)) {
		return p[:n:n]
	}
	return append(p, make([]byte, n-int64(len(p)))...)
}

// sizeAt is a size that can have survived, and which change of the log it came
// from (-1: none).
type sizeAt struct {
	size int64
	at   int
}

// sizes lists the sizes that can have survived, oldest first.
func (h *history) sizes() []sizeAt {
	list := []sizeAt{{int64(len(h.base)), -1}}
	for i, c := range h.log {
		if c.kind != changeSize {
			continue
		}
		if c.safe {
			list = list[:0]
		}
		list = append(list, sizeAt{c.n, i})
	}
	return list
}

// touched maps each sector that the log concerns to its changes there.
func (h *history) touched() map[int64][]int {
	m := map[int64][]int{}
	for i, c := range h.log {
		lo, hi := c.off, c.off+c.n
		if c.kind == changeSize {
			lo, hi = c.n, h.most
		}
		for s := lo / sectorSize; s*sectorSize < hi; s++ {
			m[s] = append(m[s], i)
		}
	}
	return m
}

// outcome is what a sector can hold: one of the contents (oldest first), or
// anything at all.
type outcome struct {
	contents []sector
	anything bool
}

// outcomes follows one sector through the changes that touched it. size is the
// size that survived.
func (h *history) outcomes(s int64, changes []int, size sizeAt) outcome {
	var base sector
	if s*sectorSize < int64(len(h.base)) {
		copy(base[:], h.base[s*sectorSize:])
	}
	head := outcome{contents: []sector{base}} // what reads can have seen at this point
	all := head
	for _, i := range changes {
		c := h.log[i]
		next := head.after(c, s)
		if !c.done { // it failed or never returned: reads after it can have seen either
			next.add(head)
		}
		if c.safe || c.kind == changeSize && i <= size.at {
			all = outcome{}
		}
		all.add(next)
		head = next
	}
	return all
}

// add joins the possibilities of b to o.
func (o *outcome) add(b outcome) {
	for _, content := range b.contents {
		if n := len(o.contents); n == 0 || !slices.Contains(o.contents[max(n-8, 0):], content) {
			o.contents = append(o.contents, content)
		}
	}
	o.anything = o.anything || b.anything
}

// after is the outcome when one more change has happened to sector s.
func (o outcome) after(c *change, s int64) outcome {
	lo, hi := c.off-s*sectorSize, c.off+c.n-s*sectorSize
	if c.kind == changeSize {
		lo, hi = c.n-s*sectorSize, sectorSize
	}
	from, to := max(lo, 0), min(hi, sectorSize)
	if c.kind == changeDiscard {
		return outcome{anything: true}
	}
	next := outcome{anything: o.anything && (from > 0 || to < sectorSize)}
	contents := o.contents
	if o.anything && !next.anything {
		contents = []sector{{}} // written over as a whole: known again
	}
	for _, content := range contents {
		if c.data == nil {
			clear(content[from:to])
		} else {
			copy(content[from:to], c.data[from-lo:])
		}
		next.contents = append(next.contents, content)
	}
	return next
}

// allows reports whether got, the first bytes of a sector, is such an outcome.
func (o outcome) allows(got []byte) bool {
	if o.anything {
		return true
	}
	for i := range o.contents {
		if string(o.contents[i][:len(got)]) == string(got) {
			return true
		}
	}
	return false
}

// survive picks one image that a crash can leave behind: with a nil rng the
// one with nothing but what is safe, otherwise any, now and then the newest.
func (h *history) survive(rng *rand.Rand) []byte {
	pick := func(n int) int { return 0 }
	switch {
	case rng == nil:
	case rng.IntN(4) == 0:
		pick = func(n int) int { return n - 1 }
	default:
		pick = rng.IntN
	}
	sizes := h.sizes()
	size := sizes[pick(len(sizes))]
	image := resized(slices.Clone(h.base), size.size)
	touched := h.touched()
	for _, s := range slices.Sorted(maps.Keys(touched)) {
		if s*sectorSize < size.size {
			o := h.outcomes(s, touched[s], size)
			copy(image[s*sectorSize:], o.contents[pick(len(o.contents))][:])
		}
	}
	return image
}
