package unstable

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/block"
	"sluice/block/buffer"
)

// Verifier is the server's write verifier: eight opaque bytes.
type Verifier uint64

// Mark is a point in a Log's history.
type Mark uint64

// Log is what one file has that is not known to be durable.
type Log struct {
	limit int64

	stale atomic.Bool  // an entry is lost; changed under mu
	kept  atomic.Int64 // bytes that the entries cost; changed under mu

	mu       sync.Mutex
	closed   bool
	reserved int64     // what the changes under way will cost
	under    []span    // the changes under way, in no order
	changes  []*Change // the same, index by index
	waiting  []*Change // in the order in which they came
	free     *Change
	entries  []entry // in the order in which they ended
	last     Mark    // the newest
	losses   uint64  // how often all entries were said to be lost

	readers int              // Rewrite and Restore at work: entries' bytes stay
	limbo   []*buffer.Buffer // to be released when there are none
	spare   []*buffer.Buffer // room for the next list

	pressing chan struct{}
}

// span is a range of the file.
type span struct{ off, end int64 }

func (s span) overlaps(t span) bool { return s.off < t.end && t.off < s.end }

// entry is a change that has ended.
type entry struct {
	span
	mark     Mark
	kind     kind
	lost     bool
	verifier Verifier
	bytes    *buffer.Buffer // of data
	cost     int64
}

type kind uint8

const (
	mask kind = iota // durable; hides what is older
	data
	zero
)

// entryCost is what an entry costs beside its bytes.
const entryCost = 128

// cost is what the bytes of an entry occupy, with the entry itself.
func cost(n int64) int64 {
	if n <= 0 {
		return entryCost
	}
	return entryCost + max(4096, int64(1)<<bits.Len64(uint64(n-1)))
}

// New makes a Log that keeps at most so many bytes.
func New(limit int64) *Log { return &Log{limit: limit, pressing: make(chan struct{}, 1)} }

// Change is a change under way. One of its methods ends it, once.
type Change struct {
	log   *Log
	span  span
	cost  int64
	at    int           // in log.under
	ready chan struct{} // room for one: it may begin, or err says why not
	err   error
	next  *Change // in log.free
}

// Begin announces a change of n bytes at off, of which keep bytes are to be kept. It
// waits while a change that overlaps is under way, or waits longer; and, where something
// is to be kept, until there is room. What is larger than the limit is let in when
// nothing else is kept. It fails with the context's error, with Closed, or with what
// Refuse says.
func (l *Log) Begin(ctx context.Context, off, n, keep int64) (*Change, error) {
	return l.begin(ctx, span{off, off + n}, cost(keep), false)
}

// TryBegin is Begin where there is no need to wait; nil where there is.
func (l *Log) TryBegin(off, n, keep int64) *Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	c := l.take()
	c.span, c.cost = span{off, off + n}, cost(keep)
	if !l.admits(c, l.waiting) {
		if !l.fits(c) {
			l.press()
		}
		l.put(c)
		return nil
	}
	l.enter(c)
	return c
}

// begin is Begin. first lets the change in before all that wait: some of them wait for
// room, which Rewrite makes.
func (l *Log) begin(ctx context.Context, s span, cost int64, first bool) (*Change, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, block.Closed
	}
	c := l.take()
	c.span, c.cost = s, cost
	longer := l.waiting
	if first {
		longer = nil
	}
	if l.admits(c, longer) {
		l.enter(c)
		l.mu.Unlock()
		return c, nil
	}
	l.waiting = slices.Insert(l.waiting, len(longer), c)
	if !l.fits(c) {
		l.press()
	}
	l.mu.Unlock()
	return l.wait(ctx, c)
}

// wait returns when c is let in, or will not be.
func (l *Log) wait(ctx context.Context, c *Change) (*Change, error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		if l.leave(c) {
			return nil, ctx.Err()
		}
	}
	if err := c.err; err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.put(c)
		return nil, err
	}
	return c, nil
}

// leave takes c out of those that wait; false means that it was let in or failed
// already.
func (l *Log) leave(c *Change) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, c)
	if i < 0 {
		<-c.ready
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	l.put(c)
	l.admit()
	return true
}

func (l *Log) take() *Change {
	c := l.free
	if c == nil {
		return &Change{log: l, ready: make(chan struct{}, 1)}
	}
	l.free, c.next = c.next, nil
	return c
}

func (l *Log) put(c *Change) {
	c.err = nil
	c.next, l.free = l.free, c
}

