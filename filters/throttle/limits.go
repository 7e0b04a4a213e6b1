package throttle

import "time"

// Limits bound what passes a Device, reads apart from changes (writes, zeroing,
// discards). The zero value bounds nothing.
type Limits struct {
	Read  Rate
	Write Rate
}

// Rate is a bound on requests and on bytes; a request has to satisfy both.
type Rate struct {
	IOPS  int64 // requests a second; 0: no bound
	Bytes int64 // bytes a second; 0: no bound

	// Burst is for how long a client that was silent may go on at twice as fast
	// a pace: so much of a second's allowance is saved up at most. 0 means
	// DefaultBurst.
	Burst time.Duration
}

// DefaultBurst is what a Rate without a burst saves up: enough to be precise,
// too little to be noticed.
const DefaultBurst = 100 * time.Millisecond
