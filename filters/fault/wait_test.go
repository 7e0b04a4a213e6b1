package fault

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/filters/filtertest"
)

// start makes a call in the background and returns when it waits or is over. The
// result waits for its end.
func start(do func() error) (result func() outcome) {
	done := make(chan outcome, 1)
	began := time.Now()
	go func() {
		err := do()
		done <- outcome{err, time.Since(began)}
	}()
	synctest.Wait()
	return func() outcome { return <-done }
}

// outcome is how a call ended, and when.
type outcome struct {
	err  error
	took time.Duration
}

// bubble runs a test by a clock of its own.
func bubble(t *testing.T, test func(t *testing.T, d *Device), rules ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d, below := newDevice(t, 16384, rules...)
		old(t, below)
		defer filtertest.Close(t, d)
		test(t, d)
	})
}

// ended asserts how a call ended.
func ended(t *testing.T, result func() outcome, kind block.Kind, after time.Duration, what string) {
	t.Helper()
	if o := result(); block.KindOf(o.err) != kind || o.took != after {
		t.Errorf("%s: %v after %v, want kind %v after %v", what, o.err, o.took, kind, after)
	}
}

func TestDelays(t *testing.T) {
	for rule, kind := range map[string]block.Kind{
		"any:delay=200ms": block.OK, "any:delay=200ms,error=busy": block.Busy,
	} {
		for op := range calls {
			bubble(t, func(t *testing.T, d *Device) {
				ended(t, start(func() error { return calls[op](d) }), kind, 200*time.Millisecond, string(op)+" with "+rule)
			}, rule)
		}
	}
	bubble(t, func(t *testing.T, d *Device) {
		ended(t, start(func() error { return calls[Write](d) }), block.OK, time.Second, "a late drop")
		holds(t, d, 0, filled(1, 8192), "dropped late")
	}, "write:delay=1s,drop")
	bubble(t, func(t *testing.T, d *Device) {
		ended(t, start(func() error { return calls[Write](d) }), block.IO, time.Second, "a late tear")
		holds(t, d, 0, append(filled(2, 4096), filled(1, 4096)...), "torn late")
	}, "write:delay=1s,torn=4K")
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	for _, rule := range []string{"write:hang", "write:delay=1h"} {
		bubble(t, func(t *testing.T, d *Device) {
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			result := start(func() error { return d.WriteAt(short, filled(2, 512), 0, 0) })
			o := result()
			if block.KindOf(o.err) != block.Canceled || !errors.Is(o.err, context.DeadlineExceeded) || o.took != 3*time.Second {
				t.Errorf("%s: %v after %v", rule, o.err, o.took)
			}
			holds(t, d, 0, filled(1, 512), "a write that gave up")
		}, rule)
	}
}

func TestWaitingEndsWithTheRule(t *testing.T) {
	for _, rule := range []string{"any:hang", "any:delay=1h", "any:delay=1h,error=io"} {
		for op := range calls {
			bubble(t, func(t *testing.T, d *Device) {
				result := start(func() error { return calls[op](d) })
				time.Sleep(time.Minute)
				d.SetRules(nil)
				ended(t, result, block.OK, time.Minute, string(op)+" with "+rule)
			}, rule)
		}
	}
	bubble(t, func(t *testing.T, d *Device) {
		result := start(func() error { return calls[Read](d) })
		time.Sleep(time.Minute)
		d.SetRules(parsed(t, "write:error=io", "read:error=corrupt"))
		ended(t, result, block.Corrupt, time.Minute, "under a rule that came")
	}, "read:hang")
	bubble(t, func(t *testing.T, d *Device) {
		result := start(func() error { return calls[Read](d) })
		time.Sleep(time.Minute)
		d.SetRules(d.Rules())
		synctest.Wait()
		time.Sleep(time.Minute)
		d.SetRules(nil)
		ended(t, result, block.OK, 2*time.Minute, "under the same rule again")
	}, "read:hang")
}

func TestClosingEndsWaiting(t *testing.T) {
	for _, rule := range []string{"any:hang", "any:delay=1h", "any:hang,for=1h"} {
		for op := range calls {
			bubble(t, func(t *testing.T, d *Device) {
				result := start(func() error { return calls[op](d) })
				time.Sleep(time.Second)
				filtertest.Close(t, d)
				ended(t, result, block.Closed, time.Second, string(op)+" with "+rule)
				ended(t, start(func() error { return calls[op](d) }), block.Closed, 0, string(op)+" after close")
			}, rule)
		}
	}
}

// A rehearsal of an outage: for twenty seconds nothing goes, then all is well.
func TestRuleThatEndsByItself(t *testing.T) {
	bubble(t, func(t *testing.T, d *Device) {
		first := start(func() error { return calls[Write](d) })
		time.Sleep(5 * time.Second)
		second := start(func() error { return calls[Read](d) })
		ended(t, first, block.OK, 20*time.Second, "from the beginning")
		ended(t, second, block.OK, 15*time.Second, "later")
		ended(t, start(func() error { return calls[Flush](d) }), block.OK, 0, "afterwards")
		holds(t, d, 0, filled(2, 8192), "the write that hung")
	}, "any:hang,for=20s")
	bubble(t, func(t *testing.T, d *Device) {
		time.Sleep(19 * time.Second)
		ended(t, start(func() error { return calls[Read](d) }), block.Transient, 0, "in time")
		time.Sleep(time.Second)
		ended(t, start(func() error { return calls[Read](d) }), block.OK, 0, "when it is over")
		d.SetRules(d.Rules())
		ended(t, start(func() error { return calls[Read](d) }), block.Transient, 0, "when it was set again")
	}, "any:error=transient,for=20s")
	bubble(t, func(t *testing.T, d *Device) {
		ended(t, start(func() error { return calls[Read](d) }), block.Busy, 5*time.Second, "what meets the next rule then")
	}, "any:hang,for=5s", "any:error=busy")
}
