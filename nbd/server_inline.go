package nbd

import (
	"errors"

	"sluice/block/buffer"
)

// A small write that has arrived whole is carried out by the receiving goroutine
// itself when the device's lane is free: to wake up another for it costs more
// than a copy into the page cache, and while it writes, further requests arrive
// that are then received together.
//
// But a write can wait: for a disk that falls behind, for a journal. What follows
// it on the connection must not wait with it. So the lane looks every holdTime
// whether the write is still the same one, and if so takes the role of receiving
// away from its goroutine and gives it to a new one. The old one finishes its
// write, answers it and ends.

// inlineWriteMax is the longest write that a receiver carries out itself. For
// longer ones receiving and writing at the same time is worth more.
const inlineWriteMax = 16 << 10

// inlineWrite is what a lane knows of the write that a receiver carries out. The
// lane's mutex guards it.
type inlineWrite struct {
	conn    *serverConn // nil: there is none
	count   int         // of inline writes so far
	seen    int         // count when looked at last
	handed  bool        // the writer has lost the role of receiving
	penalty int         // writes that are not to be carried out inline, after a slow one
}

// slowPenalty is how many writes go through the lane after one that was slow.
const slowPenalty = 256

// take gives the lane to a receiver for one write, if it is free.
func (l *lane) take(c *serverConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.inline
	if w.penalty > 0 {
		w.penalty--
		return false
	}
	if l.running {
		return false
	}
	l.running = true
	w.conn, w.handed = c, false
	w.count++
	l.wind()
	return true
}

// leave gives the lane back. handed: the caller has not been the receiver any
// more for a while.
func (l *lane) leave() (handed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inline.conn = nil
	if l.running = l.first != nil; l.running {
		l.ended.Add(1)
		go l.run()
	}
	return l.inline.handed
}

// look takes the role of receiving from a writer that was at the same write when
// it was looked at last. It reports whether to look again.
func (w *inlineWrite) look() bool {
	same := w.count == w.seen
	w.seen = w.count
	if same && w.conn != nil && !w.handed {
		w.handed = true
		w.penalty = slowPenalty
		w.conn.handOn()
	}
	return !same
}

// errHandedOn: the goroutine is not the receiver any more.
var errHandedOn = errors.New("receiving was handed on")

// writeInline carries out a write whose payload is in the receive buffer. done:
// it has.
func (c *serverConn) writeInline(req request) (done bool, err error) {
	l, n, start := c.laned.lane, int(req.length), c.start
	in, p := c.in, c.in.B[c.r:c.r+n]
	c.r += n
	if !l.take(c) {
		c.r -= n
		return false, nil
	}
	// From here on what belongs to the receiver may be another's.
	failed := c.writeDevice(c.context(), p, req)
	if !l.leave() {
		err := c.answerErr(req, failed)
		// As in the lane: the client should hear of what is done before it has
		// nothing to do.
		if c.replies > (c.w-c.r)/(c.headerSize+n) {
			c.push()
		}
		return true, err
	}
	in.Release()
	j := c.budget.piece()
	j.req, j.op, j.start = req, OpWrite, start
	c.finish(j, failed)
	c.put(jobQueue{}.with(j), patient)
	return true, errHandedOn
}

// handOn makes a new goroutine the receiver, while the old one is in the device.
// The lane has made sure of that and keeps it there.
func (c *serverConn) handOn() {
	c.obs.InFlight(OpWrite, +1) // a write that takes that long should be seen; finish takes it back
	in := buffer.Get(inSize)
	c.r, c.w = 0, copy(in.B, c.in.B[c.r:c.w])
	c.in = in // the old one belongs to the write
	c.successors.Add(1)
	go func() {
		defer c.successors.Done()
		c.push()
		c.receiveAll()
	}()
}

// receiveAll receives to the end of the connection, or until another goroutine
// does. The one that comes to the end tells serve.
func (c *serverConn) receiveAll() {
	err := c.receive()
	if errors.Is(err, errHandedOn) {
		return
	}
	if err != nil && !errors.Is(err, errGone) {
		c.stream.close() // nothing more can be said
	}
	if c.deserted(err) {
		c.abandon()
	}
	c.received <- err
}
