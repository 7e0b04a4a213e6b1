package align

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

// uneven is a Device of whole blocks that tells extents of any length: those in
// runs, cut off at most at a time.
type uneven struct {
	*coarse
	runs []block.Extent
	most int   // extents in an answer
	trim int64 // so many bytes are missing at an answer's end
}

func (u *uneven) Info() block.Info {
	info := u.coarse.Info()
	info.Caps |= block.CapDepth | block.CapBitmaps
	return info
}

func (u *uneven) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := u.check(off, n); err != nil {
		return dst, err
	}
	first, at := len(dst), int64(0)
	for _, e := range u.runs {
		lo, hi := max(at, off), min(at+e.Len, off+n)
		at += e.Len
		if lo < hi && len(dst) < cap(dst) && len(dst)-first < u.most {
			dst = append(dst, block.Extent{Len: hi - lo, State: e.State, Depth: e.Depth})
		}
	}
	if u.trim > 0 { // not as much as there would be
		last := &dst[len(dst)-1]
		last.Len = max(1, last.Len-u.trim)
	}
	return dst, nil
}

func (u *uneven) Bitmaps() []string { return []string{"b"} }

// BitmapExtents calls clean what lies at depth 0.
func (u *uneven) BitmapExtents(ctx context.Context, _ string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	first := len(dst)
	dst, err := u.Extents(ctx, off, n, dst)
	for i := first; i < len(dst); i++ {
		clean := dst[i].Depth == 0
		dst[i] = block.Extent{Len: dst[i].Len}
		if !clean {
			dst[i].State = block.Dirty
		}
	}
	return dst, err
}

const (
	unevenUnit = 4096
	unevenSize = 16 * unevenUnit
)

// newUneven gives a Device with random content, and for each byte whether it may
// be called zero, a hole and clean.
func newUneven(t *testing.T, r *rand.Rand) (d *uneven, content []byte, zero, hole, clean []bool) {
	t.Helper()
	below, err := mem.New(unevenSize)
	if err != nil {
		t.Fatal(err)
	}
	d = &uneven{coarse: &coarse{Device: below, unit: unevenUnit}, most: 1 + r.IntN(8), trim: r.Int64N(2) * r.Int64N(3*unevenUnit)}
	kinds := []block.Extent{
		{Depth: 1}, {State: block.Zero, Depth: 1}, {State: block.Hole | block.Zero}, {State: block.Hole, Depth: 2}, {Depth: 2},
	}
	for left := int64(unevenSize); left > 0; {
		e := kinds[r.IntN(len(kinds))]
		e.Len = min(left, 1+r.Int64N([]int64{100, unevenUnit, 5 * unevenUnit}[r.IntN(3)]))
		if r.IntN(3) == 0 { // sometimes whole blocks
			e.Len = min(left, (e.Len+unevenUnit-1)&^(unevenUnit-1))
		}
		left -= e.Len
		fill := byte(1 + r.IntN(255))
		if e.State&block.Zero != 0 {
			fill = 0
		}
		for range e.Len {
			content = append(content, fill)
			zero, hole = append(zero, e.State&block.Zero != 0), append(hole, e.State&block.Hole != 0)
			clean = append(clean, e.Depth == 0)
		}
		d.runs = append(d.runs, e)
	}
	if err := below.WriteAt(ctx, content, 0, 0); err != nil {
		t.Fatal(err)
	}
	return d, content, zero, hole, clean
}

