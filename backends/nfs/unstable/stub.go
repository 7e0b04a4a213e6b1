// Package unstable is a stand-in.
package unstable

import (
	"context"
	"sync"

	"sluice/block"
)

type Verifier uint64
type Mark int
type entry struct {
	off, n int64
	p      []byte // nil zero
	mask   bool   // durable
	v      Verifier
	seq    Mark
}
type Change struct {
	l      *Log
	off, n int64
}
type Log struct {
	mu      sync.Mutex
	wake    chan struct{}
	limit   int64
	kept    int64
	under   map[*Change]bool
	entries []entry
	seq     Mark
	stale   bool
	gen     int
	closed  bool
	press   chan struct{}
}
type Rewriter interface {
	Write(ctx context.Context, p []byte, off int64) (v Verifier, durable bool, err error)
	Zero(ctx context.Context, off, n int64) (Verifier, error)
	Commit(ctx context.Context) (Verifier, error)
}

func New(limit int64) *Log {
	return &Log{limit: limit, wake: make(chan struct{}), under: map[*Change]bool{}, press: make(chan struct{}, 1)}
}
func (l *Log) Begin(ctx context.Context, off, n, keep int64) (*Change, error) {
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil, block.Closed
		}
		wait := l.kept+keep > l.limit && l.kept > 0
		for c := range l.under {
			wait = wait || c.off < off+n && off < c.off+c.n
		}
		if !wait {
			c := &Change{l, off, n}
			l.under[c] = true
			l.mu.Unlock()
			return c, nil
		}
		w := l.wake
		l.mu.Unlock()
		select {
		case <-w:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
func (l *Log) broadcast() { close(l.wake); l.wake = make(chan struct{}) }
func (c *Change) end(e *entry) {
	l := c.l
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.under, c)
	if e != nil {
		l.seq++
		e.seq = l.seq
		l.entries = append(l.entries, *e)
		l.kept += int64(len(e.p))
		if l.kept > l.limit/2 {
			select {
			case l.press <- struct{}{}:
			default:
			}
		}
	}
	l.broadcast()
}
func (c *Change) Unstable(p []byte, v Verifier) {
	c.end(&entry{off: c.off, n: c.n, p: append([]byte{}, p...), v: v})
}
func (c *Change) Stable()           { c.end(&entry{off: c.off, n: c.n, mask: true}) }
func (c *Change) Zeroed(v Verifier) { c.end(&entry{off: c.off, n: c.n, v: v}) }
func (c *Change) Failed()           { c.end(nil) }
func (l *Log) Pressing() <-chan struct{} {
	return l.press
}
func (l *Log) Mark() Mark { l.mu.Lock(); defer l.mu.Unlock(); return l.seq }
func (l *Log) Committed(m Mark, v Verifier) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok = !l.stale
	for _, e := range l.entries {
		if !e.mask && e.v != v && e.seq <= m {
			ok, l.stale = false, true
		}
	}
	if ok {
		var rest []entry
		l.kept = 0
		for _, e := range l.entries {
			if e.seq > m {
				rest = append(rest, e)
				l.kept += int64(len(e.p))
			}
		}
		l.entries = rest
		l.broadcast()
	}
	return ok
}
func (l *Log) CommitFailed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gen++
	if len(l.entries) > 0 {
		l.stale = true
	}
}
func (l *Log) NewInstance() { l.CommitFailed() }
func (l *Log) Stale() bool  { l.mu.Lock(); defer l.mu.Unlock(); return l.stale }
func (l *Log) Rewrite(ctx context.Context, w Rewriter, max int) error {
	c, err := l.Begin(ctx, 0, 1<<62, 0)
	if err != nil {
		return err
	}
	defer c.Failed()
	return l.Restore(ctx, w, max)
}
func (l *Log) Restore(ctx context.Context, w Rewriter, most int) error {
	for {
		ok := true
		var first *Verifier
		see := func(v Verifier) {
			if first == nil {
				first = &v
			} else if *first != v {
				ok = false
			}
		}
		l.mu.Lock()
		entries, gen, last := append([]entry{}, l.entries...), l.gen, l.seq
		l.mu.Unlock()
		end := int64(0)
		for _, e := range entries {
			end = max(end, e.off+e.n)
		}
		data, have := make([]byte, end), make([]bool, end)
		for _, e := range entries {
			at := data[e.off : e.off+e.n]
			if e.p == nil {
				clear(at)
			} else {
				copy(at, e.p)
			}
			for i := range e.n {
				have[e.off+i] = !e.mask
			}
		}
		for off := int64(0); off < end; off++ {
			if !have[off] {
				continue
			}
			to := off
			for to < end && have[to] && to-off < int64(most) {
				to++
			}
			v, durable, err := w.Write(ctx, data[off:to], off)
			if err != nil {
				return err
			}
			if !durable {
				see(v)
			}
			off = to - 1
		}
		v, err := w.Commit(ctx)
		if err != nil {
			return err
		}
		see(v)
		l.mu.Lock()
		if ok && gen == l.gen {
			var rest []entry
			l.kept = 0
			for _, e := range l.entries {
				if e.seq > last {
					rest = append(rest, e)
					l.kept += int64(len(e.p))
				}
			}
			l.entries, l.stale = rest, false
			l.broadcast()
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
	}
}
func (l *Log) Truncate(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []entry
	for _, e := range l.entries {
		if e.off >= size {
			continue
		}
		e.n = min(e.n, size-e.off)
		if e.p != nil {
			e.p = e.p[:e.n]
		}
		rest = append(rest, e)
	}
	l.entries = rest
}
func (l *Log) Kept() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.kept }
func (l *Log) Close()      { l.mu.Lock(); defer l.mu.Unlock(); l.closed = true; l.broadcast() }