// fits reports whether there is room for what c keeps.
func (l *Log) fits(c *Change) bool {
	used := l.kept.Load() + l.reserved
	return c.cost <= entryCost || used+c.cost <= l.limit || used == 0
}

// admits reports whether c may begin before those that wait longer.
func (l *Log) admits(c *Change, longer []*Change) bool {
	for i := range l.under {
		if l.under[i].overlaps(c.span) {
			return false
		}
	}
	for _, w := range longer {
		if w.span.overlaps(c.span) || c.cost > entryCost && !l.fits(w) {
			return false
		}
	}
	return l.fits(c)
}

func (l *Log) enter(c *Change) {
	c.at = len(l.under)
	l.under = append(l.under, c.span)
	l.changes = append(l.changes, c)
	if c.cost > entryCost {
		l.reserved += c.cost
	}
}

// admit lets those in that can begin now.
func (l *Log) admit() {
	rest := l.waiting[:0]
	for _, c := range l.waiting {
		if l.admits(c, rest) {
			l.enter(c)
			c.ready <- struct{}{}
		} else {
			rest = append(rest, c)
		}
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
}

// Unstable ends the change: the server has p, and has not said that it is durable. The
// Log keeps a copy.
func (c *Change) Unstable(p []byte, v Verifier) {
	b := buffer.Get(len(p))
	copy(b.B, p)
	c.finish(entry{span: c.span, kind: data, verifier: v, bytes: b, cost: cost(int64(len(p)))}, true)
}

// Stable ends the change: it is durable.
func (c *Change) Stable() { c.finish(entry{span: c.span, kind: mask, cost: entryCost}, true) }

// StableFirst ends the change: its first n bytes are durable, and nothing was done to the
// others.
func (c *Change) StableFirst(n int64) {
	c.finish(entry{span: span{c.span.off, c.span.off + n}, kind: mask, cost: entryCost}, true)
}

// Zeroed ends the change: the range reads as zeroes, and that is not known to be durable.
// v is the verifier that was known before the change was sent.
func (c *Change) Zeroed(v Verifier) {
	c.finish(entry{span: c.span, kind: zero, verifier: v, cost: entryCost}, true)
}

// Failed ends the change: whether the server has it is not known, and nobody was told
// that it has.
func (c *Change) Failed() { c.finish(entry{}, false) }

func (c *Change) finish(e entry, record bool) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	end := len(l.under) - 1
	l.under[c.at], l.changes[c.at] = l.under[end], l.changes[end]
	l.changes[c.at].at = c.at
	l.changes[end] = nil
	l.under, l.changes = l.under[:end], l.changes[:end]
	if c.cost > entryCost {
		l.reserved -= c.cost
	}
	if record {
		l.record(e)
	}
	l.put(c)
	if len(l.waiting) > 0 {
		l.admit()
	}
}

func (l *Log) record(e entry) {
	switch {
	case l.closed:
		l.discard(e.bytes)
		return
	case e.kind == mask && len(l.entries) == 0:
		return
	}
	l.last++
	e.mark = l.last
	l.entries = append(l.entries, e)
	if l.kept.Add(e.cost) > l.limit/2 {
		l.press()
	}
}

// press tells the owner that a COMMIT is due.
func (l *Log) press() {
	select {
	case l.pressing <- struct{}{}:
	default:
	}
}

// Pressing gives a signal when more than half of the limit is kept, or somebody waits
// for room: the owner is to COMMIT, and to tell with Refuse where it cannot.
func (l *Log) Pressing() <-chan struct{} { return l.pressing }

// Refuse fails those who wait for room. It is for an owner who cannot make any.
func (l *Log) Refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.waiting[:0]
	for _, c := range l.waiting {
		if c.cost > entryCost && !l.fits(c) {
			c.err = err
			c.ready <- struct{}{}
		} else {
			rest = append(rest, c)
		}
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
	l.admit()
}

// Kept is how many bytes the Log occupies.
func (l *Log) Kept() int64 { return l.kept.Load() }

// Stale reports whether something has to be written again.
func (l *Log) Stale() bool { return l.stale.Load() }

// Close forgets all and fails those who wait. Changes under way end as ever.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for i := range l.entries {
		l.drop(&l.entries[i])
	}
	l.entries = nil
	l.settle()
	for _, c := range l.waiting {
		c.err = block.Closed
		c.ready <- struct{}{}
	}
	l.waiting = nil
}
