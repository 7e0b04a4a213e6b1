package v4

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/backends/nfs/rpc"
	"sluice/block"
)

func newSlotCalls(int) (*rpc.Transport, *rpc.Call) { return nil, new(rpc.Call) }

func newSlots(granted int) *slots {
	s := new(slots)
	s.init(newSlotCalls)
	s.grant(granted)
	return s
}

func (s *slots) must(t *testing.T) *slot {
	t.Helper()
	sl, err := s.acquire(t.Context(), how{})
	if err != nil {
		t.Fatal(err)
	}
	return sl
}

// waitFor blocks until n callers wait for a slot.
func (s *slots) waitFor(n int) {
	for {
		s.mu.Lock()
		waiting := len(s.waiting)
		s.mu.Unlock()
		if waiting == n {
			return
		}
	}
}

func TestLowestSlotFirst(t *testing.T) {
	s := newSlots(4)
	a, b := s.must(t), s.must(t)
	if a.id != 0 || b.id != 1 || b.highest != 1 {
		t.Fatalf("slots %d and %d, highest %d", a.id, b.id, b.highest)
	}
	s.release(a)
	if c := s.must(t); c.id != 0 || c.highest != 1 {
		t.Fatalf("slot %d, highest %d; want 0 and 1", c.id, c.highest)
	}
}

func TestSlotsAreHandedOnInOrder(t *testing.T) {
	s := newSlots(1)
	held := s.must(t)
	order := make(chan string, 3)
	var all sync.WaitGroup
	for i, name := range []string{"first", "second", "keeper"} {
		all.Go(func() {
			sl, err := s.acquire(context.Background(), how{first: name == "keeper"})
			if err != nil {
				t.Error(err)
				return
			}
			order <- name
			s.release(sl)
		})
		s.waitFor(i + 1)
	}
	s.release(held)
	all.Wait()
	for _, want := range []string{"keeper", "first", "second"} {
		if got := <-order; got != want {
			t.Errorf("%s came where %s was due", got, want)
		}
	}
}

func TestSlotsTakenBackAreNotHandedOut(t *testing.T) {
	s := newSlots(3)
	held := []*slot{s.must(t), s.must(t), s.must(t)}
	s.grant(1)
	s.release(held[2])
	s.release(held[1])
	got := make(chan *slot)
	go func() {
		sl, _ := s.acquire(context.Background(), how{})
		got <- sl
	}()
	s.waitFor(1)
	s.release(held[0])
	if sl := <-got; sl.id != 0 {
		t.Fatalf("slot %d was handed out, 1 is granted", sl.id)
	}
	s.grant(3)
	if sl := s.must(t); sl.id != 1 {
		t.Fatalf("slot %d, want 1 again", sl.id)
	}
}

func TestMoreSlotsWakeThoseWhoWait(t *testing.T) {
	s := newSlots(1)
	s.must(t)
	got := make(chan *slot)
	go func() {
		sl, _ := s.acquire(context.Background(), how{})
		got <- sl
	}()
	s.waitFor(1)
	s.grant(2)
	if sl := <-got; sl.id != 1 {
		t.Fatalf("slot %d, want 1", sl.id)
	}
}

func TestWaitingForASlotEnds(t *testing.T) {
	s := newSlots(1)
	held := s.must(t)
	ctx, cancel := context.WithCancel(t.Context())
	closing := make(chan struct{})
	errs := make(chan error, 3)
	go func() {
		_, err := s.acquire(ctx, how{})
		errs <- err
	}()
	s.waitFor(1)
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() {
		_, err := s.acquire(context.Background(), how{closing: closing})
		errs <- err
	}()
	s.waitFor(1)
	close(closing)
	if err := <-errs; !errors.Is(err, block.Closed) {
		t.Error(err)
	}
	go func() {
		_, err := s.acquire(context.Background(), how{})
		errs <- err
	}()
	s.waitFor(1)
	s.close()
	if err := <-errs; !errors.Is(err, block.Closed) {
		t.Error(err)
	}
	s.release(held)
	if _, err := s.acquire(t.Context(), how{}); !errors.Is(err, block.Closed) {
		t.Error(err)
	}
}

// No slot is ever two callers', and none is lost, whoever gives up when.
func TestSlotsUnderLoad(t *testing.T) {
	s := newSlots(8)
	var owners [maxSlots]atomic.Int32
	var all sync.WaitGroup
	for w := range 32 {
		rng := rand.New(rand.NewPCG(1, uint64(w)))
		all.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(4) == 0 {
					go cancel()
				}
				sl, err := s.acquire(ctx, how{first: rng.IntN(10) == 0})
				cancel()
				if err != nil {
					continue
				}
				if owners[sl.id].Add(1) != 1 {
					t.Error("two own one slot")
				}
				if rng.IntN(50) == 0 {
					s.grant(1 + rng.IntN(maxSlots))
				}
				owners[sl.id].Add(-1)
				s.release(sl)
			}
		})
	}
	all.Wait()
	if s.free != ^uint64(0) || len(s.waiting) != 0 {
		t.Errorf("free %x, %d waiting", s.free, len(s.waiting))
	}
}

func TestSlotsAllocateNothing(t *testing.T) {
	s := newSlots(2)
	if n := testing.AllocsPerRun(100, func() { s.release(s.must(t)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
