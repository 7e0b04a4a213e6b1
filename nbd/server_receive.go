package nbd

import (
	"errors"
	"fmt"
	"io"
	"time"

	"sluice/block"
	"sluice/block/buffer"
)

const (
	// inSize is the receive buffer: two thousand read requests, or fifteen
	// writes of 4 KiB.
	inSize = 64 << 10
	// outSize is the buffer in which small replies are put together. They are
	// sent when there are pushSize of them, not only at the end of a batch: the
	// client takes the first while the last are read.
	outSize  = 64 << 10
	pushSize = 32 << 10
	// inlineMax is the longest read that the receiver answers into out.
	inlineMax = 16 << 10
	// nowaitMax is the longest read that the receiver tries to answer itself.
	nowaitMax = 1 << 20
	// sendFileMin is the shortest read for which sendfile beats a copy.
	sendFileMin = 32 << 10
	// maxSkip is the longest payload of a bad request that is thrown away to
	// keep the connection; a longer one ends it.
	maxSkip = 2 * maxPayload
	// splitMin is the shortest write that is taken in pieces of pieceSize. A
	// piece fits into the processor's second-level cache.
	splitMin  = 512 << 10
	pieceSize = 256 << 10
	// batchMax is how many answered requests are counted together.
	batchMax = 64
)

// receiver is what the receiving goroutine owns.
type receiver struct {
	in   *buffer.Buffer // nil while the connection is silent
	r, w int            // in.B[r:w] was received and not used yet

	lean bool    // the last request was a large write: see fill
	next waiting // for the next request

	out     *job // replies that the receiver has put together; nil when none
	n       int  // bytes of it
	replies int  // in it

	start time.Duration // when the batch arrived
	batch [batchMax]answered
	count int // of batch
}

// answered is what the observer is told of a request.
type answered struct {
	op    Op
	bytes int64
	kind  block.Kind
}

// free gives the buffers back at the end.
func (r *receiver) free() {
	if r.in != nil {
		r.in.Release()
		r.in = nil
	}
}

// receive reads requests until the client disconnects (nil), or something makes
// it impossible to go on.
func (c *serverConn) receive() error {
	for {
		if err := c.fill(c.headerSize, c.next); err != nil {
			if errors.Is(err, io.EOF) && c.w == c.r && c.draining.Load() {
				return nil
			}
			return err
		}
		if c.observed {
			c.start = now()
		}
		requests := 0
		for ; c.w-c.r >= c.headerSize; requests++ {
			if c.context().Err() != nil { // nobody waits for what is left
				c.push()
				return errGone
			}
			done, err := c.request()
			if err == errHandedOn {
				return err // and touch nothing
			}
			if done || err != nil {
				c.push()
				return err
			}
		}
		c.push()
		c.next = forRequest
		if requests == 1 && c.r == c.w {
			c.next = forAnswer
		}
	}
}

// fill receives until n bytes are there, and what else has come. After a large
// write it takes no more than the header of the next request: large writes follow
// each other, and their payload is received where it stays.
func (c *serverConn) fill(n int, what waiting) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.in == nil {
		c.in = buffer.Get(inSize)
	}
	if c.r > 0 {
		c.w = copy(c.in.B, c.in.B[c.r:c.w])
		c.r = 0
	}
	for c.w < n {
		limit := inSize
		if c.lean && what != forRest {
			limit = n
		}
		if c.w > 0 {
			what = forRest
		}
		k, err := c.stream.recv(c.in.B[c.w:limit], what)
		if err == errIdle {
			err = c.idle()
		}
		if err != nil {
			return fmt.Errorf("receive: %w", gone(err))
		}
		c.w += k
	}
	return nil
}

// idle gives up what a silent connection does not need and waits.
func (c *serverConn) idle() error {
	c.in.Release()
	c.in = nil
	err := c.stream.wait(toReceive)
	c.in = buffer.Get(inSize)
	return err
}

// request handles the request at the front of the buffer. done: it was a
// disconnect.
func (c *serverConn) request() (done bool, err error) {
	head := c.in.B[c.r:c.w]
	magic := be.Uint32(head)
	var req request
	if c.extended {
		if magic != magicRequestExtended {
			return false, fmt.Errorf("request has magic %#x, extended headers were agreed", magic)
		}
		req = decodeRequestExtended(head)
	} else {
		if magic != magicRequest {
			return false, fmt.Errorf("request has magic %#x", magic)
		}
		req = decodeRequest(head)
	}
	c.r += c.headerSize
	c.lean = req.cmd == cmdWrite && req.length >= inSize
	if req.cmd == cmdRead && c.validRead(&req) {
		return false, c.read(req)
	}
	return c.otherRequest(req)
}

// validRead is the short way through validate for what is asked most.
func (c *serverConn) validRead(req *request) bool {
	return req.flags == 0 && req.length-1 < maxPayload && req.offset <= c.size && req.length <= c.size-req.offset &&
		(req.offset|req.length)&c.misaligned == 0
}

