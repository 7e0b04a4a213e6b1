package metrics

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// maxShards bounds what an export with many connections keeps: a shard has some
// 4 KiB for each operation that was used in it. Where requests come from nobody
// in particular they are spread over maxSpread at most.
const (
	maxShards = 16
	maxSpread = 4
)

// Requests counts requests that come to an export one way, or that pass one layer
// of its stack. It is an nbd.Observer, and has what Observers of other packages
// need; their operations are NBD's. All methods may be called by many goroutines
// at once.
type Requests struct {
	shards []*shard
	opened atomic.Uint64 // connections or files since the beginning
	pinned atomic.Uint64 // bytes

	mu      sync.Mutex // guards tallies
	tallies [nbd.NumOps]*tally
}

// shard counts a part of the requests: those of some connections. It is as large
// as two cache lines, so that shards allocated side by side have none in common.
type shard struct {
	ops      [nbd.NumOps]atomic.Pointer[counter]
	inFlight [nbd.NumOps]atomic.Int64
	conns    atomic.Int64
	_        [128 - 8*(2*nbd.NumOps+2)]byte
	of       *Requests
}

var (
	_ nbd.Observer = (*Requests)(nil)
	_ nbd.Observer = (*shard)(nil)
)

func newRequests(limit int) *Requests {
	r := &Requests{}
	for range min(runtime.GOMAXPROCS(0), limit) {
		r.shards = append(r.shards, &shard{of: r})
	}
	return r
}

// Shard gives an Observer to be used by one connection. Connections get the one
// that has the fewest, so their counting shares no cache line as long as there
// are no more of them than processors. There is nothing to give back.
func (r *Requests) Shard() nbd.Observer {
	best := r.shards[0]
	for _, s := range r.shards[1:] {
		if s.conns.Load() < best.conns.Load() {
			best = s
		}
	}
	return best
}

// any gives a shard for who has none: processors seldom meet there.
func (r *Requests) any() *shard {
	if len(r.shards) == 1 {
		return r.shards[0]
	}
	return r.shards[rand.Uint32()%uint32(len(r.shards))]
}

// Request counts an answered request; see nbd.Observer.
func (r *Requests) Request(op nbd.Op, bytes int64, took time.Duration, kind block.Kind) {
	r.any().Request(op, bytes, took, kind)
}

// InFlight changes the number of requests being worked on.
func (r *Requests) InFlight(op nbd.Op, delta int) { r.any().InFlight(op, delta) }

// Connection changes the number of connections.
func (r *Requests) Connection(delta int) { r.shards[0].Connection(delta) }

// Open changes the number of open files, which take the part of connections.
func (r *Requests) Open(delta int) { r.Connection(delta) }

// Pinned counts bytes that were handed out for the kernel to move.
func (r *Requests) Pinned(bytes int64) { r.pinned.Add(uint64(max(bytes, 0))) }

// tally gives the wide counters of an operation; it makes them for the first
// request.
func (r *Requests) tally(op nbd.Op) *tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tallies[op] == nil {
		r.tallies[op] = &tally{}
	}
	return r.tallies[op]
}

// used gives the tallies that there are, by operation.
func (r *Requests) used() [nbd.NumOps]*tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tallies
}

// now sums what is in flight and open.
func (r *Requests) now() (inFlight [nbd.NumOps]int64, conns int64) {
	for _, s := range r.shards {
		for op := range inFlight {
			inFlight[op] += s.inFlight[op].Load()
		}
		conns += s.conns.Load()
	}
	return inFlight, conns
}

// Request counts an answered request. A duration below zero counts as zero.
func (s *shard) Request(op nbd.Op, bytes int64, took time.Duration, kind block.Kind) {
	c := s.ops[op].Load()
	if c == nil {
		c = s.use(op)
	}
	bucket := bucketOf(took)
	nanos, n := uint64(max(took, 0)), uint64(max(bytes, 0))
	if kind != block.OK || !c.add(bucket, nanos, n) {
		c.spill(bucket, nanos, n, kind)
	}
}

// use makes the counter of an operation at its first request.
func (s *shard) use(op nbd.Op) *counter {
	t := s.of.tally(op)
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := s.ops[op].Load(); c != nil {
		return c // another goroutine was faster
	}
	c := &counter{total: t}
	t.counters = append(t.counters, c)
	s.ops[op].Store(c)
	return c
}

// InFlight changes the number of requests being worked on.
func (s *shard) InFlight(op nbd.Op, delta int) { s.inFlight[op].Add(int64(delta)) }

// Connection changes the number of connections.
func (s *shard) Connection(delta int) {
	s.conns.Add(int64(delta))
	if delta > 0 {
		s.of.opened.Add(uint64(delta))
	}
}
