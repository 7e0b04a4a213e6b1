package unstable

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"sluice/block"
	"sluice/block/buffer"
)

// Rewriter reaches the file for Rewrite and Restore.
type Rewriter interface {
	// Write writes all of p and says whether it is durable; else v is the verifier.
	Write(ctx context.Context, p []byte, off int64) (v Verifier, durable bool, err error)
	// Zero makes a range read as zeroes. v was known before.
	Zero(ctx context.Context, off, n int64) (v Verifier, err error)
	// Commit makes all durable that was written.
	Commit(ctx context.Context) (v Verifier, err error)
}

// attempts is how often a server may lose what is being written again.
const attempts = 8

// Rewrite writes all entries again, the newest where they overlap, in requests of at most
// max bytes, commits them and takes them out. Nothing else is under way meanwhile: changes
// that begin wait for it, and it waits for those that began.
func (l *Log) Rewrite(ctx context.Context, w Rewriter, max int) error {
	all, err := l.begin(ctx, span{0, math.MaxInt64}, cost(0), true)
	if err != nil {
		return err
	}
	defer all.Failed()
	return l.Restore(ctx, w, max)
}

// Restore is Rewrite for a time when the changes under way have no effect until it ends,
// and are sent (again) afterwards: it does not wait for them.
func (l *Log) Restore(ctx context.Context, w Rewriter, max int) error {
	for range attempts {
		done, err := l.rewrite(ctx, w, max)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("the server has lost writes %d times in a row: %w", attempts, block.Transient)
}

// rewrite is one attempt; done is false where the server lost writes meanwhile.
func (l *Log) rewrite(ctx context.Context, w Rewriter, max int) (done bool, err error) {
	l.mu.Lock()
	if !l.stale.Load() {
		l.mu.Unlock()
		return true, nil
	}
	entries, mark, losses := slices.Clone(l.entries), l.last, l.losses
	l.readers++
	l.mu.Unlock()
	defer l.unread()
	r := rewriting{w: w, max: max, same: true}
	if err := r.all(ctx, newest(entries)); err != nil {
		return false, err
	}
	v, err := w.Commit(ctx)
	if err != nil {
		l.CommitFailed()
		return false, err
	}
	r.see(v)
	return r.same && l.rewritten(mark, losses, v), nil
}

// rewritten takes out what was written again.
func (l *Log) rewritten(m Mark, losses uint64, v Verifier) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.losses != losses {
		return false
	}
	n := 0
	for ; n < len(l.entries) && l.entries[n].mark <= m; n++ {
		l.drop(&l.entries[n])
	}
	l.forget(n)
	for i := range l.entries { // what ended meanwhile
		e := &l.entries[i]
		e.lost = e.lost || e.kind != mask && e.verifier != v
	}
	l.settle()
	l.admit()
	return true
}

// unread ends a rewrite.
func (l *Log) unread() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers--; l.readers > 0 {
		return
	}
	for i, b := range l.limbo {
		b.Release()
		l.limbo[i] = nil
	}
	l.limbo = l.limbo[:0]
}

// piece is a range with its newest content: bytes, or zeroes where there are none.
type piece struct {
	span
	bytes []byte
}

// newest gives what the entries amount to, in order of offset, without overlap. What a
// mask hides is left out.
func newest(entries []entry) []piece {
	var covered spans
	var list []piece
	for i := range slices.Backward(entries) {
		e := &entries[i]
		if e.kind != mask {
			covered.gaps(e.span, func(s span) {
				p := piece{span: s}
				if e.kind == data {
					p.bytes = e.bytes.B[s.off-e.off : s.end-e.off]
				}
				list = append(list, p)
			})
		}
		covered.add(e.span)
	}
	slices.SortFunc(list, func(a, b piece) int { return cmp.Compare(a.off, b.off) })
	return list
}

// rewriting is what one attempt knows.
type rewriting struct {
	w        Rewriter
	max      int
	verifier Verifier // of the replies so far, if any
	any      bool
	same     bool // they had all the same
}

func (r *rewriting) see(v Verifier) {
	r.same = r.same && (!r.any || r.verifier == v)
	r.verifier, r.any = v, true
}

// all writes the pieces, those of data joined where they touch.
func (r *rewriting) all(ctx context.Context, list []piece) error {
	joint := buffer.Get(r.max)
	defer joint.Release()
	for len(list) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := list[0]
		if p.bytes == nil {
			v, err := r.w.Zero(ctx, p.off, p.end-p.off)
			if err != nil {
				return err
			}
			r.see(v)
			list = list[1:]
			continue
		}
		n := 0
		for len(list) > 0 && list[0].bytes != nil && list[0].off == p.off+int64(n) && n < r.max {
			took := copy(joint.B[n:], list[0].bytes)
			n += took
			if list[0].bytes = list[0].bytes[took:]; len(list[0].bytes) > 0 {
				list[0].off += int64(took)
				break
			}
			list = list[1:]
		}
		v, durable, err := r.w.Write(ctx, joint.B[:n], p.off)
		if err != nil {
			return err
		}
		if !durable {
			r.see(v)
		}
	}
	return nil
}

// spans is a set of bytes: ranges that do not touch, in order.
type spans []span

// find gives the first range that ends at off or behind it.
func (s spans) find(off int64) int {
	i, _ := slices.BinarySearchFunc(s, off, func(s span, off int64) int { return cmp.Compare(s.end, off) })
	return i
}

// gaps calls f for each range of t that is not in the set.
func (s spans) gaps(t span, f func(span)) {
	for i := s.find(t.off); t.off < t.end; i++ {
		if i == len(s) || s[i].off >= t.end {
			f(t)
			return
		}
		if t.off < s[i].off {
			f(span{t.off, s[i].off})
		}
		t.off = max(t.off, s[i].end)
	}
}

// add puts a range into the set.
func (s *spans) add(t span) {
	i := s.find(t.off)
	j := i
	for ; j < len(*s) && (*s)[j].off <= t.end; j++ {
		t = span{min(t.off, (*s)[j].off), max(t.end, (*s)[j].end)}
	}
	*s = slices.Replace(*s, i, j, t)
}
