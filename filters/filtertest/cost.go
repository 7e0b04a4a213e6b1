package filtertest

import (
	"maps"
	"slices"
	"testing"

	"sluice/block"
)

// NoAllocations asserts that requests to a filter on RAM allocate nothing, and
// closes it.
func NoAllocations(t *testing.T, d block.Device) {
	t.Helper()
	defer Close(t, d)
	r, ctx := block.Resolve(d), t.Context()
	p, room := make([]byte, 4096), make([]block.Extent, 0, 8)
	if n := testing.AllocsPerRun(1000, func() {
		if d.WriteAt(ctx, p, 4096, 0) != nil || d.ReadAt(ctx, p, 4096) != nil || d.Flush(ctx) != nil ||
			r.Nowaiter.ReadNowait(p, 4096) != nil || r.Zeroer.WriteZeroes(ctx, 4096, 4096, 0) != nil {
			t.Error("failed")
		}
		if _, err := r.Extenter.Extents(ctx, 0, 4096, room); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRead compares small reads of RAM itself ("bare") with such under the
// filter, each way, from one goroutine and from many ("NAME/parallel").
func (w Ways) BenchmarkRead(b *testing.B) {
	b.Helper()
	benchmarkRead(b, "bare", NewMem(b, suiteSize))
	for _, name := range slices.Sorted(maps.Keys(w)) {
		benchmarkRead(b, name, w[name](NewMem(b, suiteSize)))
	}
}

func benchmarkRead(b *testing.B, name string, d block.Device) {
	b.Helper()
	defer Close(b, d)
	b.Run(name, func(b *testing.B) {
		p, ctx := make([]byte, 512), b.Context()
		b.ReportAllocs()
		for b.Loop() {
			if err := d.ReadAt(ctx, p, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			p, ctx := make([]byte, 512), b.Context()
			for pb.Next() {
				if err := d.ReadAt(ctx, p, 0); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
