package metrics

import (
	"math"
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

// octave holds 2^(j/8) for j = 1 … 8, the bounds of the buckets within one
// power of two.
var octave = [perOct]float64{
	1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951,
	1.5422108254079407, 1.681792830507429, 1.8340080864093424, 2,
}

// cell tells, for one of sixteen equal parts of a power of two, the bucket at
// its beginning and the mantissa after which the next bucket starts. A cell is
// 1/16 wide and the narrowest bucket 0.09, so one edge per cell is enough.
type cell struct {
	base int64  // bucket within the power of two: 0 … 7
	edge uint64 // mantissas above this one belong to base+1
}

const (
	mantBits = 52
	mantMask = 1<<mantBits - 1
	cellBits = 4
)

var cells = makeCells()

func makeCells() (cs [1 << cellBits]cell) {
	const width = 1 << (mantBits - cellBits)
	for i := range cs {
		first := uint64(i) * width
		// Powers of two themselves are the last of the bucket before.
		cs[i] = cell{base: 0, edge: 0}
		if i == 0 {
			continue
		}
		base := int64(1)
		for _, bound := range octave[:perOct-1] {
			edge := math.Float64bits(bound) & mantMask
			if edge >= first {
				break
			}
			base++
		}
		cs[i].base = base
		cs[i].edge = mantMask
		if base < perOct {
			cs[i].edge = math.Float64bits(octave[base-1]) & mantMask
		}
	}
	return cs
}

// bucketOf gives the index of the bucket that took falls into. It needs no
// logarithm: the exponent of the seconds as a float gives the power of two, the
// top of the mantissa a cell, and one comparison the bucket.
//
// Multiplying by 1e-9 instead of dividing may be off in the last bit, but not
// across an edge: those at powers of two are exact, the others are irrational
// and no whole number of nanoseconds is near enough (a test checks each edge).
func bucketOf(took time.Duration) int {
	if took <= 0 {
		return 0
	}
	bits := math.Float64bits(float64(took) * 1e-9)
	mant := bits & mantMask
	c := &cells[mant>>(mantBits-cellBits)]
	over := int64((c.edge - mant) >> 63) // 1 where mant > edge
	exp := int64(bits>>mantBits) - 1023
	return int(exp*perOct + c.base + over - minKey + 1)
}

// keyOf is the native histogram's key of a bucket index above 0.
func keyOf(index int) int { return index + minKey - 1 }
