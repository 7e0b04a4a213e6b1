package unstable

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sluice/block"
	"sluice/block/buffer"
)

// Verifier is the server's write verifier.
type Verifier uint64

// Mark is a place in a Log.
type Mark uint64

// ErrFull is what Begin returns where there is no room, nor will be before a COMMIT.
var ErrFull = errors.New("unstable: too much is not committed")

// overhead is what an entry counts for besides its bytes.
const overhead = 64

// entry is a change that is complete.
type entry struct {
	off, n int64
	seq    Mark
	v      Verifier
	data   []byte // of kind written
	chunk  *chunk // that data lies in
	kind   kind
}

type kind uint8

const (
	written kind = iota // bytes, not durable
	zeroed              // zeroes, not durable
	durable             // hides what lies below
)

// Log is what was written to one file.
type Log struct {
	limit int64

	mu      sync.Mutex
	under   []*Change // under way
	waiting []*waiter // in order of arrival
	entries []entry   // in order of seq, of which those before front are gone
	front   int
	seq     Mark   // of the last entry
	stale   Mark   // entries up to it have to be written again
	turns   uint64 // how often something became stale

	reserved int64 // by what is under way
	closed   bool

	current *chunk // for short changes
	readers int    // see read
	limbo   []*buffer.Buffer
	chunks  []*chunk // not in use
	changes []*Change
	waiters []*waiter

	kept    atomic.Int64 // bytes of entries, overhead included
	isStale atomic.Bool
	press   chan struct{}
}

// Change is one that is under way.
type Change struct {
	l      *Log
	off, n int64
	keep   int64 // bytes reserved, without overhead
	place  int   // in under
	chunk  *chunk
	data   []byte
}

// why a change cannot begin.
type why uint8

const (
	nothing why = iota
	overlap
	room
)

// waiter waits to begin a change.
type waiter struct {
	off, n, keep int64
	why          why
	ready        chan result
}

type result struct {
	c   *Change
	err error
}

// New makes a Log that keeps at most limit bytes.
func New(limit int64) *Log { return &Log{limit: limit, press: make(chan struct{}, 1)} }

// Begin starts a change of n bytes at off, of which keep bytes will have to be kept:
// it waits for overlapping changes, and for room as far as changes under way may make
// it. It fails with ErrFull where a COMMIT has to make it, with Closed, and with the
// context's error.
func (l *Log) Begin(ctx context.Context, off, n, keep int64) (*Change, error) {
	l.mu.Lock()
	c, why, err := l.admit(off, n, keep, len(l.waiting))
	if why == nothing {
		l.mu.Unlock()
		return c, err
	}
	w := l.newWaiter()
	w.off, w.n, w.keep, w.why = off, n, keep, why
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	var r result
	select {
	case r = <-w.ready:
	case <-ctx.Done():
		if l.leave(w) {
			return nil, ctx.Err()
		}
		r = <-w.ready
	}
	l.mu.Lock()
	l.waiters = append(l.waiters, w)
	l.mu.Unlock()
	return r.c, r.err
}

// admit begins a change, if nothing is in its way: neither what is under way nor the
// first of those who wait. The lock is held.
func (l *Log) admit(off, n, keep int64, before int) (c *Change, why why, err error) {
	if l.closed {
		return nil, nothing, block.Closed
	}
	for _, other := range l.under {
		if off < other.off+other.n && other.off < off+n {
			return nil, overlap, nil
		}
	}
	for _, w := range l.waiting[:before] {
		switch {
		case off < w.off+w.n && w.off < off+n:
			return nil, overlap, nil
		case w.why == room && keep > 0:
			return nil, room, nil
		}
	}
	if keep > 0 {
		need, kept := keep+overhead, l.kept.Load()
		switch {
		case kept > 0 && kept+need > l.limit:
			return nil, nothing, ErrFull
		case l.reserved > 0 && kept+l.reserved+need > l.limit:
			return nil, room, nil
		}
		l.reserved += need
	}
	return l.begin(off, n, keep), nothing, nil
}

// begin makes the change. The lock is held.
func (l *Log) begin(off, n, keep int64) *Change {
	var c *Change
	if last := len(l.changes) - 1; last >= 0 {
		c, l.changes = l.changes[last], l.changes[:last]
	} else {
		c = &Change{l: l}
	}
	c.off, c.n, c.keep, c.place = off, n, keep, len(l.under)
	l.under = append(l.under, c)
	if keep > 0 {
		c.chunk, c.data = l.reserve(int(keep))
	}
	return c
}

func (l *Log) newWaiter() *waiter {
	if last := len(l.waiters) - 1; last >= 0 {
		w := l.waiters[last]
		l.waiters = l.waiters[:last]
		return w
	}
	return &waiter{ready: make(chan result, 1)}
}

// leave takes a waiter out; false: its result is there.
func (l *Log) leave(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.waiting {
		if other == w {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			l.letIn()
			return true
		}
	}
	return false
}

// letIn admits those who wait and need not any more. The lock is held.
func (l *Log) letIn() {
	stay := 0
	for _, w := range l.waiting {
		l.waiting[stay] = w
		var c *Change
		var err error
		if c, w.why, err = l.admit(w.off, w.n, w.keep, stay); w.why != nothing {
			stay++
			continue
		}
		w.ready <- result{c, err}
	}
	clear(l.waiting[stay:])
	l.waiting = l.waiting[:stay]
}