func (c *serverConn) otherRequest(req request) (done bool, err error) {
	if req.cmd == cmdDisconnect {
		return true, nil
	}
	payload := c.payloadLength(req)
	fault := c.validate(req)
	if fault.code != wireOK {
		if err := c.skip(payload); err != nil {
			return false, err
		}
		return false, c.refuse(req, fault)
	}
	switch {
	case req.cmd == cmdRead && req.length > 0:
		return false, c.read(req)
	case req.cmd == cmdWrite && req.length > 0:
		return false, c.write(req)
	case req.cmd == cmdBlockStatus || req.cmd == cmdFlush || req.length > 0:
		return false, c.enqueue(req, payload)
	}
	return false, c.answer(req, block.OK) // nothing to do for a length of zero
}

// payloadLength is the number of bytes that follow the header.
func (c *serverConn) payloadLength(req request) uint64 {
	if req.cmd == cmdWrite || c.extended && req.flags&cfPayloadLen != 0 {
		return req.length
	}
	return 0
}

// skip throws away a payload. Beyond maxSkip the client is not worth it.
func (c *serverConn) skip(n uint64) error {
	if n > maxSkip {
		return fmt.Errorf("request with %d bytes of payload", n)
	}
	for n > 0 {
		if c.r == c.w {
			c.push()
			if err := c.fill(1, forRest); err != nil {
				return err
			}
		}
		k := min(n, uint64(c.w-c.r))
		c.r += int(k)
		n -= k
	}
	return nil
}

// payload receives n bytes into a buffer of their own: what has arrived is
// copied, the rest received in place.
func (c *serverConn) payload(p []byte) error {
	k := copy(p, c.in.B[c.r:c.w])
	c.r += k
	if k < len(p) {
		c.push()
	}
	for k < len(p) {
		n, err := c.stream.recv(p[k:], forRest)
		if err != nil {
			return fmt.Errorf("receive payload: %w", gone(err))
		}
		k += n
	}
	return nil
}

// read answers a valid read at once if the bytes are at hand, and makes a job of
// it otherwise.
func (c *serverConn) read(req request) error {
	if req.length <= inlineMax {
		if c.dev.Nowaiter != nil && c.readInline(req) {
			return nil
		}
	} else if c.readWhole(req) {
		return nil
	}
	if c.startRead(req) {
		return nil
	}
	return c.enqueue(req, 0)
}

// readInline puts a small read into the common reply buffer.
func (c *serverConn) readInline(req request) bool {
	hlen := c.readHeaderSize()
	size := hlen + int(req.length)
	c.reserve(size)
	p := c.out.buf.B[c.n : c.n+size]
	if err := c.dev.Nowaiter.ReadNowait(p[hlen:], int64(req.offset)); err != nil {
		return false // would block, or an error: a worker finds out which
	}
	c.putReadHeader(p, req)
	c.n += size
	c.replies++
	c.note(OpRead, int64(req.length), block.OK)
	if c.n >= pushSize {
		c.push()
	}
	return true
}

// readWhole answers a larger read that fits one reply: from the file's pages by
// sendfile, or through a buffer of its own.
func (c *serverConn) readWhole(req request) bool {
	if c.mayHaveHoles(req) {
		return false
	}
	if c.dev.Ranger != nil && req.length >= sendFileMin && c.files != nil {
		r, ok := c.dev.Ranger.PinRange(int64(req.offset), int64(req.length))
		if ok && r.Resident && r.Len == int64(req.length) {
			c.push()
			j := c.begin(req, OpRead, 0)
			j.file, j.pinned = r, true
			c.finishRead(j)
			return true
		}
		if ok {
			c.dev.Ranger.UnpinRange(r)
		}
		return false
	}
	if c.dev.Nowaiter == nil || req.length > nowaitMax || c.budget.tight(int64(req.length)) {
		return false
	}
	buf := buffer.Get(int(req.length))
	if c.dev.Nowaiter.ReadNowait(buf.B, int64(req.offset)) != nil {
		buf.Release()
		return false
	}
	c.push()
	j := c.begin(req, OpRead, int64(req.length))
	j.buf, j.data = buf, buf.B
	c.finishRead(j)
	return true
}

// write takes a valid write's payload and queues it.
func (c *serverConn) write(req request) error {
	n := int(req.length)
	if c.dev.Info.Has(block.CapNowaitWrites) && n <= c.w-c.r {
		p := c.in.B[c.r : c.r+n]
		c.r += n
		err := c.writeDevice(c.context(), p, req)
		return c.answerErr(req, err)
	}
	if n <= inlineWriteMax && c.laned.lane != nil && req.flags&cfFUA == 0 {
		if c.w-c.r < n {
			c.push()
			if err := c.fill(n, forRest); err != nil {
				return err
			}
		}
		if done, err := c.writeInline(req); done {
			return err
		}
	}
	if c.budget.tight(int64(n)) {
		c.push()
	}
	j := c.begin(req, OpWrite, int64(n))
	if n >= splitMin && req.flags&cfFUA == 0 {
		return c.writeSplit(j)
	}
	j.buf = buffer.Get(n)
	if err := c.payload(j.buf.B); err != nil {
		c.budget.give(j)
		return err
	}
	if !c.startWrite(j) {
		c.submit(j)
	}
	return nil
}

