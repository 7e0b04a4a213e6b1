package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/block/buffer"
)

// The transmission of one connection. Stages, in the order a request passes
// them, each in a file of its own:
//
//  1. receive (server_receive.go): one goroutine reads as many requests as one
//     system call brings, checks each, and answers at once what needs no
//     waiting. Replies of one batch are put together in one buffer.
//  2. work (server_work.go): what may wait in the device becomes a job for one
//     of a bounded number of workers. Writes to a device that orders them anyway
//     go through the device's lane instead (server_lane.go); small ones the
//     receiver carries out itself when the lane is free (server_inline.go).
//  3. send (server_send.go): finished jobs queue up; whoever finds nobody
//     sending sends all that is there, in one system call where it can, and from
//     the page cache by sendfile where the device allows it.
//
// Limits: a small request costs a share of a receive and of a send, and the copy
// in the device; a large read from the page cache costs the client's copy alone.
//
// Ownership: the receiving goroutine owns in, out and batch; another can become
// it (server_inline.go). A job belongs to
// the stage that it is in; its buffer goes with it. Locks: budget.mu, work.mu,
// lane.mu and box.mu are leaves; none is held while another is taken or while
// anything blocks.

// serverConn is a connection in the transmission phase.
type serverConn struct {
	srv      *Server
	stream   stream
	draining *atomic.Bool // the session's
	files    fileSender   // the stream again, where it can; else nil
	log      *slog.Logger

	dev        *block.Resolved
	export     string
	size       uint64
	readOnly   bool
	flags      transmissionFlags
	structured bool
	extended   bool
	contexts   []metaContext

	obs      Observer
	observed bool // obs is somebody
	failures failureLog

	headerSize int    // of requests
	misaligned uint64 // bits that no offset and no length may have

	context func() context.Context // what requests run under
	abandon context.CancelFunc     // ends what the device does for a client that is gone

	data dataRange // where the device has no holes

	receiver
	received   chan error     // the end of it
	successors sync.WaitGroup // receivers after the first

	budget   budget
	work     workers
	laned    laned
	starting starting
	box      outbox
}

func newServerConn(srv *Server, st stream, a *agreement, log *slog.Logger) *serverConn {
	c := &serverConn{
		srv: srv, stream: st, log: log.With("export", a.export.Name),
		dev: a.dev, export: a.export.Name, size: uint64(a.dev.Info.Size),
		readOnly: a.readOnly, flags: a.flags, structured: a.structured, extended: a.extended, contexts: a.contexts,
		obs: a.export.Observer, headerSize: requestSize, misaligned: uint64(max(a.dev.Info.Block.Min, 1)) - 1,
	}
	c.files, _ = st.(fileSender)
	if a.extended {
		c.headerSize = requestExtendedSize
	}
	if c.observed = c.obs != nil; !c.observed {
		c.obs = nobody{}
	} else if s, ok := c.obs.(Sharder); ok {
		c.obs = s.Shard()
	}
	c.budget.init(srv.cfg.MaxRequests, srv.cfg.MaxBytes)
	c.work.max, c.work.run = srv.cfg.Workers, c.worker
	c.starting.device = a.dev.Starter
	return c
}

// serve runs the transmission to its end: everything that was received is
// worked off and, unless the connection broke, answered.
func (c *serverConn) serve(ctx context.Context) error {
	c.obs.Connection(+1)
	defer c.obs.Connection(-1)
	ctx, c.abandon = context.WithCancel(ctx)
	defer c.abandon()
	c.context = func() context.Context { return ctx }
	c.laned.conn, c.laned.lane = c, c.srv.lanes.take(c.dev)
	defer c.srv.lanes.give(c.laned.lane, c.dev)
	c.received = make(chan error, 1)
	c.receiveAll()
	err := <-c.received
	c.successors.Wait()
	c.kickStarted()
	c.starting.under.Wait()
	c.work.wait()
	c.laned.pending.Wait()
	c.box.wait()
	c.receiver.free()
	if sent := c.box.failure(); err == nil && sent != nil {
		err = fmt.Errorf("reply: %w", sent)
	}
	return err
}

