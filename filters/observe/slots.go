package observe

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// numSlots is how many requests can be watched at once; more are only logged
// when they end. A power of two.
const numSlots = 128

const noSlot = -1

// slots is the table of requests under way.
type slots [numSlots]slot

// slot is a request under way. start is 0 while it is free; whoever makes it
// something else owns the slot until it is 0 again. It says what the request is
// only while op is not 0.
type slot struct {
	start  atomic.Int64
	op     atomic.Int64 // plus one
	off, n atomic.Int64
}

// take notes a request in a free slot. It looks at a random place first, so that
// processors seldom meet.
func (s *slots) take(c *call) int32 {
	first := rand.Uint32()
	for i := range uint32(numSlots) {
		at := (first + i) % numSlots
		if slot := &s[at]; slot.start.Load() == 0 && slot.start.CompareAndSwap(0, int64(c.start)) {
			slot.off.Store(c.off)
			slot.n.Store(c.n)
			slot.op.Store(int64(c.op) + 1)
			return int32(at)
		}
	}
	return noSlot
}

func (s *slots) free(i int32) {
	s[i].op.Store(0)
	s[i].start.Store(0)
}

// look reads a slot that others change meanwhile: ok means that all of it is of
// one request.
func (s *slot) look() (c call, ok bool) {
	start := s.start.Load()
	if start == 0 {
		return c, false
	}
	op := s.op.Load()
	c = call{op: Op(op - 1), off: s.off.Load(), n: s.n.Load(), start: time.Duration(start)}
	return c, op != 0 && s.op.Load() == op && s.start.Load() == start
}

// busy reports whether any slot is taken.
func (s *slots) busy() bool {
	for i := range s {
		if s[i].start.Load() != 0 {
			return true
		}
	}
	return false
}
