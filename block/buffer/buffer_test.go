package buffer

import "testing"

func TestGetGivesLengthAndAlignment(t *testing.T) {
	for _, n := range []int{0, 1, 28, 4096, 4097, 64 << 10, 1 << 20, 32 << 20, 32<<20 + 1} {
		b := Get(n)
		if len(b.B) != n {
			t.Errorf("Get(%d): length %d", n, len(b.B))
		}
		if n > 0 && misaligned(b.whole) != 0 {
			t.Errorf("Get(%d): not on a page boundary", n)
		}
		b.Release()
	}
}

func TestReleaseTwicePanicsInInvariantBuilds(t *testing.T) {
	if !invariants {
		b := Get(1)
		b.Release()
		return
	}
	b := Get(1)
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	b.Release()
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if invariants {
		return // the race detector's sync.Pool drops items at random
	}
	Get(4096).Release()
	if n := testing.AllocsPerRun(1000, func() { Get(4096).Release() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
