package hold

import (
	"context"
	"time"

	"sluice/block"
)

// The stages of a request that does not go straight through, in order:
//
//  1. join or failed takes it up: others failed, or it did.
//  2. admit lets it wait until it may try, or has to give up.
//  3. request.run makes an attempt. That of the first in a queue can be
//     interrupted.
//  4. settle looks at the result: back to 2, or home.

// join takes up a request that may have to wait, without an attempt.
func (d *Device) join(ctx context.Context, r request) error {
	if err := r.check(d.dev.Device.Info()); err != nil {
		return err
	}
	return d.carry(ctx, newWaiter(r))
}

// failed takes up a request whose first attempt failed.
func (d *Device) failed(ctx context.Context, r request, err error) error {
	if kind := block.KindOf(err); kind != block.Transient && kind != block.NoSpace && !r.tellsLoss(kind) {
		return err
	}
	w := newWaiter(r)
	if again, err := d.settle(ctx, w, err); !again {
		return err
	}
	return d.carry(ctx, w)
}

// tellsLoss reports whether a failure may be the only word of lost writes: that
// of a request whose success says something of what is durable, unless it was
// refused for what it is.
func (r *request) tellsLoss(kind block.Kind) bool {
	switch kind {
	case block.IO, block.NoSpace, block.Corrupt, block.Fenced:
		return r.op == opFlush || r.flags&block.FUA != 0
	}
	return false
}

// carry brings a request to its end.
func (d *Device) carry(ctx context.Context, w *waiter) error {
	defer d.part(w)
	for {
		attempt, err := d.admit(ctx, w)
		if err != nil {
			return err
		}
		if again, err := d.settle(ctx, w, w.run(attempt, d.dev)); !again {
			return err
		}
	}
}

// part ends what next or settle began for a waiter.
func (d *Device) part(w *waiter) {
	d.mu.Lock()
	counted := w.counted
	w.remove()
	d.mu.Unlock()
	d.tell()
	if counted {
		d.held.Done()
	}
}

// admit returns when the request may try, with the context to do it under.
func (d *Device) admit(ctx context.Context, w *waiter) (context.Context, error) {
	for {
		wait, err := d.next(w, time.Now())
		if err != nil {
			return nil, err
		}
		if wait != tryNow {
			if err := w.sleep(ctx, wait); err != nil {
				return nil, err
			}
		} else if attempt, ok := d.turn(ctx, w); ok {
			return attempt, nil
		}
	}
}

// turn makes the context of an attempt. While the outage lasts, that ends with
// the request's time or when the waiter is interrupted. It is not ok where the
// outage has ended since next.
func (d *Device) turn(ctx context.Context, w *waiter) (_ context.Context, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.in == nil {
		return ctx, !w.refused
	}
	var attempt context.Context
	if limit := d.policy.Limit; limit > 0 {
		attempt, w.cancel = context.WithDeadline(ctx, w.since.Add(limit))
	} else {
		attempt, w.cancel = context.WithCancel(ctx)
	}
	return attempt, true
}

// sleep waits for the time, for ever where that is 0, but ends when the waiter
// is roused or the context is over.
func (w *waiter) sleep(ctx context.Context, wait time.Duration) error {
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.wake:
	case <-over:
	}
	return nil
}

const (
	tryNow  time.Duration = -1
	forEver time.Duration = 0
)

// next says how long a waiter has to wait before it looks again, tryNow where it
// may try, or why it must not.
func (d *Device) next(w *waiter, now time.Time) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := d.state.Load()
	switch {
	case state&isClosed != 0:
		return 0, w.fail(block.Closed, d.cfg.Object, "")
	case w.refused:
		return 0, w.giveUp(d.cfg.Object, now, "not held any longer")
	case state&isFrozen != 0 && w.op.changes():
		return 0, w.fail(block.ReadOnly, d.cfg.Object, "frozen since %s: %w", d.frozen.since.Format(time.RFC3339), opaque{d.frozen.err})
	}
	o := d.blocking(w)
	if o == nil {
		w.remove()
		return tryNow, nil
	}
	if w.in != o {
		d.enqueue(w, o, now)
	}
	left := forEver
	if limit := d.policy.Limit; limit > 0 {
		if left = limit - now.Sub(w.since); left <= 0 {
			return 0, w.giveUp(d.cfg.Object, now, "the storage did not come back")
		}
	}
	if o.queue[0] != w {
		return left, nil
	}
	until := o.next.Sub(now)
	if until <= 0 {
		return tryNow, nil
	}
	if left == forEver {
		return until, nil
	}
	return min(left, until), nil
}

