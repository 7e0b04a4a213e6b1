package blocktest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// InjectorFunc is a function as an Injector.
type InjectorFunc func(op Op) error

// MaybeError calls the function.
func (f InjectorFunc) MaybeError(op Op) error { return f(op) }

// Never lets every call pass.
func Never() Injector { return InjectorFunc(func(Op) error { return nil }) }

// Always fails every call with err.
func Always(err error) Injector { return InjectorFunc(func(Op) error { return err }) }

// Any asks each injector in turn; the first error counts.
func Any(injectors ...Injector) Injector {
	return InjectorFunc(func(op Op) error {
		for _, in := range injectors {
			if err := in.MaybeError(op); err != nil {
				return err
			}
		}
		return nil
	})
}

// On asks in about calls of these kinds only.
func On(in Injector, kinds ...OpKind) Injector {
	return InjectorFunc(func(op Op) error {
		if !slices.Contains(kinds, op.Kind) {
			return nil
		}
		return in.MaybeError(op)
	})
}

// OnRange asks in about calls that touch the n bytes at off only.
func OnRange(off, n int64, in Injector) Injector {
	return InjectorFunc(func(op Op) error {
		if op.Off >= off+n || op.Off+op.N <= off {
			return nil
		}
		return in.MaybeError(op)
	})
}

// Nth asks in about one of the calls that reach it only: n is 1 for the first.
// Put it inside On or OnRange to count their calls alone.
func Nth(n int64, in Injector) Injector {
	var count atomic.Int64
	return InjectorFunc(func(op Op) error {
		if count.Add(1) != n {
			return nil
		}
		return in.MaybeError(op)
	})
}

// Delay makes calls take d longer.
func Delay(d time.Duration) Injector {
	return InjectorFunc(func(Op) error {
		time.Sleep(d)
		return nil
	})
}

// Toggle asks its Injector while it is on. It begins switched off.
type Toggle struct {
	in Injector
	on atomic.Bool
}

// NewToggle makes a Toggle around in.
func NewToggle(in Injector) *Toggle { return &Toggle{in: in} }

// On switches it on.
func (g *Toggle) On() { g.on.Store(true) }

// Off switches it off.
func (g *Toggle) Off() { g.on.Store(false) }

// MaybeError asks the Injector inside while switched on.
func (g *Toggle) MaybeError(op Op) error {
	if !g.on.Load() {
		return nil
	}
	return g.in.MaybeError(op)
}

// Gate holds calls until it is opened. It begins shut. A test that shuts a Gate
// must open it before it closes the Device below, which waits for the calls.
type Gate struct {
	mu      sync.Mutex
	opened  chan struct{} // closed when the gate is open
	err     error
	waiting int
	arrived chan struct{} // closed and replaced when a call arrives
}

// NewGate makes a Gate that is shut.
func NewGate() *Gate {
	return &Gate{opened: make(chan struct{}), arrived: make(chan struct{})}
}

// MaybeError waits until the gate is open and returns the error it was opened
// with.
func (g *Gate) MaybeError(Op) error {
	g.mu.Lock()
	opened := g.opened
	if !isDone(opened) {
		g.waiting++
		close(g.arrived)
		g.arrived = make(chan struct{})
		g.mu.Unlock()
		<-opened
		g.mu.Lock()
		g.waiting--
	}
	defer g.mu.Unlock()
	return g.err
}

// Open lets the waiting calls and all later ones through: they pass where err
// is nil and fail with it otherwise.
func (g *Gate) Open(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	if !isDone(g.opened) {
		close(g.opened)
	}
}

// Shut holds later calls again.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if isDone(g.opened) {
		g.opened = make(chan struct{})
	}
	g.err = nil
}

// Await returns when at least n calls wait at the gate, or when ctx is over.
func (g *Gate) Await(ctx context.Context, n int) error {
	for {
		g.mu.Lock()
		enough, arrived := g.waiting >= n, g.arrived
		g.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
