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
	IOPS  int64 // requests a second; 0 (or less): no bound
	Bytes int64 // bytes a second; 0 (or less): no bound

	// Burst is for how long a client that was silent may go on at twice as fast
	// a pace: so much of a second's allowance is saved up at most. It bounds the
	// excess of any stretch of time, not the size of a request: one that is
	// larger passes too, and those after it wait the longer. With less than some
	// ten milliseconds, what a late timer loses is lost. 0 (or less) means
	// DefaultBurst.
	Burst time.Duration
}

// DefaultBurst is what a Rate without a burst saves up: enough to be precise,
// too little to be noticed.
const DefaultBurst = 100 * time.Millisecond

// bounded reports whether there is anything to wait for.
func (r Rate) bounded() bool { return r.IOPS > 0 || r.Bytes > 0 }

// burst is Burst with its default.
func (r Rate) burst() time.Duration {
	if r.Burst <= 0 {
		return DefaultBurst
	}
	return r.Burst
}

// Stats are what a Device's limits have done so far.
type Stats struct {
	Read  Waits
	Write Waits
}

// Waits counts the requests of one lane that had to wait; those that gave up
// meanwhile, or were failed by Close, are among them.
type Waits struct {
	Requests uint64        // that are done with waiting
	Time     time.Duration // how long these waited, all added up
	Waiting  int           // now
}
