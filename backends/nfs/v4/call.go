package v4

import (
	"context"
	"errors"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// verdict is what to do after an attempt.
type verdict uint8

const (
	over  verdict = iota // there is an outcome
	gone                 // the session is not there any more: again with the next
	later                // the server wants time
	again                // at once
)

// do carries an operation out, as often as it takes.
func (c *Client) do(ctx context.Context, op operation) error {
	return c.try(ctx, op, &patience{})
}

// try is do with a patience that has been begun before.
func (c *Client) try(ctx context.Context, op operation, patience *patience) error {
	for {
		s, err := c.ready(ctx, patience)
		if err != nil {
			return err
		}
		v, err := c.attempt(ctx, s, op, how{closing: patience.closing})
		switch v {
		case over:
			return err
		case gone:
			c.lose(s)
			if ch, ok := op.(*chain); ok {
				ch.unsure = true
			}
			if patience.over(c.cfg.Patience) {
				return transient(err)
			}
		case later:
			if !patience.wait(ctx, c.cfg.Patience) {
				return transient(err)
			}
		}
	}
}

// how an attempt is made.
type how struct {
	first   bool            // before all others that wait for a slot
	closing <-chan struct{} // what is not answered when this is closed is given up
}

// attempt sends an operation once.
func (c *Client) attempt(ctx context.Context, s *session, op operation, how how) (verdict, error) {
	sl, err := c.slots.acquire(ctx, how)
	if err != nil {
		return over, err
	}
	if sl.id >= s.fore.maxSlots { // granted by a session before
		c.slots.release(sl)
		if c.current.Load() == s {
			return gone, errNoSlot
		}
		return again, nil
	}
	if sl.session != s {
		sl.session, sl.seq = s, 0
	}
	sl.seq++
	c.encode(sl, op)
	sl.call.Forsake = how.closing
	left, err := sl.t.Do(ctx, sl.call)
	switch {
	case left: // the slot is freed when the reply has come
		return over, err
	case err != nil:
		err = c.unanswered(ctx, sl, err)
		c.slots.release(sl)
		return over, err
	}
	v, err := c.outcome(sl, op)
	c.slots.release(sl)
	return v, err
}

// encode makes a slot's call of an operation.
func (c *Client) encode(sl *slot, op operation) {
	tr, call := op.traits(), sl.call
	call.Head = appendCompound(sl.t.Start(call.Head, procCompound), c.minor, tr.ops+1)
	call.Head = op.encode(appendSequence(call.Head, sl.session, sl, sl.highest, tr.cache))
	call.Data, call.Into, call.Find, call.Changes = tr.data, tr.into, tr.find, tr.changes
}

var errNoSlot = errors.New("the server took slots back")

// appendCompound appends the head of a compound of n operations.
func appendCompound(b []byte, minor uint32, n int) []byte {
	b = xdr.AppendUint32(b, 0) // no tag
	b = xdr.AppendUint32(b, minor)
	return xdr.AppendUint32(b, uint32(n))
}

// unanswered notes what is known of the slot's sequence number after a call without a
// reply.
func (c *Client) unanswered(ctx context.Context, sl *slot, err error) error {
	var lost *rpc.LostError
	var refused *rpc.ReplyError
	switch {
	case errors.As(err, &refused), errors.As(err, &lost) && !lost.Unresolved, ctx.Err() != nil && err == ctx.Err():
		sl.seq-- // it was not carried out
	default:
		sl.session.spoiled.Store(true)
	}
	return err
}

// outcome decodes the reply in a slot.
func (c *Client) outcome(sl *slot, op operation) (verdict, error) {
	r := &sl.results
	err := r.begin(sl.call.Reply, sl.call.N)
	if err != nil {
		sl.session.spoiled.Store(true)
		return over, err
	}
	if err := r.next(opSequence); err != nil {
		return refusal(sl, err)
	}
	got := readSequence(r)
	if r.Err() != nil || got.id != sl.session.id || got.slot != sl.id || got.seq != sl.seq {
		sl.session.spoiled.Store(true)
		return over, breach("a result of SEQUENCE that is of another call")
	}
	if got.flags&flagsWantAttention != 0 || got.target != sl.session.target.Load() {
		c.attend(sl.session, got)
	}
	err = op.decode(r)
	if err == nil {
		if s := sl.session; !s.proven.Load() && c.current.Load() == s {
			s.proven.Store(true)
		}
		return over, nil
	}
	switch statusOf(err) {
	case nfsstat.Delay, nfsstat.Grace:
		return later, err
	case nfsstat.RetryUncachedRep: // it was carried out once, and can be again
		if ch, ok := op.(*chain); ok {
			ch.unsure = true
		}
		return later, err
	}
	return over, err
}

// refusal sorts what SEQUENCE says when the rest was not looked at.
func refusal(sl *slot, err error) (verdict, error) {
	switch statusOf(err) {
	case nfsstat.BadSession, nfsstat.DeadSession, nfsstat.StaleClientID, nfsstat.Expired:
		return gone, err
	case nfsstat.Delay, nfsstat.Grace:
		sl.seq--
		return later, err
	case nfsstat.BadSlot, nfsstat.BadHighSlot, nfsstat.SeqMisordered, nfsstat.SeqFalseRetry, nfsstat.ConnNotBoundToSession,
		nfsstat.RetryUncachedRep:
		sl.session.spoiled.Store(true)
		return gone, err
	case nfsstat.OK: // a breach
		sl.session.spoiled.Store(true)
		return over, err
	}
	sl.seq--
	return over, err
}

// statusOf is the status in an error of the server's; OK where there is none.
func statusOf(err error) nfsstat.Status {
	var e *nfsstat.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return nfsstat.OK
}

// transient makes an error one that may go away.
func transient(err error) error {
	if err == nil || block.KindOf(err) == block.Transient {
		return err
	}
	return &block.Error{Kind: block.Transient, Op: "call", Off: -1, Err: err}
}

// patience is how long an operation has been waiting for the server.
type patience struct {
	began   time.Time
	delay   time.Duration
	closing <-chan struct{} // ends all waiting; nil: nothing does
}

const (
	firstPause = 50 * time.Millisecond
	mostPause  = 5 * time.Second
)

// over starts the clock or says that the time is over. A negative limit is none.
func (p *patience) over(limit time.Duration) bool {
	if p.began.IsZero() {
		p.began = time.Now()
		return limit == 0
	}
	return limit >= 0 && time.Since(p.began) >= limit
}

// left is how long there is to wait yet.
func (p *patience) left(limit time.Duration) time.Duration {
	if p.over(limit) {
		return 0
	}
	if limit < 0 {
		return time.Hour
	}
	return limit - time.Since(p.began)
}

// wait pauses, each time longer; false: the time is over, or the context is.
func (p *patience) wait(ctx context.Context, limit time.Duration) bool {
	p.delay = min(max(2*p.delay, firstPause), mostPause)
	left := p.left(limit)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(min(p.delay, left))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.closing:
	case <-ctx.Done():
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
