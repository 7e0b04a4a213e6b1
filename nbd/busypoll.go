package nbd

import (
	"runtime"
	"sync/atomic"
	"time"
)

// busyPoll decides when a receive asks for the next request in a loop before it
// blocks. A client that sends one request at a time answers within microseconds;
// to block in between means that a processor goes to sleep and has to be woken
// by the other, which in a virtual machine costs more than the request. So while
// it pays it is worth some microseconds of a processor, and it is given up when
// it does not: when the client takes longer, or others need the processor.
//
// The receiving goroutine owns it.
type busyPoll struct {
	limit  time.Duration // of one attempt; 0: never
	header bool          // the last receive brought no more than a request's header
	credit int           // attempts that may still fail
	idle   int           // receives since the credit ran out
}

const (
	// defaultBusyPoll covers the turn-around of a client on the same machine.
	defaultBusyPoll = 20 * time.Microsecond
	// A success earns an attempt, a failure costs failureCost; without credit
	// one attempt is made every retryAfter receives.
	maxCredit   = 16
	failureCost = 4
	retryAfter  = 256
)

// pollers is the number of goroutines in an attempt, over all servers: half of
// the processors at most.
var pollers atomic.Int32

func newBusyPoll(limit time.Duration) busyPoll {
	return busyPoll{limit: max(limit, 0), credit: maxCredit}
}

// received takes note of the length of what came.
func (b *busyPoll) received(n int) { b.header = n <= requestExtendedSize }

// begin reports whether to make an attempt, which end follows: for the next
// request of a client that sends one at a time, and for a payload that is sent
// apart from its header.
func (b *busyPoll) begin(what waiting) bool {
	if b.limit == 0 || what != forAnswer && (what != forRest || !b.header) {
		return false
	}
	if b.credit <= 0 {
		if b.idle++; b.idle < retryAfter {
			return false
		}
		b.idle, b.credit = 0, 1
	}
	if int(pollers.Add(1)) > max(runtime.GOMAXPROCS(0)/2, 1) {
		pollers.Add(-1)
		return false
	}
	return true
}

// end tells whether the attempt brought something.
func (b *busyPoll) end(success bool) {
	pollers.Add(-1)
	if success {
		b.credit = min(b.credit+1, maxCredit)
	} else {
		b.credit -= failureCost
	}
}
