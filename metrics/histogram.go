package metrics

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// classicExps gives the bounds of the classic histogram, as powers of two in
// seconds: 0.95 us, then by twos from 3.8 us to 31 ms, where storage lives, and
// wider steps up to 64 s. Powers of two are bounds of native buckets as well,
// so both histograms count the same.
var classicExps = [...]int{-20, -18, -17, -16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -3, -1, 1, 3, 6}

// maxGap is how many empty buckets in a row are sent rather than a new span,
// which would take more room.
const maxGap = 2

// histogram is the metric of one operation's durations, native and classic at
// once. client_golang's own cannot be filled from existing counts that way.
type histogram struct {
	snapshot
	desc   *prometheus.Desc
	labels []*dto.LabelPair
}

// newHistogram takes the values of the labels export, the family's own, and op.
func newHistogram(f *family, labels [3]string) *histogram {
	pairs := []*dto.LabelPair{
		{Name: new("export"), Value: &labels[0]},
		{Name: &f.label, Value: &labels[1]},
		{Name: new("op"), Value: &labels[2]},
	}
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return &histogram{desc: f.duration, labels: pairs}
}

// Desc names the metric; see prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write fills in both forms of the histogram; see prometheus.Metric.
func (h *histogram) Write(out *dto.Metric) error {
	out.Label = h.labels
	out.Histogram = &dto.Histogram{
		SampleCount:   new(h.count()),
		SampleSum:     new(h.seconds()),
		Bucket:        h.classic(),
		Schema:        new(int32(schema)),
		ZeroThreshold: new(prometheus.DefNativeHistogramZeroThreshold),
		ZeroCount:     new(h.counts[0]),
	}
	out.Histogram.PositiveSpan, out.Histogram.PositiveDelta = h.native()
	return nil
}

// classic gives the cumulative buckets; the one for +Inf is implied by the
// count.
func (h *histogram) classic() []*dto.Bucket {
	buckets := make([]*dto.Bucket, len(classicExps))
	var sum uint64
	next := 0
	for i, exp := range classicExps {
		for end := exp*perOct - minKey + 2; next < end; next++ {
			sum += h.counts[next]
		}
		buckets[i] = &dto.Bucket{CumulativeCount: new(sum), UpperBound: new(math.Ldexp(1, exp))}
	}
	return buckets
}

// native gives the buckets above zero as Prometheus wants them: runs of
// neighbours, and in them each count as the difference to the one before.
func (h *histogram) native() (spans []*dto.BucketSpan, deltas []int64) {
	var last int64 // the count before
	end := 0       // the key after the last one sent
	send := func(n int64) {
		*spans[len(spans)-1].Length++
		deltas = append(deltas, n-last)
		last = n
	}
	for i := 1; i < numBuckets; i++ {
		if h.counts[i] == 0 {
			continue
		}
		gap := keyOf(i) - end
		if spans == nil || gap > maxGap {
			spans = append(spans, &dto.BucketSpan{Offset: new(int32(gap)), Length: new(uint32(0))})
		} else {
			for range gap {
				send(0)
			}
		}
		send(int64(h.counts[i]))
		end = keyOf(i) + 1
	}
	return spans, deltas
}
