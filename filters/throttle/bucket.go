package throttle

import (
	"math"
	"time"
)

// bucket is an allowance that grows with time. The lane that has it guards it.
type bucket struct {
	rate  float64 // units a second; 0: no bound
	most  float64 // what can be saved up
	level float64 // what is there; negative: owed
}

// set changes the bound. Who was not bounded begins with nothing. What is owed
// stays owed, but takes no longer to be paid than it would have: a bound that is
// lowered does not punish what came before it.
func (b *bucket) set(rate int64, burst time.Duration) {
	next := float64(max(rate, 0))
	switch {
	case next == 0:
		b.level = 0
	case b.level < 0 && next < b.rate:
		b.level *= next / b.rate
	}
	b.rate, b.most = next, next*burst.Seconds()
}

func (b *bucket) fill(d time.Duration) { b.add(b.rate * d.Seconds()) }

// add puts in what came with time, or what was taken and not used.
func (b *bucket) add(n float64) { b.level = min(b.level+n, b.most) }

// take takes n, there or not.
func (b *bucket) take(n int64) {
	if b.rate > 0 {
		b.level -= float64(n)
	}
}

// longest is how far ahead a lane looks: debts can be so large that their time
// does not fit into a Duration.
const longest = time.Hour

// wait is how long it takes until nothing is owed, or longest. It is rounded up,
// so that the time is not a nanosecond short.
func (b *bucket) wait() time.Duration {
	if b.level >= 0 || b.rate == 0 {
		return 0
	}
	return time.Duration(min(math.Ceil(-b.level/b.rate*1e9), float64(longest)))
}
