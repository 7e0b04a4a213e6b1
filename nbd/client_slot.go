package nbd

import (
	"sync/atomic"
	"time"

	"sluice/block"
)

// clientSlot is one request, from the call that makes it until that call
// returns. Slots are made with the lane and used again and again.
//
// Ownership: the caller fills the fields of the first group and submits; from
// then on they do not change until completion. The lane's lock guards the second
// group. The third belongs to the reader while live holds the cookie, and to the
// caller after completion. Writing to live before sending, and loading it before
// anything else when a cookie comes back, is what orders these accesses: a server
// that guesses cookies meets zero.
type clientSlot struct {
	index uint32

	cmd    command
	flags  commandFlags
	off    int64
	n      int64         // payload or effect length
	buf    []byte        // the caller's: filled by a read, sent by a write
	status *clientStatus // where block status goes

	queued bool      // waits in lane.queue
	sent   bool      // was given to a connection at least once
	giveUp bool      // the caller wants it back
	seq    uint64    // order of submission
	lost   time.Time // when a connection first broke under it

	lent atomic.Uint32 // of a write: which of the two ends of its sending have come

	live    atomic.Uint64
	gen     uint32 // makes each use's cookie its own
	cover   clientCover
	code    wireError // from the server; first one counts
	fault   *clientFault
	replied bool   // the reply has come; for a caller that reads itself
	err     error  // set where the lane, not the server, failed it
	born    uint64 // of the connection that answered, see clientDurability

	done chan struct{} // one send per completion
}

// clientFault is what an error chunk says beyond its number.
type clientFault struct {
	text string
	off  int64 // -1: not told
}

func (s *clientSlot) cookie() uint64 { return uint64(s.gen)<<32 | uint64(s.index) }

// changes reports whether the request changes the export.
func (s *clientSlot) changes() bool {
	switch s.cmd {
	case cmdWrite, cmdWriteZeroes, cmdTrim:
		return true
	}
	return false
}

// volatile reports whether the request's effect needs a flush to last.
func (s *clientSlot) volatile() bool {
	return (s.cmd == cmdWrite || s.cmd == cmdWriteZeroes) && s.flags&cfFUA == 0
}

// reset makes the slot ready for a first or a repeated sending.
func (s *clientSlot) reset() {
	s.cover.reset()
	s.code, s.fault, s.err = wireOK, nil, nil
	s.lent.Store(0)
	if s.status != nil {
		s.status.reset()
	}
}

// complete hands the slot back to its caller.
func (s *clientSlot) complete() {
	s.live.Store(0)
	s.done <- struct{}{}
}

// The buffer of a write is the writer's until the sending has ended, and the
// request the server's until it has answered. Neither order is sure: a server can
// refuse a write by its header alone.
const (
	clientSent     = 1 << iota // the writer is through with the buffer, in whatever way
	clientAnswered             // the reply has come
)

// answer is complete for the reader. It does not wait for the writer, who may in
// turn be waiting for a server that first wants its replies read.
func (s *clientSlot) answer() {
	s.live.Store(0)
	if s.cmd == cmdWrite {
		s.settle(clientAnswered)
		return
	}
	s.done <- struct{}{}
}

// settle notes one of a write's two ends; whoever notes the second hands the slot
// back. The first must not touch it any more.
func (s *clientSlot) settle(end uint32) {
	if s.lent.Or(end)|end == clientSent|clientAnswered {
		s.done <- struct{}{}
	}
}

// fail notes an error chunk. Only the first counts.
func (s *clientSlot) fail(code wireError, text string, off int64) {
	if s.code != wireOK {
		return
	}
	s.code = code
	if text != "" || off >= 0 {
		s.fault = &clientFault{text: text, off: off}
	}
}

// place is the offset that an error names: a flush has none.
func (s *clientSlot) place(op string) int64 {
	if op == "flush" {
		return -1
	}
	return s.off
}

