package hold

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"sluice/block"
)

// pace is how long the waits between attempts are: each up to twice as long as
// the one before. An outage that begins within calm after the last one goes on
// where that stopped, so that storage which fails in turns is not asked more often
// for it.
type pace struct{ first, last, calm time.Duration }

var standardPace = pace{first: 10 * time.Millisecond, last: time.Second, calm: 2 * time.Second}

// trouble is what is wrong, and since when.
type trouble struct {
	since time.Time // zero while nothing is
	err   error
}

// outage is one reason to wait. It lasts until an attempt has worked, even when
// nobody waits any more. Device.mu guards it.
type outage struct {
	kind block.Kind
	bit  uint32 // in Device.state
	trouble
	pace

	queue []*waiter // the first is whose turn it is
	next  time.Time // of the next attempt
	delay time.Duration
	ended time.Time // the last one
}

// waiter is a request in its caller's goroutine, from its first failure or its
// arrival in an outage until it returns. What is not the request's is guarded by
// Device.mu.
type waiter struct {
	request
	wake chan struct{} // look again

	in      *outage            // whose queue it stands in
	cancel  context.CancelFunc // of its attempt, while it makes one in the queue
	refused bool               // it is not held any longer
	counted bool               // in Device.held
}

func newWaiter(r request) *waiter { return &waiter{request: r, wake: make(chan struct{}, 1)} }

// rouse makes a waiter look again.
func (w *waiter) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// interrupt makes it look again even if it is with the storage.
func (w *waiter) interrupt() {
	if w.cancel != nil {
		w.cancel()
	}
	w.rouse()
}

func (o *outage) lasts() bool { return !o.since.IsZero() }

// begin starts the outage, unless it lasts already.
func (o *outage) begin(err error, now time.Time) (begun bool) {
	if o.lasts() {
		return false
	}
	o.trouble = trouble{since: now, err: err}
	if now.Sub(o.ended) >= o.calm {
		o.delay = 0
	}
	o.backOff(now)
	return true
}

// backOff puts the next attempt off, by a random part of the delay at least half
// of it, so that many Devices do not come to one server together.
func (o *outage) backOff(now time.Time) {
	o.delay = min(max(2*o.delay, o.first), o.last)
	o.next = now.Add(o.delay/2 + rand.N(o.delay/2))
}

// rouseFirst tells the first in the queue that it is its turn.
func (o *outage) rouseFirst() {
	if len(o.queue) > 0 {
		o.queue[0].rouse()
	}
}

// enqueue puts a waiter at the end.
func (o *outage) enqueue(w *waiter) {
	w.in = o
	o.queue = append(o.queue, w)
}

// remove takes a waiter out of the queue that it stands in, if any.
func (w *waiter) remove() {
	o := w.in
	if o == nil {
		return
	}
	w.in = nil
	i := slices.Index(o.queue, w)
	o.queue = slices.Delete(o.queue, i, i+1)
	if i == 0 {
		o.rouseFirst()
	}
}

// end empties the queue: all in it go on or, refused, give up.
func (o *outage) end(now time.Time, refused bool) {
	for _, w := range o.queue {
		w.in, w.refused = nil, refused
		w.interrupt()
	}
	o.queue, o.trouble, o.ended = nil, trouble{}, now
}

// losses remembers failures that tell of lost writes, for the flushes that were
// held at the time.
type losses struct {
	count atomic.Uint64 // changed under Device.mu
	err   error         // of the last; Device.mu guards it
}
