package rpc

import (
	"encoding/binary"
	"slices"

	"sluice/block"
)

// What happens to what the server sends, in this order:
//
//  1. mark: the record mark is read, and with it, in the usual case, many replies.
//  2. head: the xid leads to the call, which is claimed by taking its live away, so
//     that a second reply finds nobody. The header is checked.
//  3. payload: the call's Finder says where bulk data begins. What precedes it goes
//     to Call.Reply; the data to Call.Into, from the buffer or, where it is long,
//     straight from the socket.
//  4. answer: the caller is woken. It decodes Reply.
//
// A record in several fragments, which no common server sends, is put together in
// memory first.

// prefix is how much of a record is buffered before it is looked at: header with the
// longest verifier, and results up to the bulk data of any procedure.
const prefix = replyHead + maxVerifier + 256

// maxCallback is the longest call of a server's that is accepted.
const maxCallback = 64 << 10

// reader takes replies off a connection.
type reader struct {
	t      *Transport
	link   *Link
	served int            // replies delivered
	after  []block.Pusher // of what was told, to be pushed before the next wait
}

// run reads until the connection ends.
func (r *reader) run() error {
	defer r.push()
	for {
		if err := r.one(); err != nil {
			return err
		}
	}
}

// limit is how much a read should bring in.
func (r *reader) limit() int {
	if r.t.long.Load() > 0 {
		return headRead
	}
	return readBuffer
}

func (r *reader) one() error {
	s := r.link.stream
	r.pushBefore(markSize)
	if err := s.need(markSize, r.limit()); err != nil {
		return err
	}
	n, last := markOf(s.next(markSize))
	if !last {
		r.push()
		return r.fragments(n)
	}
	if err := r.check(n); err != nil {
		return err
	}
	r.pushBefore(min(n, prefix))
	if err := s.need(min(n, prefix), r.limit()); err != nil {
		return err
	}
	c, results, err := r.claim(s.buffered()[:min(n, prefix)])
	if err != nil {
		return err
	}
	if c == nil {
		return r.stranger(n)
	}
	taken := min(n, prefix) - len(results) // bytes of the record before the results
	if err := r.deliver(c, results, n-taken, taken); err != nil {
		return r.broken(c, err)
	}
	r.finish(c)
	return nil
}

func (r *reader) check(n int) error {
	switch {
	case n > r.t.cfg.MaxReply+prefix:
		return protocolError("a record of %d bytes where %d are the most", n, r.t.cfg.MaxReply+prefix)
	case n < 8:
		return protocolError("a record of %d bytes", n)
	}
	return nil
}

// claim finds the call that a reply is for and takes it away from all others. p is
// the beginning of the record. It gives what of p are results; none where the call
// failed, which then says so. Without a call, it is nobody's, or no reply.
func (r *reader) claim(p []byte) (c *Call, results []byte, err error) {
	xid, kind := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
	if kind != msgReply {
		return nil, nil, nil
	}
	calls := *r.t.calls.Load()
	i := xid & (maxCalls - 1)
	if int(i) >= len(calls) || xid == 0 || !calls[i].live.CompareAndSwap(xid, 0) {
		return nil, nil, nil
	}
	c = calls[i]
	c.fill() // or its caller has left
	r.t.heard.Store(now())
	if c.large {
		r.t.long.Add(-1)
	}
	results, refused, err := parseReply(p[4:])
	if err != nil {
		return nil, nil, r.broken(c, err)
	}
	if refused != nil {
		c.err = refused
		return c, nil, nil
	}
	return c, results, nil
}

// deliver moves the results of a reply, size bytes of which the first are at hand in
// results, to the call. Before them lie taken bytes in the buffer.
func (r *reader) deliver(c *Call, results []byte, size, taken int) error {
	s := r.link.stream
	s.r += taken
	c.Reply, c.N = c.Reply[:0], 0 // an earlier reply may have stopped in the middle
	if c.err != nil || c.abandoned() {
		r.pushBefore(size)
		return s.discard(size)
	}
	at, n := 0, 0
	if c.Find != nil {
		at, n = c.Find.Payload(results)
	}
	if n <= 0 {
		return r.keep(c, size)
	}
	if at < 0 || at > len(results) || n > size-at || n > len(c.Into) {
		return protocolError("%d bytes of data in a reply of %d, where %d were asked for", n, size, len(c.Into))
	}
	c.Reply = append(c.Reply, results[:at]...)
	s.r += at
	r.pushBefore(n)
	if err := s.fill(c.Into[:n]); err != nil {
		return err
	}
	c.N = n
	return s.discard(size - at - n)
}

