package v3

import (
	"context"

	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// maxSlots is how many calls are under way at once at most.
const maxSlots = 64

// slot is a place for one call under way. It belongs to whoever took it.
type slot struct {
	t    *rpc.Transport
	call *rpc.Call
	home *slots
}

// slots are the free ones, in turn of the transports. A channel serves those who wait in
// the order in which they came.
type slots struct {
	free    chan *slot
	closing <-chan struct{}
}

// fill makes the slots, once all transports are there.
func (s *slots) fill(lanes []*lane) {
	for i := range maxSlots {
		t := lanes[i%len(lanes)].t
		sl := &slot{t: t, call: t.NewCall(), home: s}
		sl.call.Drained = sl.release
		s.free <- sl
	}
}

// take waits for a slot. left, if set, ends the waiting as closing does, and that for the
// slot's next call too.
func (s *slots) take(ctx context.Context, left <-chan struct{}) (*slot, error) {
	select {
	case <-s.closing:
		return nil, block.Closed
	default:
	}
	select {
	case sl := <-s.free:
		sl.call.Forsake = left
		return sl, nil
	default:
	}
	select {
	case sl := <-s.free:
		sl.call.Forsake = left
		return sl, nil
	case <-s.closing:
		return nil, block.Closed
	case <-left:
		return nil, block.Closed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release gives a slot back.
func (sl *slot) release() { sl.home.free <- sl }

// drain waits until no call is under way; nobody may begin any more.
func (s *slots) drain() {
	for range maxSlots {
		<-s.free
	}
}

// do makes the slot's call. After an error the slot is not the caller's any more.
func (sl *slot) do(ctx context.Context, proc uint32) error {
	left, err := sl.t.Do(ctx, sl.call)
	if err == nil {
		return nil
	}
	if !left { // else the reply releases it
		sl.release()
	}
	return callError(nameOf(proc), err)
}
