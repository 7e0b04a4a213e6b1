package fusefs

import "time"

// spin decides how long the reader that waits asks for the next request in a
// loop before it goes to sleep. A client that sends one request at a time is back
// within microseconds; to sleep in between means that a processor is halted and
// has to be woken by the other, which costs more than the request. It is given up
// where it does not pay: where the client takes longer.
//
// It belongs to the reader that waits; loop.waiting hands it on.
type spin struct {
	credit int
	missed int       // requests since the credit ran out
	end    time.Time // of the attempt; zero before it has begun
	able   bool      // an attempt is made for this request
}

const (
	// spinLimit covers the turn-around of a client on the same machine.
	spinLimit = 60 * time.Microsecond
	// A success earns an attempt, a failure costs spinCost; without credit one
	// attempt is made every spinRetry requests.
	spinCredit = 16
	spinCost   = 4
	spinRetry  = 256
)

// begin is called before a request is waited for.
func (s *spin) begin() {
	s.end, s.able = time.Time{}, s.credit > 0
	if !s.able {
		s.missed++
		s.able = s.missed%spinRetry == 0
	}
}

// on reports whether to ask once more, after there was none.
func (s *spin) on() bool {
	if !s.able {
		return false
	}
	now := time.Now()
	if s.end.IsZero() {
		s.end = now.Add(spinLimit)
		return true
	}
	if now.Before(s.end) {
		return true
	}
	s.able = false
	s.credit = max(s.credit-spinCost, 0)
	return false
}

// found notes that a request was there. One that came at the first asking, from a
// client with many at once, says nothing about spinning.
func (s *spin) found() {
	if s.able && !s.end.IsZero() && s.credit < spinCredit {
		s.credit++
	}
}
