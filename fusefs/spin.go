package fusefs

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spin decides when a reader asks for the next request in a loop before it goes
// to sleep. A client that sends one request at a time is back within
// microseconds; to sleep in between means that a processor is halted and has to
// be woken by the other, which in a virtual machine costs more than the request.
// It is given up where it does not pay: where the client takes longer.
//
// The readers of a loop share it. One at most is in an attempt.
type spin struct {
	busy   atomic.Bool
	credit atomic.Int32
	missed atomic.Int32 // requests since the credit ran out
	skip   atomic.Int32 // requests that are likely to be there already
}

const (
	// spinLimit covers the turn-around of a client on the same machine.
	spinLimit = 60 * time.Microsecond
	// A success earns an attempt, a failure costs spinCost; without credit one
	// attempt is made every spinRetry requests.
	spinCredit = 16
	spinCost   = 4
	spinRetry  = 256
	spinSkip   = 16
)

// wait returns when a request is there, or when it does not pay to wait for one.
func (s *spin) wait(d device) {
	if s.credit.Load() <= 0 && s.missed.Add(1)%spinRetry != 0 {
		return
	}
	if s.skip.Load() > 0 {
		s.skip.Add(-1)
		return
	}
	if !s.busy.CompareAndSwap(false, true) {
		return
	}
	defer s.busy.Store(false)
	if d.ready() { // a client with many requests at once: asking would be a waste
		s.skip.Store(spinSkip)
		return
	}
	for end := time.Now().Add(spinLimit); ; {
		if d.ready() {
			if s.credit.Load() < spinCredit {
				s.credit.Add(1)
			}
			return
		}
		if time.Now().After(end) {
			s.credit.Store(max(s.credit.Load()-spinCost, 0))
			return
		}
	}
}

// ready reports whether a request can be read.
func (d device) ready() bool {
	p := unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n > 0
}