// Whatever the extents below look like, those above are well formed, cover what
// was asked for, and call nothing zero, a hole or clean that is not.
func TestUnevenExtentsBelow(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		below, content, zero, hole, clean := newUneven(t, r)
		d := block.Resolve(New(below))
		for off := int64(0); off < unevenSize; off += 1 + r.Int64N(600) {
			n, room := 1+r.Int64N(unevenSize-off), 1+r.IntN(6)
			what := fmt.Sprintf("seed %d, %d bytes at %d, room for %d", seed, n, off, room)
			got, err := d.Extenter.Extents(ctx, off, n, make([]block.Extent, 0, room))
			wellFormed(t, what, got, answer{err, n, room, below.most >= room && below.trim == 0})
			at := off
			for _, e := range got {
				for i := at; i < at+e.Len; i++ {
					if e.State&block.Zero != 0 && (!zero[i] || content[i] != 0) || e.State&block.Hole != 0 && !hole[i] {
						t.Fatalf("%s: byte %d lies in %+v of %v", what, i, e, got)
					}
				}
				at += e.Len
			}
			got, err = d.Bitmapper.BitmapExtents(ctx, "b", off, n, make([]block.Extent, 0, room))
			wellFormed(t, what, got, answer{err, n, room, below.most >= room && below.trim == 0})
			at = off
			for _, e := range got {
				for i := at; i < at+e.Len; i++ {
					if e.State&block.Dirty == 0 && !clean[i] {
						t.Fatalf("%s: byte %d lies in clean %+v of %v", what, i, e, got)
					}
				}
				at += e.Len
			}
		}
	}
}

// answer is what came beside the extents, and what was asked for.
type answer struct {
	err    error
	n      int64
	room   int
	strict bool // it may not be cut short, as the Device below may do
}

// wellFormed checks the form of an answer.
func wellFormed(t *testing.T, what string, got []block.Extent, a answer) {
	t.Helper()
	if a.err != nil || len(got) == 0 || len(got) > a.room {
		t.Fatalf("%s: %v, %v", what, got, a.err)
	}
	sum := int64(0)
	for _, e := range got {
		if e.Len <= 0 {
			t.Fatalf("%s: %v", what, got)
		}
		sum += e.Len
	}
	if sum > a.n || a.strict && sum < a.n && len(got) < a.room {
		t.Fatalf("%s: %d bytes told: %v", what, sum, got)
	}
}

// Whole blocks in a large hole are still a hole, though something uneven lies
// before and behind.
func TestUnevenDataLeavesTheHolesBeside(t *testing.T) {
	below := &uneven{coarse: newCoarse(t, unevenSize, unevenUnit), most: 100, runs: []block.Extent{
		{Len: 100, Depth: 1}, {Len: 5*unevenUnit - 200, State: block.Hole | block.Zero}, {Len: 100 + unevenSize - 5*unevenUnit, Depth: 1},
	}}
	got, err := block.Resolve(New(below)).Extenter.Extents(ctx, 50, unevenSize-60, make([]block.Extent, 0, 8))
	want := []block.Extent{
		{Len: unevenUnit - 50, Depth: 1}, {Len: 3 * unevenUnit, State: block.Hole | block.Zero}, {Len: unevenSize - 4*unevenUnit - 10, Depth: 1},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v (%v)", got, want, err)
	}
}

// Extents of no length or less are never passed on, nor waited for.
func TestExtentsOfNoLengthBelow(t *testing.T) {
	for _, bad := range [][]block.Extent{nil, {{Len: 0}}, {{Len: -4096, State: block.Hole | block.Zero}}, {{Len: 4096}, {Len: -4096}}} {
		below := &broken{coarse: newCoarse(t, unevenSize, unevenUnit), bad: bad}
		content := bytes.Repeat([]byte{7}, unevenSize)
		if err := below.WriteAt(ctx, content, 0, 0); err != nil {
			t.Fatal(err)
		}
		got, err := block.Resolve(New(below)).Extenter.Extents(ctx, 8000, 9000, make([]block.Extent, 0, 4))
		wellFormed(t, fmt.Sprint(bad), got, answer{err, 9000, 4, false})
		for _, e := range got {
			if e.State != 0 {
				t.Errorf("%v became %v", bad, got)
			}
		}
	}
}

type broken struct {
	*coarse
	bad []block.Extent
}

func (b *broken) Extents(_ context.Context, _, _ int64, dst []block.Extent) ([]block.Extent, error) {
	return append(dst, b.bad...), nil
}
