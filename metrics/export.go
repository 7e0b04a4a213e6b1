package metrics

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// maxShards bounds what an export with many connections keeps: a shard has some
// 4 KiB for each operation that was used in it.
const maxShards = 16

// Export counts what happens to one export. It is an nbd.Observer; a server
// that gives each connection a Shard of it keeps connections from slowing each
// other down. All methods may be called by many goroutines at once, also after
// Close.
type Export struct {
	name     string // as in the label
	registry *Registry
	shards   []*shard
	opened   atomic.Uint64 // connections since the beginning

	mu      sync.Mutex // guards all below
	tallies [nbd.NumOps]*tally
	info    block.Info
	known   bool // info was set
}

// shard counts for some of an export's connections. It is as large as two cache
// lines, so that shards allocated side by side have none in common.
type shard struct {
	ops      [nbd.NumOps]atomic.Pointer[counter]
	inFlight [nbd.NumOps]atomic.Int64
	conns    atomic.Int64
	_        [128 - 8*(2*nbd.NumOps+2)]byte
	export   *Export
}

var (
	_ nbd.Observer = (*Export)(nil)
	_ nbd.Observer = (*shard)(nil)
)

func newExport(r *Registry, name string) *Export {
	e := &Export{name: name, registry: r}
	for range min(runtime.GOMAXPROCS(0), maxShards) {
		e.shards = append(e.shards, &shard{export: e})
	}
	return e
}

// label makes any name fit to be a label's value, which has to be UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// Shard gives an Observer to be used by one connection. Connections get the one
// that has the fewest, so their counting shares no cache line as long as there
// are no more of them than processors. There is nothing to give back.
func (e *Export) Shard() nbd.Observer {
	best := e.shards[0]
	for _, s := range e.shards[1:] {
		if s.conns.Load() < best.conns.Load() {
			best = s
		}
	}
	return best
}

// Request counts an answered request; see nbd.Observer.
func (e *Export) Request(op nbd.Op, bytes int64, took time.Duration, kind block.Kind) {
	e.shards[0].Request(op, bytes, took, kind)
}

// InFlight changes the number of requests being worked on.
func (e *Export) InFlight(op nbd.Op, delta int) { e.shards[0].InFlight(op, delta) }

// Connection changes the number of connections.
func (e *Export) Connection(delta int) { e.shards[0].Connection(delta) }

// SetInfo tells size and mode of the export, at its beginning and after each
// change. Until then the metrics about them are absent.
func (e *Export) SetInfo(info block.Info) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info, e.known = info, true
}

// Close takes the export's metrics out of the registry. What is counted
// afterwards is lost.
func (e *Export) Close() { e.registry.remove(e) }

// tally gives the wide counters of an operation; it makes them for the first
// request.
func (e *Export) tally(op nbd.Op) *tally {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tallies[op] == nil {
		e.tallies[op] = &tally{}
	}
	return e.tallies[op]
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
	t := s.export.tally(op)
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
		s.export.opened.Add(uint64(delta))
	}
}
