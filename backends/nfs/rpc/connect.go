package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"sluice/block"
)

const (
	firstDelay = 20 * time.Millisecond
	mostDelay  = 2 * time.Second
	// steady is how long a connection has to last to say nothing about the next one.
	steady      = time.Second
	dialTimeout = 10 * time.Second
	// reviveTimes is how many times Silence Revive may take: each of its calls can
	// take as long as that.
	reviveTimes = 12
)

// connect makes a connection that is ready for calls.
func (t *Transport) connect(ctx context.Context) (*Link, error) {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.cfg.Dial(dialing)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(*net.TCPConn); ok {
		// A peer that is gone without a word is noticed by watch while calls are
		// outstanding; this is for the time when none are.
		_ = c.SetNoDelay(true)
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4})
	}
	link := &Link{t: t, stream: newStream(conn), xid: rand.Uint32()}
	if t.cfg.Revive != nil {
		if err := t.revive(ctx, link); err != nil {
			link.close()
			return nil, err
		}
	}
	link.stream.work()
	return link, nil
}

// revive calls Config.Revive, whose calls fail when the time is over.
func (t *Transport) revive(ctx context.Context, link *Link) error {
	reviving, cancel := context.WithTimeout(ctx, reviveTimes*t.cfg.Silence)
	defer cancel()
	stop := context.AfterFunc(reviving, link.close)
	err := t.cfg.Revive(reviving, link)
	if (!stop() || reviving.Err() != nil) && err == nil {
		return fmt.Errorf("the connection was not ready in time: %w", context.Cause(reviving))
	}
	return err
}

// run is the Transport's main goroutine: it reads replies and makes new connections.
func (t *Transport) run(life context.Context, link *Link) {
	defer close(t.takeOver)
	for brief := -1; ; {
		born := time.Now()
		r := reader{t: t, link: link}
		err := r.run()
		again := t.detach(link, err)
		link.stream.release()
		if brief++; time.Since(born) >= steady || r.served > 0 && !again {
			brief = 0
		}
		if t.isClosing() {
			t.finish()
			return
		}
		t.lost.Add(1)
		t.cfg.Logger.Warn("NFS connection lost", "server", t.cfg.Object, "cause", describe(err))
		if link = t.renew(life, err, brief); link == nil {
			t.finish()
			return
		}
		t.cfg.Logger.Info("NFS connection made again", "server", t.cfg.Object)
		t.attach(link)
	}
}

// renew makes the next connection, however long that takes. nil means that the
// Transport ends.
func (t *Transport) renew(life context.Context, lost error, brief int) *Link {
	stop := t.bePatient(lost)
	defer stop()
	delay := min(firstDelay<<min(brief, 10), mostDelay)
	for wait := brief > 0; ; wait = true {
		if wait {
			if !sleep(life, delay/2+rand.N(delay)) {
				return nil
			}
			delay = min(2*delay, mostDelay)
		}
		link, err := t.connect(life)
		if err == nil {
			return link
		}
		if life.Err() != nil {
			return nil
		}
		t.mu.Lock()
		t.why = err
		t.mu.Unlock()
		t.cfg.Logger.Debug("NFS reconnect failed", "server", t.cfg.Object, "cause", err, "delay", delay)
	}
}

// bePatient sees to it that calls which have waited for a connection as long as
// patience goes fail, and that so do those that come, until it is there after all.
func (t *Transport) bePatient(lost error) (stop func()) {
	if t.cfg.Patience < 0 {
		return func() {}
	}
	over := make(chan struct{})
	timer := time.AfterFunc(t.cfg.Patience, func() {
		t.giveOut(lost)
		close(over)
	})
	return func() {
		if !timer.Stop() {
			<-over // the next connection may be lost at once, and has patience of its own
		}
	}
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

// describe says in words how a connection ended.
func describe(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the server closed the connection")
	case errors.Is(err, net.ErrClosed):
		return errors.New("the connection broke")
	}
	return err
}