// result is what the request ended with, as an error that names op and object.
func (s *clientSlot) result(op, object string) error {
	if s.err != nil {
		kind := block.KindOf(s.err)
		if e, ok := s.err.(*clientError); ok {
			kind = e.kind // not that of the last attempt to connect, which it wraps
		}
		return &block.Error{Kind: kind, Op: op, Object: object, Off: s.place(op), Err: s.err}
	}
	if s.code == wireOK {
		return nil
	}
	e := &block.Error{Kind: kindOfWire(s.code), Op: op, Object: object, Off: s.place(op), Err: s.code}
	if s.fault != nil {
		if s.fault.off >= 0 {
			e.Off = s.fault.off
		}
		if s.fault.text != "" {
			e.Err = &clientTextError{code: s.code, text: s.fault.text}
		}
	}
	switch {
	case s.changes() && s.code == wireEPERM:
		e.Kind = block.ReadOnly
	case s.code == wireESHUTDOWN:
		e.Kind = block.Transient // it is the server that ends, not this Device
	case s.promises() && e.Kind == block.Transient:
		e.Kind = block.IO
	}
	return e
}

// promises reports whether success says something of what is durable. A server
// that fails such a request by itself may have lost writes and say so only this
// once: that must not look like something to try again.
func (s *clientSlot) promises() bool { return s.cmd == cmdFlush || s.flags&cfFUA != 0 }

// clientTextError is a server's error with the text that came along.
type clientTextError struct {
	code wireError
	text string
}

func (e *clientTextError) Error() string { return e.code.Error() + ": " + e.text }
func (e *clientTextError) Unwrap() error { return e.code }

// clientCover tracks which bytes of a read have come. One run, the usual case,
// needs no memory beyond the struct.
type clientCover struct {
	total int64 // bytes that have come
	lo    int64 // first run, [lo, hi)
	hi    int64
	more  []clientSpan // further runs, sorted, apart from each other and from the first
}

type clientSpan struct{ lo, hi int64 }

// clientMaxSpans bounds how scattered a reply may be. Chunks that come in order
// make one run however small they are; only those out of order add to the number.
const clientMaxSpans = 4096

func (c *clientCover) reset() {
	more := c.more[:0]
	if cap(more) > 64 {
		more = nil
	}
	*c = clientCover{more: more}
}

// add marks [lo, hi) as come. It fails where a part of it was there already.
func (c *clientCover) add(lo, hi int64) error {
	switch {
	case c.total == 0:
		c.lo, c.hi = lo, hi
	case lo < c.hi && hi > c.lo:
		return clientProtocolError("bytes %d to %d of a read came twice", max(lo, c.lo), min(hi, c.hi))
	case len(c.more) > 0:
		if err := c.insert(lo, hi); err != nil {
			return err
		}
	case lo == c.hi:
		c.hi = hi
	case hi == c.lo:
		c.lo = lo
	default:
		c.more = append(c.more, clientSpan{lo, hi})
	}
	c.total += hi - lo
	return nil
}

// insert is add for scattered replies.
func (c *clientCover) insert(lo, hi int64) error {
	i, j := 0, len(c.more)
	for i < j { // the first run that ends after lo
		if m := (i + j) / 2; c.more[m].hi > lo {
			j = m
		} else {
			i = m + 1
		}
	}
	if i < len(c.more) && c.more[i].lo < hi {
		return clientProtocolError("bytes %d to %d of a read came twice", max(lo, c.more[i].lo), min(hi, c.more[i].hi))
	}
	switch {
	case i > 0 && c.more[i-1].hi == lo:
		c.more[i-1].hi = hi
	case i < len(c.more) && c.more[i].lo == hi:
		c.more[i].lo = lo
	case lo == c.hi:
		c.hi = hi
	case hi == c.lo:
		c.lo = lo
	case len(c.more) >= clientMaxSpans:
		return clientProtocolError("a read's reply in more than %d scattered pieces", clientMaxSpans)
	default:
		c.more = append(c.more, clientSpan{})
		copy(c.more[i+1:], c.more[i:])
		c.more[i] = clientSpan{lo, hi}
	}
	return nil
}