// deserted reports whether nobody waits for the answers to what has been
// received, by the error that ended receiving. A client that just sends no more
// does.
func (c *serverConn) deserted(err error) bool {
	switch {
	case err == nil || c.draining.Load(): // we have stopped it ourselves
		return false
	case errors.Is(err, io.EOF) && c.w == c.r:
		s, ok := c.stream.(hangUpTeller)
		return ok && s.hungUp()
	}
	return true
}

// job is a request on its way through work and send, and the reply to it. Jobs
// are kept and used again; there are at most as many as the budget allows. The
// receiver's common reply buffer is one too, so that a client that does not read
// its replies cannot pile them up.
type job struct {
	next *job        // in the queue that it is in
	conn *serverConn // of one that was started

	req   request
	op    Op
	start time.Duration // since epoch, when it arrived

	buf  *buffer.Buffer // a write's payload, or a reply's data; owned
	data []byte         // what is sent after the header, in buf
	hdr  [chunkExtendedSize + 16]byte
	hlen int

	file     block.FileRange // sent after the header, instead of data
	pinned   bool
	fileSent int64

	extents [readPieces + 1]block.Extent // of a read that may have holes; one more for the rest

	// A large write is carried out in pieces, jobs of their own.
	whole   *job                  // of a piece
	pieces  atomic.Int32          // of the whole: how many are not done
	failed  atomic.Pointer[error] // of the whole: the first that failed
	dropped atomic.Bool           // of the whole: it is not to be answered

	charged int64 // bytes in the budget

	laned *laned // of a write in a lane
}

// epoch is the zero of the data path's clock: time.Since of a fixed time reads
// the monotonic clock alone.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// budget bounds what one connection has in work. The receiver is the only one
// that waits for it.
type budget struct {
	mu       sync.Mutex
	room     sync.Cond
	requests int
	bytes    int64
	maxReq   int
	maxBytes int64
	waiting  bool // take waits for room
	free     *job
}

func (b *budget) init(requests int, bytes int64) {
	b.room.L = &b.mu
	b.maxReq, b.maxBytes = requests, bytes
}

// take gets a job for a request with n bytes of payload, waiting until there is
// room. A request alone always has room.
func (b *budget) take(n int64) *job {
	b.mu.Lock()
	for b.requests > 0 && (b.requests >= b.maxReq || b.bytes+n > b.maxBytes) {
		b.waiting = true
		b.room.Wait()
	}
	b.waiting = false
	b.requests++
	b.bytes += n
	return b.job(n)
}

// piece gets a job for a part of a request that has been admitted already.
func (b *budget) piece() *job {
	b.mu.Lock()
	return b.job(uncharged)
}

// uncharged marks a job that the budget does not count.
const uncharged = -1

// job gives out a free job and unlocks b.mu.
func (b *budget) job(charged int64) *job {
	j := b.free
	if j != nil {
		b.free = j.next
	}
	b.mu.Unlock()
	if j == nil {
		j = new(job)
	}
	j.next, j.whole, j.charged = nil, nil, charged
	return j
}

// tight reports whether take(n) would wait.
func (b *budget) tight(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests > 0 && (b.requests >= b.maxReq || b.bytes+n > b.maxBytes)
}

// give takes back a job that is done with.
func (b *budget) give(j *job) {
	if j.buf != nil {
		j.buf.Release()
		j.buf = nil
	}
	j.data, j.hlen = nil, 0
	b.mu.Lock()
	wake := b.waiting
	if j.charged != uncharged {
		b.requests--
		b.bytes -= j.charged
	}
	j.next, b.free = b.free, j
	b.mu.Unlock()
	if wake {
		b.room.Signal()
	}
}