// writeSplit takes a large write's payload in pieces, so that one is written
// while the next is received. The write is answered when all are done. (A client
// that dies in the middle has never been promised anything.)
func (c *serverConn) writeSplit(whole *job) error {
	whole.pieces.Store(1) // the receiver's own share
	whole.failed.Store(nil)
	whole.dropped.Store(false)
	c.obs.InFlight(OpWrite, +1)
	req := whole.req
	for rest := req.length; rest > 0; {
		n := min(rest, pieceSize)
		j := c.budget.piece()
		j.req = request{cmd: cmdWrite, offset: req.offset + req.length - rest, length: n}
		j.op, j.whole = OpWrite, whole
		j.buf = buffer.Get(int(n))
		if err := c.payload(j.buf.B); err != nil {
			c.budget.give(j)
			whole.dropped.Store(true) // also when it is a piece that ends it
			c.pieceDone(whole, nil)
			return err
		}
		whole.pieces.Add(1)
		c.submit(j)
		rest -= n
	}
	if j := c.pieceDone(whole, nil); j != nil {
		c.put(jobQueue{}.with(j), brief)
	}
	return nil
}

// enqueue makes a job of a request without a write's payload.
func (c *serverConn) enqueue(req request, payload uint64) error {
	charge := int64(payload)
	switch req.cmd {
	case cmdRead:
		charge = int64(req.length)
	case cmdBlockStatus:
		charge += int64(statusSize(len(c.contexts)))
	}
	if c.budget.tight(charge) {
		c.push()
	}
	j := c.begin(req, opOf(req.cmd), charge)
	if payload > 0 { // a status request's filter
		j.buf = buffer.Get(int(payload))
		if err := c.payload(j.buf.B); err != nil {
			c.budget.give(j)
			return err
		}
	}
	c.submit(j)
	return nil
}

// begin takes a job for a request.
func (c *serverConn) begin(req request, op Op, bytes int64) *job {
	j := c.budget.take(bytes)
	j.req, j.op, j.start = req, op, c.start
	return j
}

// refuse answers a request that validate found bad.
func (c *serverConn) refuse(req request, f fault) error {
	c.note(opOf(req.cmd), 0, f.kind)
	return c.appendError(req, f.code, f.text)
}

// answerErr answers a request that the receiver carried out itself.
func (c *serverConn) answerErr(req request, err error) error {
	if err == nil {
		return c.answer(req, block.OK)
	}
	kind := block.KindOf(err)
	c.failed(req, err)
	c.note(opOf(req.cmd), int64(req.length), kind)
	return c.appendError(req, c.wireErrorFor(req, kind), clientText(err))
}

// answer puts a reply without data into the common buffer.
func (c *serverConn) answer(req request, kind block.Kind) error {
	c.reserve(len(job{}.hdr))
	c.n += c.putDone(c.out.buf.B[c.n:], req)
	c.replies++
	c.note(opOf(req.cmd), int64(req.length), kind)
	return nil
}

// appendError puts an error reply into the common buffer.
func (c *serverConn) appendError(req request, code wireError, text string) error {
	text = clip(text)
	c.reserve(chunkExtendedSize + 6 + len(text))
	c.n += c.putError(c.out.buf.B[c.n:], req, code, text)
	c.replies++
	return nil
}

// reserve makes room for a reply of that size in the common buffer.
func (c *serverConn) reserve(size int) {
	if c.out != nil && c.n+size > outSize {
		c.push()
	}
	if c.out == nil {
		c.out = c.budget.take(outSize)
		c.out.buf = buffer.Get(outSize)
		c.n, c.replies = 0, 0
	}
}

// push sends the replies that the receiver has put together, and reports the
// batch.
func (c *serverConn) push() {
	c.kickStarted()
	if c.count > 0 {
		c.report()
	}
	if c.out == nil {
		return
	}
	j := c.out
	c.out = nil
	if c.n == 0 {
		c.budget.give(j)
		return
	}
	j.data = j.buf.B[:c.n]
	c.put(jobQueue{}.with(j), brief)
}

// note remembers an answered request for report.
func (c *serverConn) note(op Op, bytes int64, kind block.Kind) {
	if !c.observed {
		return
	}
	if c.count == batchMax {
		c.report()
	}
	c.batch[c.count] = answered{op, bytes, kind}
	c.count++
}

// report tells the observer of the batch: the clock is read once for all.
func (c *serverConn) report() {
	took := now() - c.start
	for _, a := range c.batch[:c.count] {
		c.obs.Request(a.op, a.bytes, took, a.kind)
	}
	c.count = 0
}
