package filtertest

import (
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
