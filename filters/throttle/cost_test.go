package throttle

import (
	"context"
	"testing"
	"time"

	"sluice/filters/filtertest"
)

func TestRequestsAllocateNothing(t *testing.T) {
	p := make([]byte, 4096)
	for name, c := range map[string]struct {
		limits Limits
		waits  bool
	}{
		"no limits":   {},
		"not reached": {Limits{Read: Rate{IOPS: 1e9}, Write: Rate{Bytes: 1e15}}, false},
		"waiting":     {Limits{Read: Rate{IOPS: 400, Burst: 1}, Write: Rate{IOPS: 20_000, Burst: 1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, 1<<20, c.limits)
			defer filtertest.Close(t, d)
			cancellable, cancel := context.WithCancel(ctx)
			defer cancel()
			if n := testing.AllocsPerRun(200, func() {
				if d.WriteAt(cancellable, p, 0, 0) != nil || d.ReadAt(cancellable, p, 0) != nil || d.WriteZeroes(cancellable, 0, 4096, 0) != nil {
					t.Error("failed")
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if s := d.Stats(); c.waits != (s.Read.Requests > 100 && s.Read.Time > time.Millisecond) {
				t.Errorf("waited: %+v", s)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	far := Limits{Read: Rate{IOPS: 1e12, Bytes: 1e18}}
	filtertest.Ways{"no-limits": under(Limits{}), "not-reached": under(far)}.BenchmarkRead(b)
}
