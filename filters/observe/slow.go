package observe

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// At most maxLines slow requests are logged in each window.
const (
	maxLines = 5
	window   = time.Second
)

// watch looks for requests that take long.
//
// The timer is armed by the first request that finds it idle, and goes off when
// the oldest one's time is up. Where it finds no request, it says so in armed and
// looks once more: a request takes its slot before it looks at armed, so one of
// the two sees the other.
type watch struct {
	clock
	slow  atomic.Int64 // nanoseconds; 0: off
	armed atomic.Bool  // the timer runs; changed under mu
	slots slots

	mu      sync.Mutex // guards all below, and is not held while something is logged
	timer   *time.Timer
	said    [numSlots]time.Duration // the start of the request in the slot that was logged last
	closed  bool
	running sync.WaitGroup // the timer's function

	lines lines
}

func (w *watch) init(c clock, cfg Config) {
	w.clock = c
	w.lines.log = cfg.Log.With("object", cfg.Object, "layer", cfg.Layer)
}

// enter notes a request and sees to it that the timer runs.
func (w *watch) enter(c *call) int32 {
	slot := w.slots.take(c)
	if slot != noSlot && !w.armed.Load() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.armed.Load() {
			w.arm(time.Duration(w.slow.Load()))
		}
	}
	return slot
}

// arm starts the timer. The caller holds mu.
func (w *watch) arm(after time.Duration) {
	if w.closed {
		return
	}
	w.armed.Store(true)
	if w.timer == nil {
		w.timer = time.AfterFunc(after, w.fire)
	} else {
		w.timer.Reset(after)
	}
}

// fire is the timer's function.
func (w *watch) fire() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.running.Add(1)
	defer w.running.Done()
	late := w.scan()
	w.mu.Unlock()
	for i := range late.n {
		c := &late.first[i]
		w.lines.put("request is slow and not over yet", c, w.now()-c.start, nil)
	}
	w.lines.skip(late.more)
}

// overdue are requests to log; those that would be left out are only counted.
type overdue struct {
	first   [maxLines]call
	n, more int
}

// scan looks for requests whose time is up, and arms the timer for the next one
// whose time will be. The caller holds mu.
func (w *watch) scan() (late overdue) {
	slow := time.Duration(w.slow.Load())
	if slow == 0 {
		w.armed.Store(false)
		return late
	}
	next := w.sweep(&late, slow)
	if next == 0 {
		w.armed.Store(false)
		next = w.sweep(&late, slow)
	}
	if next > 0 {
		w.arm(next)
	}
	return late
}

// sweep gathers the requests whose time is up, each once, and says when that of
// the oldest other one is; 0: there is none.
func (w *watch) sweep(late *overdue, slow time.Duration) (next time.Duration) {
	now := w.now()
	for i := range w.slots {
		c, ok := w.slots[i].look()
		if !ok || w.said[i] == c.start {
			continue
		}
		if left := c.start + slow - now; left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		w.said[i] = c.start
		if late.n < maxLines {
			late.first[late.n] = c
			late.n++
		} else {
			late.more++
		}
	}
	return next
}

// setSlow changes the limit, for requests under way as well.
func (w *watch) setSlow(slow time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow.Store(int64(slow))
	if slow > 0 && w.slots.busy() {
		w.arm(1) // the timer's function looks at what is under way
	}
}

// ended logs a slow request that is over.
func (w *watch) ended(c *call, took time.Duration, err error) {
	w.lines.put("slow request", c, took, err)
}

// close ends the watch.
func (w *watch) close() {
	w.mu.Lock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// lines is the log of slow requests, at a bearable rate.
type lines struct {
	log *slog.Logger

	mu    sync.Mutex // guards all below, and keeps lines in order
	begun time.Duration
	n     int // lines since begun
	left  int // out, since the last line
}

// put logs a request that has taken so long by now, or counts it as left out.
func (l *lines) put(text string, c *call, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := c.start + took
	if now-l.begun >= window {
		l.begun, l.n = now, 0
	}
	if l.n >= maxLines {
		l.left++
		return
	}
	l.n++
	attrs := make([]slog.Attr, 0, 6)
	attrs = append(attrs, slog.String("op", c.op.String()), slog.Int64("offset", c.off), slog.Int64("length", c.n),
		slog.Duration("took", took.Round(time.Microsecond)))
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	if l.left > 0 {
		attrs = append(attrs, slog.Int("left_out", l.left))
		l.left = 0
	}
	l.log.LogAttrs(context.Background(), slog.LevelWarn, text, attrs...)
}

// skip counts requests as left out.
func (l *lines) skip(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left += n
}
