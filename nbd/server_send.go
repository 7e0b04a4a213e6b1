package nbd

import (
	"errors"
	"sync"
)

// outbox is the queue of finished jobs. Whoever puts one in and finds nobody
// sending becomes the sender and sends until the queue is empty; so replies that
// are ready together leave in one system call, and no goroutine has to be woken
// for it. A sender that must not wait (the receiver, which has to go on
// receiving, or client and server could wait for each other) hands over to a
// goroutine when the client takes nothing.
type outbox struct {
	mu    sync.Mutex
	queue jobQueue
	busy  bool // somebody is sending, and owns vec and sending
	err   error

	vec     ioVec
	sending jobQueue // what vec is made of; its jobs are given back when sent

	handed sync.WaitGroup // goroutines that took sending over
}

func (b *outbox) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// wait returns when nobody sends any more; only after the last put.
func (b *outbox) wait() { b.handed.Wait() }

// patience is what a sender can bear when the client does not take its replies.
type patience uint8

const (
	patient   patience = iota // waits as long as it takes
	brief                     // waits for stallTime, then hands over
	impatient                 // does not wait, and sends nothing but its own
)

// put queues finished jobs and sends, if nobody else does.
func (c *serverConn) put(done jobQueue, how patience) {
	b := &c.box
	b.mu.Lock()
	b.queue.append(done)
	if b.busy {
		b.mu.Unlock()
		return
	}
	b.busy = true
	if how != patient && c.files == nil {
		c.handOver() // a TLS write cannot be left and taken up again
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	c.sendQueue(how)
}

// handOver goes on sending in a goroutine that may wait. The connection waits
// for it in box.wait.
func (c *serverConn) handOver() {
	c.box.handed.Add(1)
	go func() {
		defer c.box.handed.Done()
		c.sendQueue(patient)
	}()
}

// sendQueue sends until the queue is empty. The caller has set busy.
func (c *serverConn) sendQueue(how patience) {
	b := &c.box
	b.vec.nowait = how == impatient
	for first := true; ; first = false {
		if b.sending.head == nil {
			b.mu.Lock()
			if b.queue.head == nil {
				b.busy = false
				b.mu.Unlock()
				return
			}
			if how == impatient && (!first || b.queue.pinned()) {
				c.handOver()
				b.mu.Unlock()
				return
			}
			b.sending, b.queue = b.queue, jobQueue{}
			failed := b.err != nil
			b.mu.Unlock()
			if failed {
				c.sent(nil)
				continue
			}
		}
		switch err := c.sendSome(); {
		case err == nil:
		case errors.Is(err, errStalled) && how != patient:
			c.handOver()
			return
		case errors.Is(err, errStalled):
			if err := c.stream.wait(toSend); err != nil {
				c.breakOff(err)
			}
		default:
			c.breakOff(err)
		}
	}
}

// breakOff ends the connection after a failed send.
func (c *serverConn) breakOff(err error) {
	c.box.mu.Lock()
	if c.box.err == nil {
		c.box.err = gone(err)
	}
	c.box.mu.Unlock()
	c.stream.close()
	c.abandon()
	c.sent(nil)
}

// sendSome sends the jobs in sending up to and with the first that has a file
// range. When it returns an error it can be called again to go on.
func (c *serverConn) sendSome() error {
	b := &c.box
	last := b.sending.head
	for last.next != nil && !last.pinned {
		last = last.next
	}
	if len(b.vec.bufs) == 0 {
		for j := b.sending.head; ; j = j.next {
			b.vec.add(j.hdr[:j.hlen])
			b.vec.add(j.data)
			if j == last {
				break
			}
		}
		b.vec.more = last.pinned
	}
	if err := c.stream.send(&b.vec); err != nil {
		return err
	}
	if last.pinned {
		n, err := c.files.sendFile(last.file.FD, last.file.Off+last.fileSent, last.file.Len-last.fileSent)
		last.fileSent += n
		if err != nil {
			return err
		}
	}
	c.sent(last)
	return nil
}

// sent gives back the jobs up to last, or all.
func (c *serverConn) sent(last *job) {
	b := &c.box
	b.vec.reset()
	for j := b.sending.pop(); j != nil; j = b.sending.pop() {
		if j.pinned {
			c.dev.Ranger.UnpinRange(j.file)
			j.pinned, j.fileSent = false, 0
		}
		end := j == last
		c.budget.give(j)
		if end {
			return
		}
	}
}

// The forms of replies follow. Each writes into p and returns the length.

// readHeaderSize is the length of what precedes the data of a whole read.
func (c *serverConn) readHeaderSize() int {
	switch {
	case c.extended:
		return chunkExtendedSize + 8
	case c.structured:
		return chunkSize + 8
	}
	return simpleReplySize
}

// putReadHeader writes the header of a read that is answered in one piece.
func (c *serverConn) putReadHeader(p []byte, req request) {
	if !c.structured {
		putSimpleReply(p, wireOK, req.cookie)
		return
	}
	n := putChunk(p, chunk{
		flags: chunkFlagDone, typ: chunkOffsetData, cookie: req.cookie, offset: req.offset, length: 8 + req.length,
	}, c.extended)
	be.PutUint64(p[n:], req.offset)
}

// putDone writes a reply without data.
func (c *serverConn) putDone(p []byte, req request) int {
	if !c.structured || !c.extended && req.cmd != cmdRead && req.cmd != cmdBlockStatus {
		putSimpleReply(p, wireOK, req.cookie)
		return simpleReplySize
	}
	return putChunk(p, chunk{flags: chunkFlagDone, typ: chunkNone, cookie: req.cookie, offset: req.offset}, c.extended)
}

// putError writes an error reply, with its text where the form has room for one.
func (c *serverConn) putError(p []byte, req request, code wireError, text string) int {
	if !c.structured {
		putSimpleReply(p, code, req.cookie)
		return simpleReplySize
	}
	n := putChunk(p, chunk{
		flags: chunkFlagDone, typ: chunkError, cookie: req.cookie, offset: req.offset, length: uint64(6 + len(text)),
	}, c.extended)
	be.PutUint32(p[n:], uint32(code))
	be.PutUint16(p[n+4:], uint16(len(text)))
	return n + 6 + copy(p[n+6:], text)
}

// jobError turns a job into an error reply.
func (c *serverConn) jobError(j *job, code wireError, text string) {
	text = clip(text)
	if j.buf != nil {
		j.buf.Release()
	}
	j.buf = errorBuffer(len(text))
	j.hlen = 0
	j.data = j.buf.B[:c.putError(j.buf.B, j.req, code, text)]
}

// finishRead completes a read that the receiver has carried out.
func (c *serverConn) finishRead(j *job) {
	j.hlen = c.readHeaderSize()
	c.putReadHeader(j.hdr[:], j.req)
	c.note(OpRead, int64(j.req.length), 0)
	c.put(jobQueue{}.with(j), brief)
}
