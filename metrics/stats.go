package metrics

import (
	"math"
	"time"

	"sluice/nbd"
)

// OpStats is what is known of one operation that came to an export one way.
type OpStats struct {
	Protocol string // "nbd" or "fuse"
	Op       string

	Requests uint64        // answered, failed ones included
	Bytes    uint64        // that they covered
	Errors   uint64        // how many failed
	Time     time.Duration // all together
	P50, P99 time.Duration // what half, and 99 %, of them took at most; off by less than 9 %
	InFlight int64         // right now
}

// Stats gives the operations that have been used, by protocol and in the order of
// nbd.Op. Each one's figures are of the same moment.
func (e *Export) Stats() []OpStats {
	var list []OpStats
	for _, p := range e.parts().protocols {
		inFlight, _ := p.now()
		for op, t := range p.used() {
			if t == nil && inFlight[op] == 0 {
				continue
			}
			s := OpStats{Protocol: p.name, Op: nbd.Op(op).String(), InFlight: inFlight[op]}
			if t != nil {
				s.fill(t)
			}
			list = append(list, s)
		}
	}
	return list
}

func (s *OpStats) fill(t *tally) {
	var now snapshot
	t.read(&now)
	s.Requests, s.Bytes, s.Time = now.count(), now.bytes, time.Duration(min(now.nanos, math.MaxInt64))
	for _, n := range now.errors {
		s.Errors += n
	}
	s.P50, s.P99 = now.quantile(0.50), now.quantile(0.99)
}

// quantile gives the duration that a share q of the requests took at most, as
// Prometheus computes it from a native histogram: inside its bucket they lie
// evenly by the exponent.
func (s *snapshot) quantile(q float64) time.Duration {
	rank := q * float64(s.count())
	if rank == 0 {
		return 0
	}
	var below float64
	for i, n := range s.counts {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		if i == 0 {
			return 0
		}
		share := (rank - below) / float64(n)
		exp := (float64(keyOf(i)-1) + share) / perOct
		return time.Duration(min(math.Exp2(exp)*1e9, 1<<62))
	}
	return 0
}
