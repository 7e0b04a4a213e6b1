package rpc

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"sluice/block"
)

// Call is one call, used again and again. Its owner fills the exported fields of the
// first group, has Transport.Do make the call, and reads those of the second.
//
// Ownership: between the beginning of Do and its end the fields do not change; the
// transport's lock guards the third group. live holds the xid while a reply is
// expected: a server that guesses xids meets zero.
type Call struct {
	// Head is the call up to its payload: Transport.Start, and then the arguments.
	Head []byte
	// Data is the payload at the end of the call; its padding is the transport's.
	Data []byte
	// Into is where the payload of the reply goes.
	Into []byte
	// Find says where that is in the reply. nil: the reply has none.
	Find Finder
	// Changes says that the call changes something, so that its caller cannot leave
	// before the outcome is known once it was sent.
	Changes bool
	// Forsake, if set, is closed when nobody wants the outcome any more: a call that
	// waits for a connection is then given up, and so is one that the server does not
	// answer within a second.
	Forsake <-chan struct{}
	// Drained is called, by the transport's goroutine, when the reply to a call came
	// after its caller had left.
	Drained func()

	// Ended, if set, is told of the end of a call that was queued (see Queue), instead
	// of somebody who waits.
	Ended Ended

	// Reply holds the results without the payload. It is valid until the next call.
	Reply []byte
	// N is how many bytes of Into were filled.
	N int
	// Resent says that the call was sent more than once, so that it may have been
	// carried out before the server answered (or, without a reply cache, twice).
	Resent bool

	index      uint32
	xid        uint32
	queued     bool      // waits in Transport.queue
	sent       bool      // was given to a connection at least once
	forsaken   bool      // is not sent again
	large      bool      // its payload is worth a system call
	gen        uint32    // of xids
	seq        uint64    // order of submission
	told       Ended     // Ended of a call that was queued; nil where somebody waits
	toldChange bool      // its Changes
	lost       time.Time // when a connection first broke under it

	live atomic.Uint32
	busy atomic.Uint32 // which of callBusy… hold: see fill and leave
	lent atomic.Uint32 // of a call with Data: which of the two ends of its sending have come
	err  error

	done chan struct{} // one send per completion
}

// Ended is told of a call's end.
type Ended interface {
	// CallEnded is called once for each call, by any goroutine, and must not wait.
	// err is what Do would return. left: the connection broke, and the call, which
	// changes nothing, is not waited for: it is its owner's again when Drained was
	// called, but its buffer is free. What it returns, if not nil, is pushed when
	// what came together was told.
	CallEnded(err error, left bool) block.Pusher
}

// Finder knows the results of a procedure that returns bulk data.
type Finder interface {
	// Payload gives the place and the length of the data in results, of which the
	// beginning is there: at least all up to the data, if there is any. n is 0
	// where there is none, or where the reply is not what it should be: then all of
	// it is put into Reply.
	Payload(results []byte) (at, n int)
}

// The buffers of a call with Data are the writer's until the sending has ended, and
// the call the server's until it has answered. Neither order is sure: a server can
// answer before it has all of the call.
const (
	sendingEnded = 1 << iota
	answerCame
)

// A caller that leaves while its buffer is being filled has to wait for that.
const (
	filling uint32 = 1 << iota
	leaving
)

// xidOf puts the call's place into the low bits of each of its xids.
func (c *Call) nextXID() uint32 {
	c.gen++
	xid := c.gen<<indexBits | c.index
	if xid == 0 {
		c.gen++
		xid = c.gen<<indexBits | c.index
	}
	return xid
}

// answer hands the call back for the reader. It does not wait for the writer, who
// may in turn be waiting for a server that first wants its replies read.
func (c *Call) answer() block.Pusher {
	if len(c.Data) > 0 {
		return c.settle(answerCame)
	}
	return c.handBack()
}

// settle notes one of the two ends of a call with Data; whoever notes the second
// hands it back. The first must not touch it any more.
func (c *Call) settle(end uint32) block.Pusher {
	if c.lent.Or(end)|end == sendingEnded|answerCame {
		return c.handBack()
	}
	return nil
}

// handBack ends the call for who waits, or who wants to be told.
func (c *Call) handBack() block.Pusher {
	if ended := c.Ended; ended != nil {
		err := c.err
		c.release()
		return ended.CallEnded(err, false)
	}
	c.done <- struct{}{}
	return nil
}

// push pushes one.
func push(p block.Pusher) {
	if p != nil {
		p.Push()
	}
}

// fill claims the call for the reader, or whoever else ends it; false: the caller has
// left.
func (c *Call) fill() bool { return c.busy.CompareAndSwap(0, filling) }

// leave takes the call away from its caller; false: it is being ended.
func (c *Call) leave() bool { return c.busy.CompareAndSwap(0, leaving) }

// abandoned reports whether the caller has left.
func (c *Call) abandoned() bool { return c.busy.Load() == leaving }

// reset makes the call ready to be submitted.
func (c *Call) reset() {
	c.sent, c.forsaken, c.lost, c.err, c.N, c.Resent = false, false, time.Time{}, nil, 0, false
	c.Reply = c.Reply[:0]
}

// Err says, in Drained, why there is no reply.
func (c *Call) Err() error { return c.err }

// release drops what belongs to the caller.
func (c *Call) release() { c.Data, c.Into, c.Find, c.Forsake, c.Ended = nil, nil, nil, nil, nil }

// LostError says why a call has no outcome: there was no connection, for longer than
// the transport's patience.
type LostError struct {
	Cause error
	// Unresolved says that the call was sent and may be carried out yet.
	Unresolved bool
}

// Error gives the cause.
func (e *LostError) Error() string { return e.Cause.Error() }

// Unwrap gives the cause, and that it may be tried again.
func (e *LostError) Unwrap() []error { return []error{block.Transient, e.Cause} }

func markOf(p []byte) (n int, last bool) {
	v := binary.BigEndian.Uint32(p)
	return int(v &^ lastFragment), v&lastFragment != 0
}
