package unstable

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"math"
	"slices"

	"sluice/block"
	"sluice/block/buffer"
)

// Rewriter is the server, as Rewrite and Restore write to it.
type Rewriter interface {
	// Write writes all of p; durable: no COMMIT is needed for it.
	Write(ctx context.Context, p []byte, off int64) (v Verifier, durable bool, err error)
	// Zero makes a range read as zeroes.
	Zero(ctx context.Context, off, n int64) (Verifier, error)
	// Commit makes everything durable.
	Commit(ctx context.Context) (Verifier, error)
}

// rewrites is how often the server may turn out to be another one meanwhile.
const rewrites = 8

// Rewrite writes everything that is kept again, in pieces of at most most bytes, and
// commits it. It waits until no change is under way, and lets none begin meanwhile.
func (l *Log) Rewrite(ctx context.Context, w Rewriter, most int) error {
	all, err := l.Begin(ctx, 0, math.MaxInt64, 0)
	if err != nil {
		return err
	}
	defer all.Failed()
	return l.Restore(ctx, w, most)
}

// Restore is Rewrite at a time when no change that is under way can reach the server
// before it is done: such a change is newer, and must not be overwritten with what is
// kept.
func (l *Log) Restore(ctx context.Context, w Rewriter, most int) error {
	l.read()
	defer l.unread()
	for range rewrites {
		l.mu.Lock()
		entries, last, turns := slices.Clone(l.entries[l.front:]), l.seq, l.turns
		l.mu.Unlock()
		same, err := writeAgain(ctx, w, newest(entries), most)
		if err != nil {
			return err
		}
		l.mu.Lock()
		done := same && turns == l.turns
		if done {
			l.drop(last)
		}
		l.mu.Unlock()
		if done {
			return nil
		}
	}
	return fmt.Errorf("the server became another one %d times meanwhile: %w", rewrites, block.Transient)
}

// piece is a run of bytes, or of zeroes.
type piece struct {
	off, n int64
	data   []byte // nil: zeroes
}

// newest gives of each byte in entries the newest, in order of offset, without what is
// durable.
func newest(entries []entry) []piece {
	byStart := slices.Clone(entries)
	slices.SortFunc(byStart, func(a, b entry) int { return cmp.Compare(a.off, b.off) })
	cuts := make([]int64, 0, 2*len(entries))
	for _, e := range entries {
		cuts = append(cuts, e.off, e.off+e.n)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var pieces []piece
	var live newestFirst
	for i := 0; i+1 < len(cuts); i++ {
		from, to := cuts[i], cuts[i+1]
		for len(byStart) > 0 && byStart[0].off <= from {
			heap.Push(&live, byStart[0])
			byStart = byStart[1:]
		}
		for len(live) > 0 && live[0].off+live[0].n <= from {
			heap.Pop(&live)
		}
		if len(live) == 0 || live[0].kind == durable {
			continue
		}
		p := piece{off: from, n: to - from}
		if e := live[0]; e.kind == written {
			p.data = e.data[from-e.off : to-e.off]
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// newestFirst is a heap of entries.
type newestFirst []entry

func (h newestFirst) Len() int           { return len(h) }
func (h newestFirst) Less(i, j int) bool { return h[i].seq > h[j].seq }
func (h newestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newestFirst) Push(x any)        { *h = append(*h, x.(entry)) }
func (h *newestFirst) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// writeAgain sends pieces and a COMMIT. same: it was one instance of the server that
// took them all.
func writeAgain(ctx context.Context, w Rewriter, pieces []piece, most int) (same bool, err error) {
	var verifiers []Verifier
	see := func(v Verifier) {
		if !slices.Contains(verifiers, v) {
			verifiers = append(verifiers, v)
		}
	}
	joined := buffer.Get(most)
	defer joined.Release()
	for len(pieces) > 0 {
		if pieces[0].data == nil {
			v, err := w.Zero(ctx, pieces[0].off, pieces[0].n)
			if err != nil {
				return false, err
			}
			see(v)
			pieces = pieces[1:]
			continue
		}
		off := pieces[0].off
		var p []byte
		p, pieces = join(joined.B, pieces, most)
		v, durable, err := w.Write(ctx, p, off)
		if err != nil {
			return false, err
		}
		if !durable {
			see(v)
		}
	}
	v, err := w.Commit(ctx)
	if err != nil {
		return false, err
	}
	see(v)
	return len(verifiers) == 1, nil
}

// join takes pieces off the front that lie one after the other, up to most bytes.
func join(buf []byte, pieces []piece, most int) ([]byte, []piece) {
	if first := &pieces[0]; len(first.data) > most {
		p := first.data[:most]
		first.data, first.off, first.n = first.data[most:], first.off+int64(most), first.n-int64(most)
		return p, pieces
	}
	n, end := 0, pieces[0].off
	for len(pieces) > 0 && pieces[0].off == end && pieces[0].data != nil && n+len(pieces[0].data) <= most {
		n += copy(buf[n:], pieces[0].data)
		end += pieces[0].n
		pieces = pieces[1:]
	}
	return buf[:n], pieces
}
