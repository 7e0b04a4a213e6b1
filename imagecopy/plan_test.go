package imagecopy

import (
	"slices"
	"testing"

	"sluice/block"
)

func TestNextRun(t *testing.T) {
	data := func(n int) []byte { return slices.Repeat([]byte{1}, n) }
	none := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		p     []byte
		grain int64
		n     int
		zero  bool
	}{
		{data(8192), 4096, 8192, false},
		{none(8192), 4096, 8192, true},
		{none(100), 4096, 100, true},
		{slices.Concat(none(4096), data(1)), 4096, 4096, true},
		{slices.Concat(none(4095), data(1)), 4096, 4096, false},
		{slices.Concat(data(1), none(8191)), 4096, 4096, false},
		{slices.Concat(data(4096), none(100)), 4096, 4096, false},
		{none(8192), 0, 8192, false},
		{slices.Concat(none(200<<10), data(512)), 512, 200 << 10, true},
		{nil, 4096, 0, false},
	} {
		if n, zero := nextRun(c.p, c.grain); n != c.n || zero != c.zero {
			t.Errorf("%d bytes, grain %d: run of %d, zero %v; want %d, %v", len(c.p), c.grain, n, zero, c.n, c.zero)
		}
	}
}

func TestPlanner(t *testing.T) {
	const k = 4096
	for name, c := range map[string]struct {
		extents []block.Extent
		want    []job
	}{
		"one":          {[]block.Extent{{Len: 3 * k}}, []job{{0, 3 * k, false}}},
		"cut":          {[]block.Extent{{Len: 5 * k}}, []job{{0, 4 * k, false}, {4 * k, k, false}}},
		"joined":       {[]block.Extent{{Len: k}, {Len: k, State: block.Hole}}, []job{{0, 2 * k, false}}},
		"aligned":      {[]block.Extent{{Len: k}, {Len: k, State: block.Zero}}, []job{{0, k, false}, {k, k, true}}},
		"data rounded": {[]block.Extent{{Len: 1}, {Len: 2*k - 1, State: block.Zero}}, []job{{0, k, false}, {k, k, true}}},
		"zero rounded": {[]block.Extent{{Len: 2*k - 1, State: block.Zero}, {Len: 1}}, []job{{0, k, true}, {k, k, false}}},
		"small zero":   {[]block.Extent{{Len: 10}, {Len: 10, State: block.Zero}, {Len: k - 20}}, []job{{0, k, false}}},
		"odd end":      {[]block.Extent{{Len: k}, {Len: 17, State: block.Zero}}, []job{{0, k, false}, {k, 17, true}}},
		"odd data":     {[]block.Extent{{Len: k, State: block.Zero}, {Len: 17}}, []job{{0, k, true}, {k, 17, false}}},
		"odd mixture":  {[]block.Extent{{Len: k + 1}, {Len: 16, State: block.Zero}}, []job{{0, k + 17, false}}},
		"small data":   {[]block.Extent{{Len: k + 5, State: block.Zero}, {Len: 5}, {Len: 2*k - 10, State: block.Zero}}, []job{{0, k, true}, {k, k, false}, {2 * k, k, true}}},
	} {
		var jobs []job
		p := planner{align: k, piece: 4 * k, emit: func(j job) error { jobs = append(jobs, j); return nil }}
		for _, e := range c.extents {
			p.size += e.Len
		}
		for _, e := range c.extents {
			if err := p.add(e.Len, e.State&block.Zero != 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.flush(); err != nil || !slices.Equal(jobs, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, jobs, err, c.want)
		}
	}
}
