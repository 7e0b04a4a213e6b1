package v4

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"

	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// maxSlots is how many calls are under way at once at most: one word of bits.
const maxSlots = 64

// slot is a place for one call under way: a transport's Call, and the sequence number
// that the server expects next in the session that the slot was last used in. It
// belongs to whoever acquired it.
type slot struct {
	id      uint32
	t       *rpc.Transport
	call    *rpc.Call
	session *session // that seq is of
	seq     uint32   // last one used
	highest uint32   // slot that was in use when it was acquired
	results results  // of the last call

	// Of a call that nobody waits for (start.go):
	started started
	file    atomic.Pointer[File] // whose it is, while it is under way
}

// slots hands out slots, the lowest first, so that the server can forget the others.
type slots struct {
	mu      sync.Mutex
	all     [maxSlots]*slot
	free    uint64
	granted int // slots below this are handed out
	waiting []*slotWaiter
	pool    sync.Pool
	closed  bool
}

// slotWaiter waits for a slot; nil comes when there will be none.
type slotWaiter struct{ got chan *slot }

func (s *slots) init(calls func(i int) (*rpc.Transport, *rpc.Call)) {
	s.pool.New = func() any { return &slotWaiter{got: make(chan *slot, 1)} }
	for i := range s.all {
		t, call := calls(i)
		sl := &slot{id: uint32(i), t: t, call: call}
		call.Drained = func() { s.drained(sl) }
		s.all[i] = sl
		s.free |= 1 << i
	}
	s.granted = 1
}

// grant sets how many are handed out.
func (s *slots) grant(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted = max(1, min(n, maxSlots))
	for len(s.waiting) > 0 {
		sl := s.lowest()
		if sl == nil {
			return
		}
		s.pass(sl)
	}
}

// lowest takes the first free slot. The lock is held.
func (s *slots) lowest() *slot {
	usable := s.free & (1<<s.granted - 1)
	if s.granted == maxSlots {
		usable = s.free
	}
	if usable == 0 {
		return nil
	}
	i := bits.TrailingZeros64(usable)
	s.free &^= 1 << i
	s.all[i].highest = s.highest()
	return s.all[i]
}

// highest is the number of the highest slot in use. The lock is held.
func (s *slots) highest() uint32 { return uint32(max(bits.Len64(^s.free)-1, 0)) }

// pass gives a slot to the first who waits. The lock is held.
func (s *slots) pass(sl *slot) {
	w := s.waiting[0]
	copy(s.waiting, s.waiting[1:])
	s.waiting[len(s.waiting)-1] = nil
	s.waiting = s.waiting[:len(s.waiting)-1]
	sl.highest = s.highest()
	w.got <- sl
}

// acquire takes a slot.
func (s *slots) acquire(ctx context.Context, how how) (sl *slot, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, block.Closed
	}
	if len(s.waiting) == 0 || how.first {
		if sl = s.lowest(); sl != nil {
			s.mu.Unlock()
			return sl, nil
		}
	}
	w := s.pool.Get().(*slotWaiter)
	s.waiting = append(s.waiting, w)
	if how.first {
		copy(s.waiting[1:], s.waiting)
		s.waiting[0] = w
	}
	s.mu.Unlock()
	select {
	case sl = <-w.got:
	case <-ctx.Done():
		err = ctx.Err()
	case <-how.closing:
		err = block.Closed
	}
	if err != nil {
		if s.leave(w) {
			return nil, err
		}
		sl = <-w.got
	}
	s.pool.Put(w)
	if sl == nil {
		return nil, block.Closed
	}
	return sl, nil
}

// try takes a slot if one is free; nil: none is, or others wait.
func (s *slots) try() *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.waiting) > 0 {
		return nil
	}
	return s.lowest()
}

// leave takes a waiter out; false: a slot is on its way to it.
func (s *slots) leave(w *slotWaiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.waiting {
		if other == w {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// release gives a slot back.
func (s *slots) release(sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 && int(sl.id) < s.granted {
		s.pass(sl)
		return
	}
	s.free |= 1 << sl.id
	if len(s.waiting) > 0 {
		if low := s.lowest(); low != nil {
			s.pass(low)
		}
	}
}

// drained takes a slot back whose caller did not wait for the reply. Where none came
// the sequence number is not known any more.
func (s *slots) drained(sl *slot) {
	if sl.call.Err() != nil {
		sl.session.spoiled.Store(true)
	}
	s.release(sl)
}

// close fails those who wait and those who come.
func (s *slots) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, w := range s.waiting {
		w.got <- nil
	}
	s.waiting = nil
}
