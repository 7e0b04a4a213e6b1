package v4

import (
	"errors"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// Reads and writes that nobody waits for in a goroutine. Their way is that of the others
// (call.go), without its detours: what cannot be sent at once is not begun, and what does
// not go well is an error, after which the caller takes the other way.

var _ remote.Starter = (*File)(nil)

// started is an operation that was sent from a slot and that nobody waits for. One of
// the two is under way.
type started struct {
	c       *Client
	sl      *slot
	reading remote.ReadDone
	writing remote.WriteDone
	read    readOp
	write   writeOp
}

// StartRead implements remote.Starter.
func (f *File) StartRead(p []byte, off int64, done remote.ReadDone) bool {
	if len(p) > f.limits.Read {
		return false
	}
	sl := f.begin()
	if sl == nil {
		return false
	}
	sl.started.reading = done
	sl.started.read = readOp{f: f, p: p, off: off}
	return f.queue(sl, &sl.started.read)
}

// StartWrite implements remote.Starter.
func (f *File) StartWrite(p []byte, off int64, stable bool, done remote.WriteDone) bool {
	if len(p) > f.limits.Write {
		return false
	}
	sl := f.begin()
	if sl == nil {
		return false
	}
	sl.started.writing = done
	sl.started.write = writeOp{f: f, p: p, off: off, stable: stable}
	return f.queue(sl, &sl.started.write)
}

// begin takes a slot for a call, if all is as it should be. The caller is inside the
// gate then.
func (f *File) begin() *slot {
	if !f.gate.Enter() {
		return nil
	}
	c := f.c
	s := c.current.Load()
	if f.lost.Load() || s == nil || s.spoiled.Load() {
		f.gate.Leave()
		return nil
	}
	sl := c.slots.try()
	if sl == nil {
		f.gate.Leave()
		return nil
	}
	if sl.session != s {
		sl.session, sl.seq = s, 0
	}
	sl.started.c, sl.started.sl = c, sl
	return sl
}

// queue encodes and queues the call of a slot.
func (f *File) queue(sl *slot, op operation) bool {
	sl.seq++
	f.c.encode(sl, op)
	sl.call.Ended = &sl.started
	sl.file.Store(f)
	if sl.id < sl.session.fore.maxSlots && sl.t.Queue(sl.call) {
		select {
		case <-f.closing: // it may have looked before the call was there
			sl.t.Abandon(sl.call)
		default:
		}
		return true
	}
	sl.call.Ended = nil
	sl.file.Store(nil)
	sl.started.clear()
	sl.seq--
	f.c.slots.release(sl)
	f.gate.Leave()
	return false
}

// clear forgets what belongs to others.
func (st *started) clear() {
	st.reading, st.writing = nil, nil
	st.read.f, st.read.p, st.write.f, st.write.p = nil, nil, nil, nil
}

// Kick implements remote.Starter.
func (f *File) Kick() {
	for _, t := range f.c.transports {
		t.Kick()
	}
}

// CallEnded implements rpc.Ended.
func (st *started) CallEnded(err error, left bool) block.Pusher {
	sl, f := st.sl, st.sl.file.Swap(nil)
	reading, writing := st.reading, st.writing
	var n int
	var written remote.Written
	switch {
	case left:
	case err != nil:
		st.unanswered(err)
	default:
		err = st.outcome()
		n, written = st.read.n, st.write.written
	}
	st.clear()
	if !left { // else the slot is free when the reply has come
		st.c.slots.release(sl)
	}
	f.gate.Leave()
	if reading != nil {
		return reading.ReadDone(n, err)
	}
	return writing.WriteDone(written, err)
}

// unanswered notes what is known of the slot's sequence number: see Client.unanswered.
func (st *started) unanswered(err error) {
	var lost *rpc.LostError
	var refused *rpc.ReplyError
	if errors.As(err, &refused) || errors.As(err, &lost) && !lost.Unresolved {
		st.sl.seq--
		return
	}
	st.sl.session.spoiled.Store(true)
}

// outcome decodes the reply.
func (st *started) outcome() error {
	var op operation = &st.write
	if st.reading != nil {
		op = &st.read
	}
	v, err := st.c.outcome(st.sl, op)
	if v == gone {
		st.c.lose(st.sl.session)
	}
	if err == nil && st.reading != nil && st.read.n == 0 && !st.read.eof && len(st.read.p) > 0 {
		return breach("a READ of no bytes before the end of the file")
	}
	if v != over && err == nil {
		return errors.New("it has to be sent again")
	}
	return err
}

// abandonStarted ends the started calls of a file that is being closed.
func (c *Client) abandonStarted(f *File) {
	for _, sl := range c.slots.all {
		if sl.file.Load() == f {
			sl.t.Abandon(sl.call)
		}
	}
}
