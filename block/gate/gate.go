// Package gate counts the calls that use a resource, so that closing it can
// wait for them.
//
// Devices call it on their data path: Enter and Leave are one atomic addition
// each, allocate nothing and never block. Only Close waits. The count is the
// only state; no lock is held while a call is inside.
package gate

import (
	"math"
	"sync"
	"sync/atomic"
)

// shut is added to the count by Close. Half of the smallest number leaves room
// for any number of callers on either side of it.
const shut = math.MinInt64 / 2

// Gate lets calls in until it is closed. The zero value is open.
type Gate struct {
	inside atomic.Int64 // callers inside; plus shut once closed
	once   sync.Once
	idle   chan struct{} // made before shut is added, read only after it
}

// Enter lets a call in, which must Leave once; false means that the gate is
// closed, and there is nothing to leave.
func (g *Gate) Enter() bool {
	if g.inside.Add(1) > 0 {
		return true
	}
	g.Leave()
	return false
}

// Leave ends what Enter began.
func (g *Gate) Leave() {
	if g.inside.Add(-1) == shut {
		select {
		case g.idle <- struct{}{}:
		default:
		}
	}
}

// Close lets nobody in any more, waits until all have left, runs free and
// returns what that returned. A second Close waits for the first and returns
// nil.
func (g *Gate) Close(free func() error) error {
	var err error
	g.once.Do(func() {
		g.idle = make(chan struct{}, 1)
		g.inside.Add(shut)
		for g.inside.Load() != shut {
			<-g.idle
		}
		err = free()
	})
	return err
}

// Inside is how many calls are in progress: what a test can wait for where they
// all wait for a lock.
func (g *Gate) Inside() int64 {
	n := g.inside.Load()
	if n < 0 {
		n -= shut
	}
	return n
}
