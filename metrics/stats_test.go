package metrics

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/block"
	"sluice/nbd"
)

func TestStats(t *testing.T) {
	e := New(Build{}).Export("x")
	if got := e.Stats(); got != nil {
		t.Errorf("of an export that nobody used: %v", got)
	}
	for range 99 {
		e.Request(nbd.OpRead, 4096, time.Millisecond, block.OK)
	}
	e.Request(nbd.OpRead, 4096, time.Second, block.IO)
	e.InFlight(nbd.OpFlush, 2)
	e.FUSE().Request(nbd.OpWrite, 512, 0, block.NoSpace)
	e.Layer("storage").Request(nbd.OpRead, 1, 1, block.OK) // not the clients'
	var got []string
	for _, s := range e.Stats() {
		got = append(got, fmt.Sprintf("%s %s: %d requests, %d bytes, %d errors, %v, %d in flight",
			s.Protocol, s.Op, s.Requests, s.Bytes, s.Errors, s.Time, s.InFlight))
	}
	want := []string{
		"nbd read: 100 requests, 409600 bytes, 1 errors, 1.099s, 0 in flight",
		"nbd flush: 0 requests, 0 bytes, 0 errors, 0s, 2 in flight",
		"fuse write: 1 requests, 512 bytes, 1 errors, 0s, 0 in flight",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	s := e.Stats()[0]
	if s.P50 < 900*time.Microsecond || s.P50 > 1100*time.Microsecond || s.P99 < 900*time.Microsecond || s.P99 > 1100*time.Microsecond {
		t.Errorf("p50 %v, p99 %v", s.P50, s.P99)
	}
	for range 10 {
		e.Request(nbd.OpRead, 4096, time.Second, block.OK)
	}
	if s := e.Stats()[0]; s.P99 < 900*time.Millisecond || s.P99 > 1100*time.Millisecond {
		t.Errorf("p99 %v", s.P99)
	}
}

// TestQuantiles compares with sorted durations: a quantile lies in the bucket of
// the duration that it stands for.
func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(1<<12, 1<<45), 1, 300).Draw(t, "durations")
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		e := New(Build{}).Export("x")
		for _, d := range all {
			e.Request(nbd.OpRead, 0, time.Duration(d), block.OK)
		}
		slices.Sort(all)
		rank := q * float64(len(all))
		want := time.Duration(all[max(int(math.Ceil(rank)), 1)-1])
		got := e.ours(nbd.OpRead).quantile(q)
		if d := bucketOf(got) - bucketOf(want); d < -1 || d > 1 { // the edge itself may round to either side
			t.Fatalf("quantile %v of %d durations is %v, the exact one %v", q, len(all), got, want)
		}
	})
}

// TestExtremeQuantiles: neither the shortest nor the longest duration overflows.
func TestExtremeQuantiles(t *testing.T) {
	for _, d := range []time.Duration{math.MinInt64, 0, 1, math.MaxInt64} {
		e := New(Build{}).Export("x")
		e.Request(nbd.OpRead, 0, d, block.OK)
		if s := e.Stats()[0]; s.P50 < 0 || s.P99 < s.P50 || s.Time < 0 || d <= 0 && s.P99 != 0 {
			t.Errorf("%d: %+v", d, s)
		}
	}
}

// TestSpread: requests from nobody in particular are counted once each, wherever
// they come from.
func TestSpread(t *testing.T) {
	e := New(Build{}).Export("x")
	f := e.FUSE()
	if a := e.Layer("a"); f != e.FUSE() || e.Layer("a") != a || e.Layer("b") == a {
		t.Fatal("the same name gave two, or two names the same")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10_000 {
				f.InFlight(nbd.OpRead, 1)
				f.Request(nbd.OpRead, 10, time.Microsecond, block.OK)
				f.InFlight(nbd.OpRead, -1)
			}
		})
	}
	for range 20 {
		_ = e.Stats()
	}
	wg.Wait()
	s := e.Stats()
	if len(s) != 1 || s[0].Requests != 80_000 || s[0].Bytes != 800_000 || s[0].InFlight != 0 {
		t.Errorf("%+v", s)
	}
	if n := testing.AllocsPerRun(10_000, func() {
		f.InFlight(nbd.OpRead, 1)
		f.Request(nbd.OpRead, 4096, 4*time.Microsecond, block.OK)
		f.Pinned(1)
		f.InFlight(nbd.OpRead, -1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
