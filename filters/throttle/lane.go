package throttle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lane is what reads, or changes, pass one after the other. Its functions stand
// in the order in which a request meets them.
type lane struct {
	bound atomic.Bool // there is a bound: all that a call looks at where there is none

	mu     sync.Mutex
	ops    bucket
	bytes  bucket
	filled time.Time // when the buckets were filled last
	first  *waiter   // in order of arrival
	last   *waiter
	idle   *waiter // used ones, to be used again; as many as ever waited at once
	closed bool
	timer  *time.Timer // calls run when the first can pass, whoever that is then
	waits  Waits
}

// waiter is a request that stands in the queue.
type waiter struct {
	next, prev *waiter
	queued     bool
	bytes      int64
	since      time.Time
	turn       chan bool // gets true when it may pass, false when the lane is closed
}

func (l *lane) init(r Rate) {
	l.timer = time.AfterFunc(longest, l.run)
	l.timer.Stop()
	l.filled = time.Now()
	l.set(r)
}

// verdict is how a request's waiting ended.
type verdict uint8

const (
	passed verdict = iota
	gaveUp         // ctx was over
	shut           // the lane was closed
)

// pass returns when a request of so many bytes may pass, has given up or has
// been sent away.
func (l *lane) pass(ctx context.Context, bytes int64) verdict {
	w := l.enter(bytes)
	if w == nil {
		return passed
	}
	v := passed
	select {
	case ok := <-w.turn:
		if !ok {
			v = shut
		}
	case <-ctx.Done():
		v = gaveUp
	}
	l.leave(w, v)
	return v
}

// enter lets a request pass (nil) or puts it at the end of the queue. A closed
// lane lets all pass, to the Device that says so.
func (l *lane) enter(bytes int64) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	now := time.Now()
	if l.first == nil && l.take(now, bytes) {
		return nil
	}
	w := l.idle
	if w == nil {
		w = &waiter{turn: make(chan bool, 1)}
	} else {
		l.idle = w.next
	}
	w.bytes, w.since = bytes, now
	l.push(w)
	if l.first == w {
		l.timer.Reset(l.wait())
	}
	return w
}

// take lets a request that is the first take what it costs, if nothing is owed.
func (l *lane) take(now time.Time, bytes int64) bool {
	l.fill(now)
	if l.wait() > 0 {
		return false
	}
	l.ops.take(1)
	l.bytes.take(bytes)
	return true
}

func (l *lane) fill(now time.Time) {
	d := now.Sub(l.filled)
	l.ops.fill(d)
	l.bytes.fill(d)
	l.filled = now
}

// wait is how long it takes until nothing is owed.
func (l *lane) wait() time.Duration { return max(l.ops.wait(), l.bytes.wait()) }

// run is what the timer calls.
func (l *lane) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve()
}

// serve lets pass who may, and winds the timer for the next.
func (l *lane) serve() {
	now := time.Now()
	for l.first != nil && l.take(now, l.first.bytes) {
		w := l.first
		l.pull(w, now)
		w.turn <- true
	}
	if l.first != nil {
		l.timer.Reset(l.wait())
	}
}

// leave ends a request's waiting. One that gave up goes from the queue or, where
// its turn had come meanwhile, gives back what it had taken.
func (l *lane) leave(w *waiter, v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v == gaveUp && w.queued {
		l.pull(w, time.Now())
	} else if v == gaveUp && <-w.turn {
		l.put(w.bytes)
	}
	w.next, l.idle = l.idle, w
}

// try is pass for a request that must not wait.
func (l *lane) try(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.first == nil && l.take(time.Now(), bytes)
}

// giveBack returns what a request took that was then not carried out.
func (l *lane) giveBack(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(bytes)
}

func (l *lane) put(bytes int64) {
	l.ops.add(1)
	l.bytes.add(float64(bytes))
	l.serve()
}

// set changes the bounds and lets pass who may now.
func (l *lane) set(r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill(time.Now())
	l.ops.set(r.IOPS, r.burst())
	l.bytes.set(r.Bytes, r.burst())
	l.bound.Store(r.bounded())
	l.serve()
}

// close sends away those who wait, and lets nobody wait any more.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.timer.Stop()
	now := time.Now()
	for l.first != nil {
		w := l.first
		l.pull(w, now)
		w.turn <- false
	}
}

// stats gives the counters.
func (l *lane) stats() Waits {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

// push puts a request at the end of the queue.
func (l *lane) push(w *waiter) {
	w.next, w.prev, w.queued = nil, l.last, true
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.waits.Waiting++
}

// pull takes one out and counts it.
func (l *lane) pull(w *waiter, now time.Time) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev, w.queued = nil, nil, false
	l.waits.Waiting--
	l.waits.Requests++
	l.waits.Time += now.Sub(w.since)
}
