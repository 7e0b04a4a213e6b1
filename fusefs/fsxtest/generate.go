package fsxtest

import (
	"math/rand/v2"
	"slices"
)

// weights say how often each kind is chosen.
var weights = [kinds]int{
	Read: 18, Write: 18, DirectRead: 12, DirectWrite: 12, MapRead: 8, MapWrite: 8, Punch: 5, Zero: 4, Allocate: 2,
	Sync: 1, DataSync: 1, SeekData: 4, SeekHole: 4, Copy: 3, Reopen: 1,
}

const (
	pageSize = 4096
	usual    = 64 << 10 // bytes of most operations, at most
	large    = 1 << 20  // of some
)

// generator makes operations for a file of a size.
type generator struct {
	random *rand.Rand
	size   int64
	align  int64  // of O_DIRECT
	choice []Kind // each as often as its weight
	last   int64  // where the last operation ended
}

func newGenerator(cfg Config, size int64) *generator {
	g := &generator{random: rand.New(rand.NewPCG(cfg.Seed, 1)), size: size, align: cfg.align()}
	for k, w := range weights {
		if !slices.Contains(cfg.Without, Kind(k)) {
			g.choice = append(g.choice, slices.Repeat([]Kind{Kind(k)}, w)...)
		}
	}
	return g
}

func (g *generator) next() Op {
	op := Op{Kind: g.choice[g.random.IntN(len(g.choice))], Data: g.random.Uint64()}
	switch op.Kind {
	case Sync, DataSync, Reopen:
		return op
	case SeekData, SeekHole:
		op.Off = g.offset(g.size)
		return op
	case Copy:
		op.Off, op.Len = g.within()
		op.To = g.apart(op.Off, op.Len)
		if op.To < 0 {
			op.Len, op.To = 0, op.Off // no room for two
		}
	case DirectRead, DirectWrite:
		off, length := g.within()
		op.Off = off / g.align * g.align
		op.Len = max(length/g.align, 1) * g.align
	case Read:
		op.Off, op.Len = g.within()
		if g.random.IntN(32) == 0 {
			op.Len += usual // perhaps past the end
		}
	default:
		op.Off, op.Len = g.within()
		op.Wait = op.Kind == MapWrite && g.random.IntN(8) == 0
	}
	g.last = op.Off + op.Len
	return op
}

// within gives a range inside the file, of one byte at least.
func (g *generator) within() (off, length int64) {
	most := int64(usual)
	switch g.random.IntN(32) {
	case 0:
		most = large
	case 1, 2, 3, 4, 5, 6, 7, 8:
		most = 512
	}
	off = g.offset(g.size)
	return off, 1 + g.random.Int64N(min(most, g.size-off))
}

// offset gives a place below end. Every fourth is where the last operation ended or near a page's edge, since neighbours
// are where mistakes show.
func (g *generator) offset(end int64) int64 {
	off := g.random.Int64N(end)
	switch g.random.IntN(8) {
	case 0:
		off = g.last
	case 1:
		off = off/pageSize*pageSize + g.random.Int64N(3) - 1
	}
	return max(min(off, end-1), 0)
}

// apart gives the start of a range that has nothing in common with the given one, -1 when there is no room.
func (g *generator) apart(off, length int64) int64 {
	before, after := off-length+1, g.size-length-(off+length)+1 // how many starts there are on each side
	before, after = max(before, 0), max(after, 0)
	if before+after == 0 {
		return -1
	}
	n := g.random.Int64N(before + after)
	if n < before {
		return n
	}
	return off + length + n - before
}
