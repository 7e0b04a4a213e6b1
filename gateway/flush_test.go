package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/filters/hold"
	"sluice/filters/swap"
	"sluice/gateway/spec"
)

// slow is a device whose flushes take their time. It is away for the first few of
// them, and may be full.
type slow struct {
	*mem.Device
	takes time.Duration
	away  int
	full  bool
}

func (s *slow) Flush(ctx context.Context) error {
	if s.away > 0 {
		s.away--
		return block.Transient
	}
	select {
	case <-time.After(s.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if s.full {
		return block.NoSpace
	}
	return s.Device.WriteAt(ctx, p, off, flags)
}

// released ends an export of that device, in a bubble, and gives what it ended with
// and how long that took. before comes first.
func released(t *testing.T, dev *slow, tune Tuning, before func(*stack)) (took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var e error
		if dev.Device, e = mem.New(1 << 20); e != nil {
			t.Fatal(e)
		}
		g := New(Config{Tuning: tune})
		x := newExport(g, spec.Spec{Name: "x"}, FromAPI, 1)
		st := &stack{image: swap.New(dev)}
		st.layers = layering{name: "x", changed: x.changed, log: g.cfg.Log}.build(st.image)
		st.hold.SetPolicy(hold.Policy{NoSpace: true})
		before(st)
		begin := time.Now()
		err = x.release(t.Context(), st)
		took = time.Since(begin)
		g.cancel()
		synctest.Wait()
	})
	return took, err
}

func nothing(*stack) {}

// A storage that is back is given the time that a flush may take, not the second of
// one that is away.
func TestLastFlushOfAStorageThatIsBack(t *testing.T) {
	for _, limit := range []time.Duration{0, 10 * time.Second} {
		took, err := released(t, &slow{takes: 5 * time.Second, away: 1}, Tuning{DrainTimeout: limit}, nothing)
		if err != nil || took < 5*time.Second || took > 6*time.Second {
			t.Errorf("limit %v: %v after %v", limit, err, took)
		}
	}
}

// A storage that is full is not away.
func TestLastFlushOfAStorageThatIsFull(t *testing.T) {
	took, err := released(t, &slow{takes: 5 * time.Second, full: true}, Tuning{DrainTimeout: 10 * time.Second}, func(st *stack) {
		go func() { _ = st.top.WriteAt(context.Background(), []byte("x"), 0, 0) }()
		synctest.Wait()
		if now := st.hold.State(); now.Status != hold.Held {
			t.Errorf("%+v", now)
		}
	})
	if err != nil || took != 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// A storage that stays away, or does not answer when it seems to be back, does not
// keep the export from ending.
func TestLastFlushOfAStorageThatIsAway(t *testing.T) {
	took, err := released(t, &slow{away: 1 << 30}, Tuning{}, nothing)
	kindIs(t, "away for good", err, block.Transient)
	if took > 2*patienceHeld {
		t.Errorf("it took %v", took)
	}
	took, err = released(t, &slow{takes: 1000 * time.Hour, away: 1}, Tuning{}, nothing)
	kindIs(t, "no answer", err, block.Canceled)
	if took > patienceHeld+flushLimit {
		t.Errorf("it took %v", took)
	}
}
