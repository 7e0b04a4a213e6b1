package gate

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCloseWaitsForThoseInside(t *testing.T) {
	var g Gate
	if !g.Enter() {
		t.Fatal("an open gate let nobody in")
	}
	var left atomic.Bool
	closed := make(chan error)
	go func() {
		closed <- g.Close(func() error {
			if !left.Load() {
				return errors.New("freed while a caller was inside")
			}
			return nil
		})
	}()
	for g.Enter() { // until Close has begun
		g.Leave()
	}
	left.Store(true)
	g.Leave()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if g.Enter() {
		t.Error("a closed gate let somebody in")
	}
}

func TestSecondCloseReturnsNil(t *testing.T) {
	var g Gate
	fail := errors.New("first")
	if err := g.Close(func() error { return fail }); err != fail {
		t.Errorf("got %v", err)
	}
	if err := g.Close(func() error { return fail }); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestCrowdAtTheGate(t *testing.T) {
	for range 20 {
		var g Gate
		var freed atomic.Bool
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for g.Enter() {
					if freed.Load() {
						t.Error("inside after the resource was freed")
					}
					g.Leave()
				}
			})
		}
		wg.Go(func() {
			_ = g.Close(func() error { freed.Store(true); return nil })
		})
		wg.Wait()
	}
}

func BenchmarkEnterLeave(b *testing.B) {
	var g Gate
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Enter()
			g.Leave()
		}
	})
}
