package report

import "sort"

// Stat summarises one figure over the repetitions of a run.
type Stat struct {
	N                int
	Median, Min, Max float64
}

// Summarise returns the statistics of xs; N is 0 when xs is empty.
func Summarise(xs []float64) Stat {
	if len(xs) == 0 {
		return Stat{}
	}
	s := append([]float64(nil), xs...)
	sort.Float64s(s)
	return Stat{N: len(s), Median: median(s), Min: s[0], Max: s[len(s)-1]}
}

// median takes sorted values, at least one.
func median(s []float64) float64 {
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// HalfSpread returns half the distance of the extremes as a fraction of the median.
func (s Stat) HalfSpread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / 2 / s.Median
}

// Figure picks one number of a sample.
type Figure func(Sample, Unit) float64

// The figures that the tables show.
var (
	Rate        Figure = Sample.Rate
	Cost        Figure = Sample.Cost
	BackendCost Figure = Sample.BackendCost
	MachineCost Figure = Sample.MachineCost
	P50         Figure = func(s Sample, _ Unit) float64 { return s.P50us }
	P99         Figure = func(s Sample, _ Unit) float64 { return s.P99us }
	RSS         Figure = func(s Sample, _ Unit) float64 { return float64(s.RSSBytes) / (1 << 20) }
)

// Stat summarises a figure of one server under one workload over the repetitions that succeeded.
func (r *Report) Stat(server string, w Workload, f Figure) Stat {
	var xs []float64
	for _, s := range r.samples(server, w.Name) {
		xs = append(xs, f(s, w.Unit))
	}
	return Summarise(xs)
}

// Choose tells which of several peers' figures counts in a ratio.
type Choose func(a, b float64) float64

// Ratio summarises "server / peer" of a figure, computed within each repetition, so that a slow spell of the machine
// hits both sides. With several peers choose (for instance the built-in max) names the one that counts in each
// repetition; repetitions in which any of the sides failed are left out.
func (r *Report) Ratio(server string, peers []string, w Workload, f Figure, choose Choose) Stat {
	ours := r.samples(server, w.Name)
	var xs []float64
	for rep, s := range ours {
		peer, ok := r.bestPeer(peers, w, rep, f, choose)
		if ok && peer > 0 {
			xs = append(xs, f(s, w.Unit)/peer)
		}
	}
	return Summarise(xs)
}

func (r *Report) bestPeer(peers []string, w Workload, rep int, f Figure, choose Choose) (float64, bool) {
	var best float64
	for i, p := range peers {
		s, ok := r.samples(p, w.Name)[rep]
		if !ok {
			return 0, false
		}
		v := f(s, w.Unit)
		if i == 0 {
			best = v
		} else {
			best = choose(best, v)
		}
	}
	return best, len(peers) > 0
}
