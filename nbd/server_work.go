package nbd

import (
	"context"
	"errors"
	"sync"
	"time"

	"sluice/block"
	"sluice/block/buffer"
)

// workers runs a connection's jobs. One starts for each job, as long as there are
// fewer than allowed, and ends when no job waits: to start a goroutine costs no
// more than to wake one, and one that waits would count against the server's
// bound.
type workers struct {
	mu      sync.Mutex
	queue   jobQueue
	max     int
	running int

	run   func() // serverConn.worker, made once so that starting it allocates nothing
	ended sync.WaitGroup
}

// jobQueue is a list of jobs, first in first out.
type jobQueue struct {
	head, tail *job
	n          int
}

// with is the queue with one more job.
func (q jobQueue) with(j *job) jobQueue {
	q.push(j)
	return q
}

// append moves all of other's jobs to the end.
func (q *jobQueue) append(other jobQueue) {
	switch {
	case other.head == nil:
	case q.tail == nil:
		*q = other
	default:
		q.tail.next, q.tail = other.head, other.tail
		q.n += other.n
	}
}

func (q *jobQueue) push(j *job) {
	j.next = nil
	if q.tail == nil {
		q.head = j
	} else {
		q.tail.next = j
	}
	q.tail = j
	q.n++
}

// pinned reports whether a job in it has a file range to send.
func (q *jobQueue) pinned() bool {
	for j := q.head; j != nil; j = j.next {
		if j.pinned {
			return true
		}
	}
	return false
}

func (q *jobQueue) pop() *job {
	j := q.head
	if j != nil {
		q.head = j.next
		if q.head == nil {
			q.tail = nil
		}
		j.next = nil
		q.n--
	}
	return j
}

// submit hands a job to the device's lane or to a worker.
func (c *serverConn) submit(j *job) {
	if j.whole == nil {
		c.obs.InFlight(j.op, +1)
	}
	// A write with FUA waits for the medium, not for other writes: those may go
	// on in parallel.
	if c.laned.lane != nil && j.op == OpWrite && j.req.flags&cfFUA == 0 {
		c.laned.add(j)
		return
	}
	w := &c.work
	w.mu.Lock()
	w.queue.push(j)
	start := w.running == 0 || w.running < w.max && c.srv.workers.Load() < int64(c.srv.cfg.MaxWorkers)
	if start {
		w.running++
	}
	w.mu.Unlock()
	if start {
		c.srv.workers.Add(1)
		w.ended.Add(1)
		go w.run()
	}
}

func (c *serverConn) worker() {
	defer c.work.ended.Done()
	defer c.srv.workers.Add(-1)
	ctx := c.context()
	for {
		j := c.work.next()
		if j == nil {
			return
		}
		if j = c.execute(ctx, j); j != nil {
			c.put(jobQueue{}.with(j), patient)
		}
	}
}

// next takes a job; nil when the worker is to end.
func (w *workers) next() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.queue.pop()
	if j == nil {
		w.running--
	}
	return j
}

// wait returns when all jobs are done; only after the last submit.
func (w *workers) wait() { w.ended.Wait() }

// execute carries out a job in the device and makes its reply. It returns the
// job that is to be sent: nil for a piece of a write that is not the last, and
// for a client that is gone, whose requests are not begun any more: after it has
// come back and written anew, an old write would undo that.
func (c *serverConn) execute(ctx context.Context, j *job) *job {
	if whole := j.whole; whole != nil {
		var err error
		if ctx.Err() != nil {
			whole.dropped.Store(true)
		} else {
			err = c.writeDevice(ctx, j.buf.B, j.req)
		}
		c.budget.give(j)
		return c.pieceDone(whole, err)
	}
	if ctx.Err() != nil {
		c.forget(j)
		return nil
	}
	var err error
	switch j.req.cmd {
	case cmdRead:
		err = c.readDevice(ctx, j)
	case cmdWrite:
		err = c.writeDevice(ctx, j.buf.B, j.req)
	case cmdFlush:
		err = c.dev.Flush(ctx)
	case cmdTrim:
		err = c.trimDevice(ctx, j.req)
	case cmdWriteZeroes:
		err = c.zeroDevice(ctx, j.req)
	case cmdCache:
		if c.dev.Prefetch != nil {
			err = c.dev.Prefetch.Prefetch(ctx, int64(j.req.offset), int64(j.req.length))
		}
	case cmdBlockStatus:
		err = c.statusDevice(ctx, j)
	}
	c.finish(j, err)
	return j
}

// pieceDone takes note of the end of a piece of a write; after the last it
// completes the write and returns it, unless nobody waits for it.
func (c *serverConn) pieceDone(whole *job, err error) *job {
	if err != nil {
		first := err // not err itself, which would move to the heap each time
		whole.failed.CompareAndSwap(nil, &first)
	}
	if whole.pieces.Add(-1) > 0 {
		return nil
	}
	if whole.dropped.Load() {
		c.forget(whole)
		return nil
	}
	err = nil
	if failed := whole.failed.Load(); failed != nil {
		err = *failed
	}
	c.finish(whole, err)
	return whole
}

