package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/gateway/spec"
)

// An exchange under a client that writes and verifies, on one connection.
func TestExchange(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: "mem://256K"})
	c := h.dial("a")
	var stop atomic.Bool
	var load sync.WaitGroup
	load.Go(func() {
		for n := 0; !stop.Load() && !t.Failed(); n++ {
			p := bytes.Repeat([]byte{byte(n)}, 4096)
			off := int64(n%64) << 12
			mustWrite(t, c, off, p)
			mustRead(t, c, off, p)
		}
	})
	for range 200 {
		err := h.Exchange(t.Context(), "a", func(ctx context.Context, old block.Device, _ func(Image) error) (block.Device, error) {
			next, err := mem.New(old.Info().Size)
			if err != nil {
				return nil, err
			}
			p := make([]byte, old.Info().Size)
			return next, errors.Join(old.ReadAt(ctx, p, 0), next.WriteAt(ctx, p, 0, 0), old.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	load.Wait()
	kindIs(t, "an export that is not there", h.Exchange(t.Context(), "b", nil), block.NotFound)
}

func TestResize(t *testing.T) {
	h := newHouse(t, nil)
	path := h.image("a.img", 1)
	h.add(spec.Spec{Name: "a", URL: path})
	before := h.dial("a")
	for _, size := range []int64{3 << 20, 1 << 20, 2 << 20} {
		st, err := h.Gateway.Resize(t.Context(), "a", size)
		if err != nil || st.Size != size {
			t.Errorf("resize to %d: %+v, %v", size, st, err)
		}
		if got := h.dial("a").Info().Size; got != size {
			t.Errorf("the next client sees %d, want %d", got, size)
		}
	}
	mustWrite(t, before, 1<<20-5, []byte("early"))
	mustRead(t, h.dial("a"), 1<<20-5, []byte("early"))
	if st, err := os.Stat(path); err != nil || st.Size() != 2<<20 {
		t.Errorf("the file: %v, %v", st, err)
	}
	_, err := h.Gateway.Resize(t.Context(), "a", -1)
	kindIs(t, "a negative size", err, block.Invalid)
	h.add(spec.Spec{Name: "r", URL: h.image("r.img", 1), ReadOnly: true})
	_, err = h.Gateway.Resize(t.Context(), "r", 1<<21)
	kindIs(t, "a read-only export", err, block.ReadOnly)
}

// An outage of the storage of one export: its client waits and sees no error, the
// state tells, and it goes on when the storage is back.
func TestHold(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.AllowFaults = true })
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
	h.add(spec.Spec{Name: "b", URL: "mem://1M"})
	a, b := h.dial("a"), h.dial("b")
	mustWrite(t, a, 0, []byte("before"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := h.Subscribe(ctx, 0)
	if _, err := h.Change(t.Context(), "a", spec.Settings{Faults: []string{"any:error=transient"}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.WriteAt(t.Context(), []byte("during"), 100, 0) }()
	waitFor(t, "the hold", func() bool { st, _ := h.Show("a"); return st.State == Held && st.HeldNow == 1 })
	mustWrite(t, b, 0, []byte("neighbour"))
	if st, _ := h.Show("b"); st.State != Serving {
		t.Errorf("the neighbour: %+v", st)
	}
	select {
	case err := <-done:
		t.Fatalf("the write ended while the storage was away: %v", err)
	default:
	}
	if _, err := h.Change(t.Context(), "a", spec.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the write: %v", err)
	}
	mustRead(t, a, 100, []byte("during"))
	mustRead(t, a, 0, []byte("before"))
	waitFor(t, "the state", func() bool { st, _ := h.Show("a"); return st.State == Serving && st.Error == "" })
	var states []State
	for ev := range events {
		if ev.Kind == ExportState {
			states = append(states, ev.Status.State)
		}
		if len(states) == 2 {
			break
		}
	}
	if fmt.Sprint(states) != "[held serving]" {
		t.Errorf("events told of %v", states)
	}
}

// A storage that is away for good does not keep the gateway from ending.
func TestCloseWhileHeld(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.AllowFaults, c.DrainTimeout = true, 200*time.Millisecond })
	h.add(spec.Spec{Name: "a", URL: "mem://1M", Settings: spec.Settings{Faults: []string{"any:error=transient"}}})
	a := h.dial("a")
	done := make(chan error, 1)
	go func() { done <- a.WriteAt(t.Context(), []byte("x"), 0, 0) }()
	waitFor(t, "the hold", func() bool { st, _ := h.Show("a"); return st.State == Held })
	h.open = false
	begin := time.Now()
	err := h.Close(context.Background())
	if err == nil {
		t.Error("an image that could not be flushed was closed without a word")
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := errors.Join(<-h.serving, h.state.Close()); err != nil {
		t.Error(err)
	}
	_ = a.Close()
	<-done
}

func TestThrottleAtRunTime(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
	c := h.dial("a")
	p := make([]byte, 4096)
	if _, err := h.Change(t.Context(), "a", spec.Settings{Throttle: spec.Throttle{ReadIOPS: 100}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 60 {
		mustRead(t, c, 0, p)
	}
	if took := time.Since(begin); took < 400*time.Millisecond {
		t.Errorf("60 reads at 100 a second took %v", took)
	}
	if _, err := h.Change(t.Context(), "a", spec.Settings{Throttle: spec.Throttle{ReadIOPS: -1}}); block.KindOf(err) != block.Invalid {
		t.Errorf("a negative rate: %v", err)
	}
	if st, _ := h.Show("a"); st.Spec.Throttle.ReadIOPS != 100 {
		t.Errorf("a refused change has changed %+v", st.Spec)
	}
}
