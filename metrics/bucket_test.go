package metrics

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"sluice/block"
	"sluice/nbd"
)

// exact is the duration, in nanoseconds, up to which client_golang is right to
// the nanosecond (13 days). Further on, float64 seconds are too coarse to tell
// on which side of an edge a duration next to it lies.
const exact = 1 << 50

// TestEdges computes the table of edges anew, with 200 bits.
func TestEdges(t *testing.T) {
	root := new(big.Float).SetPrec(200).SetInt64(2)
	for range schema {
		root.Sqrt(root)
	}
	v := new(big.Float).SetPrec(200).SetUint64(1e9 << 34) // the highest bit is bit 63
	got := make(map[uint64]bool)
	for _, e := range edges {
		got[e] = true
	}
	limit := new(big.Float).SetMantExp(big.NewFloat(1), 64)
	for range perOct {
		for v.Cmp(limit) >= 0 {
			v.Quo(v, big.NewFloat(2))
		}
		want, _ := v.Uint64()
		if !got[want] {
			t.Errorf("no edge %#x", want)
		}
		v.Mul(v, root)
	}
	if len(got) != perOct {
		t.Errorf("%d different edges, want %d", len(got), perOct)
	}
}

func TestBucketOfExtremes(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		want int
	}{
		{math.MinInt64, 0}, {-1, 0}, {0, 0}, {1, 1}, {math.MaxInt64, numBuckets - 1},
		{time.Second, -minKey + 1}, {time.Second + 1, -minKey + 2}, {2 * time.Second, perOct - minKey + 1},
	} {
		if got := bucketOf(c.took); got != c.want {
			t.Errorf("bucketOf(%d) = %d, want %d", c.took, got, c.want)
		}
	}
}

// theirs is client_golang's histogram with the schema and the bounds of ours.
func theirs() prometheus.Histogram {
	var bounds []float64
	for _, exp := range classicExps {
		bounds = append(bounds, math.Ldexp(1, exp))
	}
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:                        "theirs",
		Buckets:                     bounds,
		NativeHistogramBucketFactor: 1.1, // the smallest schema below is 3: 2^(1/8) = 1.0905
	})
}

// written is the histogram as it goes to Prometheus, without what differs by
// intent.
func written(t rapid.TB, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	h := out.GetHistogram()
	h.CreatedTimestamp = nil
	return h
}

// ours gives the histogram of reads.
func (e *Export) ours(op nbd.Op) *histogram {
	h := newHistogram(&byProtocol, [3]string{e.name, protocolNBD, op.String()})
	e.nbd.tally(op).read(&h.snapshot)
	return h
}

// TestEveryEdge compares with client_golang on both sides of each bound up to
// 13 days. Both ways of finding a bucket only ever rise with the duration, so
// agreement at all edges is agreement everywhere.
func TestEveryEdge(t *testing.T) {
	edgesSeen := 0
	for ns := int64(1); ns > 0 && ns < exact; {
		// The last duration of the bucket that ns is the first of.
		lo, hi := ns, ns*2+1
		for hi-lo > 1 {
			if mid := lo + (hi-lo)/2; bucketOf(time.Duration(mid)) == bucketOf(time.Duration(ns)) {
				lo = mid
			} else {
				hi = mid
			}
		}
		for _, d := range []time.Duration{time.Duration(lo), time.Duration(hi)} {
			h := theirs()
			h.Observe(d.Seconds())
			if got, want := keyOf(bucketOf(d)), int(written(t, h).PositiveSpan[0].GetOffset()); got != want {
				t.Fatalf("%d ns has key %d, want %d", d, got, want)
			}
		}
		edgesSeen++
		ns = hi
	}
	if edgesSeen < 50*perOct-20 { // some of the first buckets hold no whole nanosecond
		t.Fatalf("saw %d edges only", edgesSeen)
	}
}

// TestSameAsClientGolang compares whole histograms, native and classic.
func TestSameAsClientGolang(t *testing.T) {
	duration := rapid.Custom(func(t *rapid.T) time.Duration {
		bits := rapid.IntRange(0, 50).Draw(t, "bits")
		return time.Duration(rapid.Int64Range(0, 1<<bits-1).Draw(t, "ns"))
	})
	rapid.Check(t, func(t *rapid.T) {
		e := New(Build{}).Export("x")
		h := theirs()
		var sum time.Duration
		for _, d := range rapid.SliceOfN(duration, 0, 200).Draw(t, "durations") {
			e.Request(nbd.OpRead, 1, d, block.OK)
			h.Observe(d.Seconds())
			sum += d
		}
		got, want := written(t, e.ours(nbd.OpRead)), written(t, h)
		want.SampleSum = new(float64(sum) / 1e9) // theirs gathers rounding errors
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
	})
}