// finish completes a job: the one place where its outcome is counted and its
// reply made.
func (c *serverConn) finish(j *job, err error) {
	kind := block.KindOf(err)
	switch {
	case err != nil:
		c.failed(j.req, err)
		c.jobError(j, c.wireErrorFor(j.req, kind), clientText(err))
	case j.req.cmd == cmdRead || j.req.cmd == cmdBlockStatus:
	default:
		if j.buf != nil { // the payload is written: free it before the reply waits
			j.buf.Release()
			j.buf = nil
		}
		j.hlen = c.putDone(j.hdr[:], j.req)
	}
	if c.observed {
		c.obs.Request(j.op, int64(j.req.length), now()-j.start, kind)
	}
	c.obs.InFlight(j.op, -1)
}

// forget gives back a job in flight that will not be answered.
func (c *serverConn) forget(j *job) {
	c.obs.InFlight(j.op, -1)
	c.budget.give(j)
}

// failed logs what the client can be told only in part.
func (c *serverConn) failed(req request, err error) {
	if hidden, ok := c.failures.admit(now()); ok {
		var why any = err
		if errors.Is(err, context.Canceled) {
			why = "it was cut off, since the client is gone or the export ends"
		}
		c.log.Warn("request failed", "op", opOf(req.cmd), "offset", req.offset, "length", req.length, "err", why,
			"more_before", hidden)
	}
}

// failureLog lets one line a second through: a full disk fails every write.
type failureLog struct {
	mu     sync.Mutex
	next   time.Duration
	hidden int
}

// admit reports whether to log now, and how many failures were kept silent
// since the last line.
func (f *failureLog) admit(at time.Duration) (hidden int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at < f.next {
		f.hidden++
		return 0, false
	}
	hidden, f.hidden = f.hidden, 0
	f.next = at + time.Second
	return hidden, true
}

// wireErrorFor maps a kind to a reply's error. ENOTSUP belongs to fast zeroing
// alone (proto.md, "NBD_CMD_WRITE_ZEROES").
func (c *serverConn) wireErrorFor(req request, kind block.Kind) wireError {
	code := wireErrorOf(kind)
	if code == wireENOTSUP && req.flags&cfFastZero == 0 {
		return wireEINVAL
	}
	return code
}

// deviceFlags translates FUA for the device. after: it needs a flush instead.
func (c *serverConn) deviceFlags(req request) (flags block.Flags, after bool) {
	if req.flags&cfFUA == 0 {
		return 0, false
	}
	if c.dev.Info.Has(block.CapFUA) {
		return block.FUA, false
	}
	return 0, true
}

func (c *serverConn) flushAfter(ctx context.Context, after bool, err error) error {
	if err != nil || !after {
		return err
	}
	return c.dev.Flush(ctx)
}

// writeDevice writes a payload, in pieces where the device wants them smaller.
func (c *serverConn) writeDevice(ctx context.Context, p []byte, req request) error {
	flags, after := c.deviceFlags(req)
	off, limit := int64(req.offset), c.dev.Info.Block.Max
	for limit > 0 && int64(len(p)) > limit {
		if err := c.dev.WriteAt(ctx, p[:limit], off, flags); err != nil {
			return err
		}
		p, off = p[limit:], off+limit
	}
	return c.flushAfter(ctx, after, c.dev.WriteAt(ctx, p, off, flags))
}

func (c *serverConn) trimDevice(ctx context.Context, req request) error {
	if c.dev.Discarder == nil {
		return nil // a hint
	}
	flags, after := c.deviceFlags(req)
	err := c.dev.Discarder.Discard(ctx, int64(req.offset), int64(req.length), flags)
	if block.KindOf(err) == block.Unsupported {
		return nil
	}
	return c.flushAfter(ctx, after, err)
}

func (c *serverConn) zeroDevice(ctx context.Context, req request) error {
	flags, after := c.deviceFlags(req)
	if req.flags&cfNoHole == 0 {
		flags |= block.MayUnmap
	}
	if req.flags&cfFastZero != 0 {
		flags |= block.FastOnly
	}
	return c.flushAfter(ctx, after, c.dev.ZeroRange(ctx, int64(req.offset), int64(req.length), flags))
}

// readDevice reads into a buffer of the job's. Where replies can have holes and
// the client allows it, what the device knows to be zero is not read.
func (c *serverConn) readDevice(ctx context.Context, j *job) error {
	if c.mayHaveHoles(j.req) {
		whole, err := c.readChunks(ctx, j)
		if err != nil || !whole {
			return err
		}
	}
	j.buf = buffer.Get(int(j.req.length))
	if err := c.readInto(ctx, j.buf.B, int64(j.req.offset)); err != nil {
		return err
	}
	j.data = j.buf.B
	j.hlen = c.readHeaderSize()
	c.putReadHeader(j.hdr[:], j.req)
	return nil
}

// readInto fills p, in pieces where the device wants them smaller.
func (c *serverConn) readInto(ctx context.Context, p []byte, off int64) error {
	limit := c.dev.Info.Block.Max
	for limit > 0 && int64(len(p)) > limit {
		if err := c.dev.ReadAt(ctx, p[:limit], off); err != nil {
			return err
		}
		p, off = p[limit:], off+limit
	}
	return c.dev.ReadAt(ctx, p, off)
}
