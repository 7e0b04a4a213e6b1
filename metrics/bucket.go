package metrics

import (
	"math/bits"
	"time"
)

// Durations are counted in the buckets of Prometheus' native histograms of
// schema 3: eight per power of two. The bucket with key k holds the durations d
// with 2^((k-1)/8) < d <= 2^(k/8) seconds. A time.Duration above zero has a key
// from minKey (1 ns) to maxKey (292 years), so no duration needs clamping.
const (
	schema = 3
	perOct = 1 << schema

	minKey = -239
	maxKey = 265

	// numBuckets counts the zero bucket, which has index 0, and one for each
	// key, at index key-minKey+1.
	numBuckets = maxKey - minKey + 2
)

// edges are the bounds of buckets, 10^9 * 2^(j/8) ns for j = 0 … 7, each shifted
// so that bit 63 is its highest, rounded down. Eight buckets up, the same bits
// come again. Only j = 0 is a whole number, and exact; a duration never equals
// one of the others, so that comparing with them rounded down is exact, too.
var edges = [perOct]uint64{
	0x81ffa7a9549ca6e3, // 2^(1/8)
	0x8dc3b8960164a7d9, // 2^(2/8)
	0x9a9867054d512391, // 2^(3/8)
	0xa8965f74bf065071, // 2^(4/8)
	0xb7d88a12d0dd9ea0, // 2^(5/8)
	0xc87c3e7d03cdbec3, // 2^(6/8)
	0xdaa17c2cd19555db, // 2^(7/8)
	0xee6b280000000000, // whole powers of two, in seconds
}

// cellBits is how many bits after the highest choose a cell.
const cellBits = 4

// cell is a sixteenth of the durations from one power of two nanoseconds to the
// next. It is 1/16 wide or narrower and buckets are 1/11 wide, so that there is
// one edge in it at most.
type cell struct {
	edge uint64 // durations above this, shifted, are one bucket further on
	base int64  // edges below the cell
}

var cells = makeCells()

func makeCells() (cs [1 << cellBits]cell) {
	for i := range cs {
		first := 1<<63 | uint64(i)<<(63-cellBits)
		base := 0
		for base < perOct && edges[base] < first {
			base++
		}
		cs[i] = cell{edge: 1<<64 - 1, base: int64(base)}
		if base < perOct {
			cs[i].edge = edges[base]
		}
	}
	return cs
}

// firstOctave is what makes 1 ns land in the bucket of minKey: that is at index
// 1, and no edge lies below it in its power of two.
const firstOctave = 1

// bucketOf gives the index of the bucket that took falls into, with integers
// alone: the highest bit gives the power of two, the next four the cell, and one
// comparison the bucket.
func bucketOf(took time.Duration) int {
	if took <= 0 {
		return 0
	}
	n := uint64(took)
	oct := bits.Len64(n) - 1
	n <<= (63 - oct) & 63
	c := &cells[n>>(63-cellBits)&(1<<cellBits-1)]
	_, over := bits.Sub64(c.edge, n, 0) // 1 where n > edge
	return oct*perOct + int(c.base) + int(over) + firstOctave
}

// keyOf is the native histogram's key of a bucket index above 0.
func keyOf(index int) int { return index + minKey - 1 }
