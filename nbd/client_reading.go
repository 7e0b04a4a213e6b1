package nbd

import (
	"context"
	"sync/atomic"
	"time"
)

// clientReading is who reads a lane's replies. At depth 1 it is best the caller
// itself: its reply then wakes one goroutine instead of two. At greater depths, and
// while nothing is awaited for longer (a connection's end must be noticed), it is
// the lane's goroutine, run.
//
// The reader's role is taken from readerNone with a compare-and-swap, and passed to
// run, which waits for it in rest, over turn. A request is counted in owed before
// its caller looks at the role, and the role is given up before owed is looked at:
// one of the two sees the other, so no reply is left unread.
type clientReading struct {
	role    atomic.Int32
	owed    atomic.Int64   // requests submitted and not answered
	uses    atomic.Uint64  // how often a caller had the role
	turn    chan error     // the role, for run, and how the connection ended; room for one
	replies *clientReplies // of the connection; the reader's
}

const (
	readerRun    = iota // also while there is no connection
	readerNone          // nobody
	readerCaller        // a caller, until its reply has come

	// clientAlone is how many replies in a row have to leave nothing in flight for
	// run to leave the reading to callers.
	clientAlone = 4
	// clientLinger is how long run leaves the role to callers before it looks
	// whether they use it. Each time they do it leaves them twice as long, up to
	// clientMaxLinger, so that neither a busy caller nor one that waits for a long
	// flush costs many wake-ups. While nothing happens run has the role, and there
	// are none.
	clientLinger    = time.Millisecond
	clientMaxLinger = 100 * time.Millisecond
)

// awaitReply sees to it that somebody reads the reply to s: its caller, if s is
// sent, or else run, since s may yet be withdrawn. It reports whether s was, because
// the connection broke under a caller who wants to leave.
func (l *clientLane) awaitReply(ctx context.Context, s *clientSlot, sent bool) (withdrawn bool) {
	switch {
	case l.reading.role.Load() != readerNone:
	case !sent:
		l.wakeReader()
	case l.reading.role.CompareAndSwap(readerNone, readerCaller):
		return l.readFor(ctx, s)
	}
	return false
}

// wakeReader gives the role to run if nobody has it.
func (l *clientLane) wakeReader() {
	if l.reading.role.CompareAndSwap(readerNone, readerRun) {
		l.reading.turn <- nil
	}
}

// readFor reads replies until that to s has come, with the role that its caller has
// taken.
//
// Between submit and here the connection may have broken, and the lane may have
// failed s and be serving others on the next one: no reply to s will come then, and
// its completion waits in done. It is enough to look before each read, since only
// run fails slots, and only with the role.
func (l *clientLane) readFor(ctx context.Context, s *clientSlot) (withdrawn bool) {
	l.reading.uses.Add(1)
	r := l.reading.replies
	for !s.replied && len(s.done) == 0 {
		if err := r.one(); err != nil {
			withdrawn = ctx.Err() != nil && l.giveUp(s, ctx.Err())
			l.reading.role.Store(readerRun)
			l.reading.turn <- err
			return withdrawn
		}
	}
	if len(r.stream.buffered()) > 0 {
		l.reading.role.Store(readerRun)
		l.reading.turn <- nil
		return false
	}
	l.reading.role.Store(readerNone)
	if l.reading.owed.Load() > 0 {
		l.wakeReader()
	}
	return false
}

// readOn is run's part: it reads until the connection ends, but leaves that to the
// callers while they come one at a time.
func (l *clientLane) readOn(r *clientReplies) error {
	l.reading.replies = r
	timer := time.NewTimer(clientLinger)
	defer timer.Stop()
	for alone := 0; ; {
		if err := r.one(); err != nil {
			return err
		}
		if l.reading.owed.Load() > 0 || len(r.stream.buffered()) > 0 {
			alone = 0
			continue
		}
		if alone++; alone < clientAlone {
			continue
		}
		if err := l.rest(timer); err != nil {
			return err
		}
		alone = 0
	}
}

// rest leaves the role to callers until it comes back.
func (l *clientLane) rest(timer *time.Timer) error {
	l.reading.role.Store(readerNone)
	if l.reading.owed.Load() > 0 && l.reading.role.CompareAndSwap(readerNone, readerRun) {
		return nil
	}
	linger := clientLinger
	timer.Reset(linger)
	for seen := l.reading.uses.Load(); ; {
		select {
		case err := <-l.reading.turn:
			return err
		case <-timer.C:
			uses := l.reading.uses.Load()
			if uses == seen && l.reading.role.CompareAndSwap(readerNone, readerRun) {
				return nil
			}
			seen = uses
			linger = min(2*linger, clientMaxLinger)
			timer.Reset(linger)
		}
	}
}