// attach makes a connection the Transport's and sends what waits for it.
func (t *Transport) attach(link *Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.link = link
	if t.isClosing() {
		link.close()
		return
	}
	t.dead = nil
	t.heard.Store(now())
	if t.waits() {
		t.wakeWriter()
	}
}

// detach takes a broken connection away and queues again what it owed, but for what
// has waited long enough, and for all of it after a breach of the protocol: that
// would only be repeated. It reports whether it met a call that had been through a
// loss before. The writer is at rest when it looks: a call that was answered is
// complete.
func (t *Transport) detach(link *Link, cause error) (again bool) {
	link.close()
	t.mu.Lock()
	t.link, t.down, t.why = nil, time.Now(), cause
	for t.writing {
		t.idle.Wait()
	}
	t.long.Store(0)
	t.answers = nil
	owed := t.takeQueue()
	for _, c := range *t.calls.Load() {
		if c.live.Load() != 0 {
			owed = append(owed, c)
		}
	}
	slices.SortFunc(owed, func(a, b *Call) int { return cmp.Compare(a.seq, b.seq) })
	at := time.Now()
	var dropped []*Call
	var left []Ended
	for _, c := range owed {
		again = again || !c.lost.IsZero()
		c.live.Store(0)
		if c.err = t.owes(c, at, cause); c.err != nil {
			dropped = append(dropped, c)
			continue
		}
		c.queued = true
		t.queue = append(t.queue, c)
		if c.Ended != nil && !c.Changes && c.leave() {
			// It is sent again, for what is above; but who started it has another
			// way, on which it can wait.
			left = append(left, c.Ended)
		}
	}
	t.mu.Unlock()
	t.drop(dropped)
	for _, ended := range left {
		push(ended.CallEnded(&LostError{Cause: describe(cause)}, true))
	}
	return again
}

// takeQueue empties the queue. The lock is held.
func (t *Transport) takeQueue() []*Call {
	waiting := slices.Clone(t.queue[t.head:])
	clear(t.queue)
	t.queue, t.head = t.queue[:0], 0
	for _, c := range waiting {
		c.queued = false
	}
	return waiting
}

// owes says what a call whose connection broke ends with, or nil where it is to be
// sent again.
func (t *Transport) owes(c *Call, at time.Time, cause error) error {
	if t.isClosing() {
		return block.Closed
	}
	if c.forsaken {
		return &LostError{Cause: block.Closed, Unresolved: c.sent}
	}
	var breach *ProtocolError
	if errors.As(cause, &breach) && c.sent {
		return cause
	}
	if c.lost.IsZero() {
		c.lost = at
	}
	if t.cfg.Patience < 0 || at.Sub(c.lost) < t.cfg.Patience {
		return nil
	}
	return &LostError{Cause: describe(cause), Unresolved: c.sent}
}

// giveOut fails what waits, and what comes, until there is a connection.
func (t *Transport) giveOut(lost error) {
	t.mu.Lock()
	if t.link != nil || t.dead != nil {
		t.mu.Unlock()
		return
	}
	why := fmt.Errorf("%w; no connection within %v", describe(lost), t.cfg.Patience)
	if t.why != nil && t.why != lost {
		why = fmt.Errorf("%w: %w", why, t.why)
	}
	t.dead = &LostError{Cause: why}
	waiting := t.takeQueue()
	for _, c := range waiting {
		c.err = &LostError{Cause: why, Unresolved: c.sent}
	}
	t.mu.Unlock()
	t.drop(waiting)
	t.cfg.Logger.Error("NFS server is away, requests fail", "server", t.cfg.Object, "cause", why)
}

// finish fails everything for good.
func (t *Transport) finish() {
	t.mu.Lock()
	waiting := t.takeQueue()
	for _, c := range waiting {
		c.err = block.Closed
	}
	t.mu.Unlock()
	t.drop(waiting)
}

// drop hands calls back that say why they failed and are in no queue any more.
func (t *Transport) drop(calls []*Call) {
	for _, c := range calls {
		if c.fill() {
			t.fail(c)
		} else {
			t.drained(c)
		}
	}
}