// keep puts all the results into Call.Reply.
func (r *reader) keep(c *Call, size int) error {
	c.Reply = slices.Grow(c.Reply[:0], size)[:size]
	r.pushBefore(size)
	return r.link.stream.fill(c.Reply)
}

// finish hands a call back to its caller, or to nobody.
func (r *reader) finish(c *Call) {
	r.served++
	r.link.stream.woke = true
	if c.abandoned() {
		r.t.drained(c)
		return
	}
	r.t.flight.Add(-1)
	if p := c.answer(); p != nil && !slices.Contains(r.after, p) {
		r.after = append(r.after, p)
	}
}

// pushBefore pushes unless n bytes are at hand, so that nobody waits for what is yet
// to come.
func (r *reader) pushBefore(n int) {
	if len(r.after) > 0 && len(r.link.stream.buffered()) < n {
		r.push()
	}
}

// push pushes what was told since the last time.
func (r *reader) push() {
	for i, p := range r.after {
		r.after[i] = nil
		p.Push()
	}
	r.after = r.after[:0]
}

// broken is for a call that was claimed when the connection ended or made no sense
// any more: it is the one that the fault is told of. A reply that only stopped in the
// middle makes it one that is still owed.
func (r *reader) broken(c *Call, err error) error {
	if _, ok := err.(*ProtocolError); !ok {
		c.busy.CompareAndSwap(filling, 0)
		c.live.Store(c.xid) // detach finds it
		return err
	}
	c.err = err
	r.finish(c)
	return err
}

// stranger deals with a record that is no reply to a call of ours: one that came
// twice, an xid that nobody gave out, or a call of the server's.
func (r *reader) stranger(n int) error {
	s := r.link.stream
	if binary.BigEndian.Uint32(s.buffered()[4:]) != msgCall || r.t.cfg.Answer == nil {
		return s.discard(n)
	}
	if n > maxCallback {
		return protocolError("a call of the server's with %d bytes", n)
	}
	record := make([]byte, n)
	if err := s.fill(record); err != nil {
		return err
	}
	r.callback(record)
	return nil
}

// callback answers a call of the server's.
func (r *reader) callback(record []byte) {
	body := r.t.cfg.Answer(record[4:])
	if body == nil {
		return
	}
	b := make([]byte, 8, 8+len(body))
	copy(b[4:], record[:4])
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, lastFragment|uint32(len(b)-markSize))
	r.t.reply(r.link, b)
}

// fragments puts a record in several fragments together, of which the first has n
// bytes, and delivers it.
func (r *reader) fragments(n int) error {
	s := r.link.stream
	var record []byte
	for last, empty := false, 0; ; {
		if len(record)+n > r.t.cfg.MaxReply+prefix {
			return protocolError("fragments of a record with more than %d bytes", r.t.cfg.MaxReply+prefix)
		}
		if empty++; n > 0 {
			empty = 0
		}
		if empty > 16 {
			return protocolError("nothing but empty fragments")
		}
		from := len(record)
		record = slices.Grow(record, n)[:from+n]
		if err := s.fill(record[from:]); err != nil {
			return err
		}
		if last {
			break
		}
		if err := s.need(markSize, r.limit()); err != nil {
			return err
		}
		n, last = markOf(s.next(markSize))
	}
	return r.whole(record)
}

// whole delivers a record that is in memory.
func (r *reader) whole(record []byte) error {
	if err := r.check(len(record)); err != nil {
		return err
	}
	c, results, err := r.claim(record)
	if err != nil {
		return err
	}
	if c == nil {
		if binary.BigEndian.Uint32(record[4:]) == msgCall && r.t.cfg.Answer != nil && len(record) <= maxCallback {
			r.callback(record)
		}
		return nil
	}
	if c.err == nil && !c.abandoned() {
		if err := place(c, results); err != nil {
			return r.broken(c, err)
		}
	}
	r.finish(c)
	return nil
}

// place is deliver from memory.
func place(c *Call, results []byte) error {
	at, n := 0, 0
	c.N = 0
	if c.Find != nil {
		at, n = c.Find.Payload(results)
	}
	if n <= 0 {
		c.Reply = append(c.Reply[:0], results...)
		return nil
	}
	if at < 0 || at > len(results) || n > len(results)-at || n > len(c.Into) {
		return protocolError("%d bytes of data in a reply of %d, where %d were asked for", n, len(results), len(c.Into))
	}
	c.Reply = append(c.Reply[:0], results[:at]...)
	c.N = copy(c.Into, results[at:at+n])
	return nil
}
