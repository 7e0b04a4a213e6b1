package swap

import (
	"sync/atomic"
	"time"
)

// Stats tells of the exchanges so far.
type Stats struct {
	Exchanges uint64        // that were completed
	Last      time.Duration // how long calls had to wait the last time, failed exchanges included
	Longest   time.Duration
}

// stats counts; only the holder of Device.mu writes.
type stats struct {
	exchanges     atomic.Uint64
	last, longest atomic.Int64
}

func (s *stats) stalled(d time.Duration) {
	s.last.Store(int64(d))
	s.longest.Store(max(s.longest.Load(), int64(d)))
}

// Stats may be called at any time.
func (d *Device) Stats() Stats {
	return Stats{d.stats.exchanges.Load(), time.Duration(d.stats.last.Load()), time.Duration(d.stats.longest.Load())}
}