// blocking gives the outage that a request has to wait for: one that stops all of
// its kind, or that it has met itself. The caller holds mu.
func (d *Device) blocking(w *waiter) *outage {
	for _, o := range [...]*outage{&d.away, &d.full} {
		if o.lasts() && (ops[w.op].blocks&o.bit != 0 || w.in == o) {
			return o
		}
	}
	return nil
}

// enqueue puts a waiter at the end of an outage's queue. The caller holds mu and
// knows that the Device is not closed.
func (d *Device) enqueue(w *waiter, o *outage, now time.Time) {
	w.remove()
	o.enqueue(w)
	if w.err == nil {
		w.err = o.err
	}
	if w.since.IsZero() {
		w.since = now
	}
	if !w.counted {
		w.counted = true
		d.held.Add(1)
	}
}

// giveUp is the error of a request that was held in vain.
func (w *waiter) giveUp(object string, now time.Time, why string) error {
	return w.fail(block.KindOf(w.err), object, "held for %v, %s: %w", now.Sub(w.since).Round(time.Millisecond), why, w.err)
}

// opaque is a cause that gives its text alone: its kind is not that of the error
// around it, and nobody shall find it there.
type opaque struct{ error }

// settle looks at what an attempt ended with. Where the request is to go on, it
// returns true; otherwise what the request ends with.
func (d *Device) settle(ctx context.Context, w *waiter, err error) (again bool, _ error) {
	defer d.tell()
	now, kind := time.Now(), block.KindOf(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	interrupted := w.cancel != nil
	if interrupted {
		w.cancel()
		w.cancel = nil
	}
	switch {
	case kind == block.Canceled && interrupted && ctx.Err() == nil:
		return true, nil // its time is over, or something has changed: next knows
	case kind == block.Canceled, kind == block.Closed:
		return false, err // tells nothing of the storage
	case d.covers(w.op, kind):
		return d.suffer(w, err, now)
	}
	if w.in != nil { // it was the one to try, and the storage has answered
		d.over(w.in, now, false)
	}
	return false, d.vouch(w, err)
}

// covers reports whether the policy is for a failure. The caller holds mu.
func (d *Device) covers(op op, kind block.Kind) bool {
	if !d.policy.covers(kind) {
		return false
	}
	// A flush for which there was no room has lost writes: repeating it would
	// hide that.
	return kind == block.Transient || op.changes() || op == opFlush && d.policy.Mode == Freeze
}

// suffer deals with a failure that the policy is for. The caller holds mu.
func (d *Device) suffer(w *waiter, err error, now time.Time) (again bool, _ error) {
	switch {
	case d.policy.Mode == Freeze:
		d.freeze(err, now)
		return false, err
	case d.state.Load()&isClosed != 0:
		return false, w.fail(block.Closed, d.cfg.Object, "%w", opaque{err})
	}
	o := &d.away
	if block.KindOf(err) == block.NoSpace {
		o = &d.full
	}
	w.err, w.refused = err, false
	if o.begin(err, now) {
		d.began(o)
	} else if w.in == o {
		o.err = err
		o.backOff(now)
	}
	if w.in != nil && w.in != o && w.in.kind == block.Transient {
		d.over(w.in, now, false) // it is not away, only full
	}
	d.enqueue(w, o, now)
	o.rouseFirst()
	return true, nil
}

// vouch gives the result of a request that is through. A held flush does not
// succeed where another request was told of a loss meanwhile, since that may have
// been told once only. The caller holds mu.
func (d *Device) vouch(w *waiter, err error) error {
	switch {
	case w.tellsLoss(block.KindOf(err)):
		d.losses.count.Add(1)
		d.losses.err = err
	case err == nil && w.op == opFlush && d.losses.count.Load() != w.losses:
		return w.fail(block.KindOf(d.losses.err), d.cfg.Object, "another flush failed meanwhile: %w", d.losses.err)
	}
	return err
}