// Unstable ends a change that the server has answered with UNSTABLE and a verifier: p,
// the first bytes of the range or all, is copied.
func (c *Change) Unstable(p []byte, v Verifier) {
	p = p[:min(int64(len(p)), c.keep)]
	copy(c.data, p)
	c.end(written, int64(len(p)), v)
}

// Stable ends a change that is durable.
func (c *Change) Stable() { c.end(durable, c.n, 0) }

// Zeroed ends a change that made the range read as zeroes under a verifier.
func (c *Change) Zeroed(v Verifier) { c.end(zeroed, c.n, v) }

// Failed ends a change whose outcome is not known, or that did not take place.
func (c *Change) Failed() {
	l := c.l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unref(c.chunk)
	l.finish(c)
}

// end puts the change into the log.
func (c *Change) end(k kind, n int64, v Verifier) {
	l := c.l
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{off: c.off, n: n, v: v, kind: k}
	if k == written {
		e.data, e.chunk = c.data[:n], c.chunk
	} else {
		l.unref(c.chunk)
	}
	// What is durable has nothing to hide where nothing is kept.
	if !l.closed && (k != durable || l.front < len(l.entries)) {
		l.append(e)
	} else {
		l.unref(e.chunk)
	}
	l.finish(c)
}

// finish takes the change out of those under way. The lock is held.
func (l *Log) finish(c *Change) {
	if c.keep > 0 {
		l.reserved -= c.keep + overhead
	}
	last := len(l.under) - 1
	l.under[c.place] = l.under[last]
	l.under[c.place].place = c.place
	l.under[last] = nil
	l.under = l.under[:last]
	c.chunk, c.data = nil, nil
	l.changes = append(l.changes, c)
	if len(l.waiting) > 0 {
		l.letIn()
	}
}

// append puts an entry at the end of the log. The lock is held.
func (l *Log) append(e entry) {
	l.seq++
	e.seq = l.seq
	if l.front > 0 && len(l.entries) == cap(l.entries) {
		n := copy(l.entries, l.entries[l.front:])
		clear(l.entries[n:])
		l.entries, l.front = l.entries[:n], 0
	}
	l.entries = append(l.entries, e)
	if l.kept.Add(int64(len(e.data))+overhead) > l.limit/2 {
		select {
		case l.press <- struct{}{}:
		default:
		}
	}
}

// Pressing tells that more than half of the limit is kept: time for a COMMIT.
func (l *Log) Pressing() <-chan struct{} { return l.press }

// Mark is the place behind what is complete, for Committed.
func (l *Log) Mark() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Committed says that a COMMIT which was sent after Mark gave m has succeeded with the
// verifier v. Unless something up to m was lost, all of it is dropped. ok: nothing up
// to m is left.
func (l *Log) Committed(m Mark, v Verifier) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.front; i < len(l.entries) && l.entries[i].seq <= m; i++ {
		if e := &l.entries[i]; e.kind != durable && e.v != v {
			l.spoil(e.seq)
		}
	}
	if l.isStale.Load() {
		return l.front == len(l.entries) || l.entries[l.front].seq > m
	}
	l.drop(m)
	return true
}

// drop takes the entries up to m off the front. The lock is held.
func (l *Log) drop(m Mark) {
	freed := int64(0)
	for l.front < len(l.entries) && l.entries[l.front].seq <= m {
		e := &l.entries[l.front]
		freed += int64(len(e.data)) + overhead
		l.unref(e.chunk)
		*e = entry{}
		l.front++
	}
	if l.front == len(l.entries) {
		l.entries, l.front = l.entries[:0], 0
	}
	l.kept.Add(-freed)
	l.settle()
	if len(l.waiting) > 0 {
		l.letIn()
	}
}

// spoil makes the entries up to m stale. The lock is held.
func (l *Log) spoil(m Mark) {
	if m > l.stale {
		l.stale = m
	}
	l.turns++
	l.settle()
}

// settle works out whether anything is stale. The lock is held.
func (l *Log) settle() {
	l.isStale.Store(l.front < len(l.entries) && l.entries[l.front].seq <= l.stale)
}

// CommitFailed says that a COMMIT has failed: the server may have dropped what it could
// not store and tell that only once, so all of it has to be written again.
func (l *Log) CommitFailed() { l.NewInstance() }

// NewInstance says that the server may have lost all that it has not committed, whatever
// the verifiers say.
func (l *Log) NewInstance() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spoil(l.seq)
}

// Stale reports whether something has to be written again.
func (l *Log) Stale() bool { return l.isStale.Load() }

// Kept is how much is kept, in bytes.
func (l *Log) Kept() int64 { return l.kept.Load() }

// Truncate forgets what lies at size and beyond. No change is under way there.
func (l *Log) Truncate(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.front; i < len(l.entries); i++ {
		e := &l.entries[i]
		if e.off+e.n <= size {
			continue
		}
		e.n = max(0, size-e.off)
		if e.kind == written {
			l.kept.Add(e.n - int64(len(e.data)))
			e.data = e.data[:e.n]
		}
	}
}

// Close forgets everything, and fails those who wait and those who come with Closed.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.letIn()
	l.drop(l.seq)
	if l.current != nil {
		l.unref(l.current)
		l.current = nil
	}
}
