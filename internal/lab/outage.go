package lab

import (
	"fmt"
	"time"
)

// outage is one restart of a guest's server as the guest saw it.
type outage struct {
	waited time.Duration // the longest cycle meanwhile
	away   time.Duration // how long it took to end the server and start it
}

func (o outage) String() string {
	return fmt.Sprintf("%v (%v away)", o.waited, o.away.Round(time.Millisecond))
}

// beyond is how much longer the guest waited than the server was away, of which the
// guest's own work is no part. A slow machine makes all three longer.
func (o outage) beyond(typical time.Duration) time.Duration { return o.waited - o.away - typical }

// outages are some of one kind, at least one.
type outages []outage

const (
	// qemuPause is how long QEMU waits after it has found nobody at the other end of
	// its connection, before it tries again.
	qemuPause = time.Second
	// longestOutage is what a guest waits at most, however busy the machine is.
	longestOutage = 20 * time.Second
)

// check fails the test when the guest waited for longer than a second, or, where the
// machine is busy, when it waited each time as if QEMU had found nobody.
func (all outages) check(t TB, what string, typical time.Duration) {
	t.Helper()
	var longest time.Duration
	least := all[0].beyond(typical)
	for _, o := range all {
		longest, least = max(longest, o.waited), min(least, o.beyond(typical))
	}
	if least > qemuPause/2 {
		t.Fatalf("across %s the guest waited longer than its server was away: %v", what, all)
	}
	Goal(t, "the guest's longest cycle across "+what, longest, time.Second, longestOutage)
}

// shortest is what the guest waited in the best case.
func (all outages) shortest() time.Duration {
	least := all[0].waited
	for _, o := range all {
		least = min(least, o.waited)
	}
	return least
}

// outages does something to the server three times.
func (g *GuestLoad) outages(do func()) outages {
	g.t.Helper()
	var all outages
	for range 3 {
		var o outage
		o.waited = g.Across(func() {
			began := time.Now()
			do()
			o.away = time.Since(began)
		})
		all = append(all, o)
	}
	return all
}
