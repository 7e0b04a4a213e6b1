package nbd

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// What a request goes through, in the order in which it happens:
//
//  1. slot: the caller takes a free slot of the least loaded lane, or waits for
//     one (clientLane.free is the cap on requests in flight), and fills it.
//  2. queue: it appends the slot to the lane's queue. If somebody is writing
//     already, that is all: the writer takes it along.
//  3. write: otherwise the caller is the writer. It encodes the headers of all
//     that is queued into one batch, payloads left where their callers have them,
//     and sends the batch with one writev, until the queue is empty. Having
//     written a few batches for others it leaves the rest to the lane's writing
//     goroutine, so that its own reply does not wait.
//  4. wait: the caller sleeps until whoever reads (client_reading.go: the lane's
//     reading goroutine, or a caller that is alone) has put the reply into its
//     buffer and completed the slot (client_reply.go). A server
//     may answer a write before it has taken the payload; then it is the writer
//     who completes the slot, when it needs the caller's buffer no longer.
//  5. free: it takes the result and gives the slot back.
//
// A lane outlives its connections. When one breaks, the reading goroutine sees to
// it that no writer is at work, queues what was in flight again, in the order of
// submission, and connects anew (client_reconnect.go). Two goroutines per lane,
// run and writeOn, started by start and waited for by Client.Close.

// clientLane is a place for requests with at most one connection at a time.
type clientLane struct {
	client *Client
	slots  []clientSlot
	free   chan uint32 // indexes of slots that nobody uses

	reading clientReading

	long atomic.Int64 // reads in flight whose payload is worth a system call

	mu      sync.Mutex
	idle    sync.Cond // writing has become false
	link    *clientLink
	dead    error // why there is no connection, nor soon will be
	writing bool
	seq     uint64
	queue   []*clientSlot
	head    int // queue[:head] is sent

	// Only the writer touches these.
	heads  []byte
	pieces [][]byte
	lent   []*clientSlot // writes in the batch, whose buffers are being sent

	takeOver chan struct{} // the writer's role for writeOn; room for one
	up, lost atomic.Bool   // link is there; dead is set: hints for who chooses a lane
	gone     chan struct{} // closed when run ends
}

// clientLink is one connection in its transmission phase.
type clientLink struct {
	stream *clientStream
	mode   clientMode
	born   atomic.Uint64 // see clientDurability
	age    uint64        // position in the order of establishment
	first  bool          // made before any request
}

const (
	clientBatch      = 64      // requests per writev
	clientBatchBytes = 1 << 20 // and about as many bytes of payload
	clientOwnBatches = 4       // batches that a caller writes before it lets go
)

func newClientLane(c *Client, slots int) *clientLane {
	l := &clientLane{
		client:   c,
		slots:    make([]clientSlot, slots),
		free:     make(chan uint32, slots),
		heads:    make([]byte, 0, clientBatch*requestExtendedSize),
		lent:     make([]*clientSlot, 0, clientBatch),
		queue:    make([]*clientSlot, 0, 2*slots),
		takeOver: make(chan struct{}, 1),
		gone:     make(chan struct{}),
	}
	l.idle.L = &l.mu
	l.reading.turn = make(chan error, 1)
	for i := range l.slots {
		l.slots[i].index = uint32(i)
		l.slots[i].done = make(chan struct{}, 1)
		l.free <- uint32(i)
	}
	return l
}

// acquire takes a slot.
func (l *clientLane) acquire(ctx context.Context) (*clientSlot, error) {
	var i uint32
	select {
	case i = <-l.free:
	default:
		select {
		case i = <-l.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.client.closing:
			return nil, block.Closed
		}
	}
	return &l.slots[i], nil
}

// release gives a slot back, without what it held of its caller.
func (l *clientLane) release(s *clientSlot) {
	s.buf, s.status, s.fault, s.err = nil, nil, nil, nil
	l.free <- s.index
}

// do sends what the slot holds and waits for its completion.
func (l *clientLane) do(ctx context.Context, s *clientSlot) {
	if l.awaitReply(ctx, s, l.submit(s)) {
		return
	}
	if ctx.Done() == nil {
		<-s.done
		return
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		if l.giveUp(s, ctx.Err()) {
			return
		}
		<-s.done
	}
}

// submit queues the slot and, when nobody is writing, writes. It reports whether
// the slot's request is sent.
func (l *clientLane) submit(s *clientSlot) (sent bool) {
	s.gen++
	if s.gen == 0 {
		s.gen = 1
	}
	s.giveUp, s.sent, s.lost, s.replied = false, false, time.Time{}, false
	l.reading.owed.Add(1)
	l.mu.Lock()
	if l.dead != nil {
		s.err = l.dead
		l.mu.Unlock()
		l.fail(s)
		return false
	}
	l.seq++
	s.seq, s.queued = l.seq, true
	l.enqueue(s)
	if l.writing || l.link == nil {
		l.mu.Unlock()
		return false
	}
	l.writing = true
	l.write(clientOwnBatches)
	return true // the queue was empty: the first batch had it
}

// fail hands a slot back that the lane failed.
func (l *clientLane) fail(s *clientSlot) {
	l.reading.owed.Add(-1)
	s.complete()
}

// enqueue appends to the queue. What is sent makes room: no more slots wait than
// there are, which is half of what the queue holds, so it does not grow and is
// moved seldom.
func (l *clientLane) enqueue(s *clientSlot) {
	if len(l.queue) == cap(l.queue) && l.head > 0 {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, s)
}

// giveUp withdraws a request whose caller wants to leave, if that is possible:
// it has not been sent, or it changes nothing and the connection is gone. What
// changes the export and was sent once may still be carried out by the server,
// so its caller waits for the outcome.
func (l *clientLane) giveUp(s *clientSlot, cause error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.queued || s.sent && s.changes() {
		s.giveUp = true
		return false
	}
	i := slices.Index(l.queue[l.head:], s) + l.head
	l.queue = slices.Delete(l.queue, i, i+1)
	s.queued = false
	s.err = cause
	l.reading.owed.Add(-1)
	return true
}

// write sends what is queued, at most batches times, and then leaves the rest to
// writeOn. It is entered with the lock and the writer's role, and left without.
func (l *clientLane) write(batches int) {
	for ; l.head < len(l.queue) && l.link != nil; batches-- {
		if batches == 0 {
			l.mu.Unlock()
			l.takeOver <- struct{}{} // never blocks: there is one role
			return
		}
		link := l.link
		l.takeBatch(link)
		l.mu.Unlock()
		err := link.stream.send(l.pieces)
		clear(l.pieces)
		for i, s := range l.lent {
			l.lent[i] = nil
			s.settle(clientSent)
		}
		l.mu.Lock()
		if err != nil {
			// The reading goroutine notices, and repeats what was in flight.
			_ = link.stream.conn.Close()
			break
		}
	}
	l.writing = false
	l.idle.Broadcast()
	l.mu.Unlock()
}

// writeOn is the goroutine that takes the writer's role over from callers.
func (l *clientLane) writeOn() {
	for range l.takeOver {
		l.mu.Lock()
		l.write(1 << 30)
	}
}

// takeBatch encodes queued requests into l.pieces and marks them as in flight.
func (l *clientLane) takeBatch(link *clientLink) {
	l.heads, l.pieces, l.lent = l.heads[:0], l.pieces[:0], l.lent[:0]
	start, payload := 0, 0
	for count := 0; l.head < len(l.queue) && count < clientBatch && payload < clientBatchBytes; count++ {
		s := l.queue[l.head]
		l.queue[l.head] = nil
		l.head++
		s.queued, s.sent = false, true
		s.reset()
		if s.status != nil {
			s.status.prepare(link.mode.contexts)
		}
		l.encode(s, link.mode.extended)
		if s.cmd == cmdWrite {
			l.pieces = append(l.pieces, l.heads[start:], s.buf)
			start, payload = len(l.heads), payload+len(s.buf)
			l.lent = append(l.lent, s)
		}
		if s.cmd == cmdRead && s.n >= clientDirect {
			l.long.Add(1)
		}
		s.live.Store(s.cookie())
	}
	if start < len(l.heads) {
		l.pieces = append(l.pieces, l.heads[start:])
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
}

// encode appends the slot's request header to l.heads.
func (l *clientLane) encode(s *clientSlot, extended bool) {
	n := len(l.heads)
	l.heads = l.heads[:n+requestExtendedSize]
	flags := s.flags
	if extended && s.cmd == cmdWrite {
		flags |= cfPayloadLen
	}
	r := request{flags: flags, cmd: s.cmd, cookie: s.cookie(), offset: uint64(s.off), length: uint64(s.n)}
	n += putRequest(l.heads[n:], r, extended)
	l.heads = l.heads[:n]
}

// awaitLong reports whether a read is in flight whose payload should not pass
// through the read buffer.
func (l *clientLane) awaitLong() bool { return l.long.Load() > 0 }

// finish is the lane's part of a completion that came from the server.
func (l *clientLane) finish(link *clientLink, s *clientSlot) {
	s.replied = true
	l.reading.owed.Add(-1)
	if s.cmd == cmdRead && s.n >= clientDirect {
		l.long.Add(-1)
	}
	switch {
	case s.code != wireOK:
	case s.cmd == cmdFlush:
		s.born = link.born.Load()
	case s.volatile():
		l.client.durability.acknowledge(s.n)
	}
}

// attach makes a connection the lane's and sends what waits for it. Close may have
// begun while the connection was made: if hangUp has not seen it, closing is closed
// by now, and the connection is of no use.
func (l *clientLane) attach(link *clientLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = link
	if l.client.isClosing() {
		_ = link.stream.conn.Close()
		return
	}
	l.dead = nil
	l.lost.Store(false)
	l.up.Store(true)
	if l.head < len(l.queue) && !l.writing {
		l.writing = true
		l.takeOver <- struct{}{}
	}
}

// detach takes a broken connection away and queues again what it owed, but for
// what the policy gives no more time. It reports whether it met a request that had
// been through a loss before. The writer is at rest when it looks: a write that was
// answered is complete.
func (l *clientLane) detach(link *clientLink, cause error) (again bool) {
	_ = link.stream.conn.Close()
	l.up.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = nil
	for l.writing {
		l.idle.Wait()
	}
	l.long.Store(0)
	owed := slices.Clone(l.queue[l.head:])
	for i := range l.slots {
		if s := &l.slots[i]; s.live.Load() != 0 {
			owed = append(owed, s)
		}
	}
	slices.SortFunc(owed, func(a, b *clientSlot) int { return cmp.Compare(a.seq, b.seq) })
	clear(l.queue)
	l.queue, l.head = l.queue[:0], 0
	now := time.Now()
	for _, s := range owed {
		again = again || !s.lost.IsZero()
		s.live.Store(0)
		s.queued = false
		if s.err = l.client.owes(s, now, cause); s.err != nil {
			l.fail(s)
			continue
		}
		s.queued = true
		l.queue = append(l.queue, s)
	}
	return again
}

// end fails everything that waits, and what comes, until there is a connection.
func (l *clientLane) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = cause
	l.lost.Store(true)
	for _, s := range l.queue[l.head:] {
		s.queued = false
		s.err = cause
		l.fail(s)
	}
	clear(l.queue)
	l.queue, l.head = l.queue[:0], 0
}

// run is the lane's main goroutine: it reads replies and makes new connections.
func (l *clientLane) run(life context.Context, link *clientLink) {
	defer close(l.gone)
	defer close(l.takeOver)
	for brief := -1; ; {
		began := time.Now()
		served, err := l.read(link)
		l.client.leave(link)
		again := l.detach(link, err)
		if brief++; time.Since(began) >= clientSteady || served > 0 && !again {
			brief = 0
		}
		if l.client.isClosing() {
			l.end(block.Closed)
			return
		}
		l.client.logger.Warn("NBD connection lost", "uri", l.client.object, "cause", clientDescribe(err))
		if link = l.renew(life, err, brief); link == nil {
			return
		}
		l.attach(link)
	}
}

// renew makes the next connection. When requests have waited for it as long as the
// policy says, they fail, and so do those that come, until it is there after all.
// nil means that there will be none.
func (l *clientLane) renew(life context.Context, lost error, brief int) *clientLink {
	for away := false; ; away, brief = true, max(brief, 1) {
		link, err := l.client.reconnect(life, lost, brief)
		if err == nil {
			return link
		}
		l.end(err)
		if l.client.isClosing() {
			return nil
		}
		if !l.client.returns(err) {
			l.client.logger.Error("NBD connection given up", "uri", l.client.object, "cause", err)
			return nil
		}
		if !away {
			l.client.logger.Error("NBD server is away, requests fail", "uri", l.client.object, "cause", err)
		}
	}
}

// read reads replies until the connection ends, and counts them.
func (l *clientLane) read(link *clientLink) (served int, err error) {
	r := clientReplies{
		stream:    link.stream,
		mode:      link.mode,
		slots:     l.slots,
		awaitLong: l.awaitLong,
		finish:    func(s *clientSlot) { served++; l.finish(link, s) },
		hold:      l.client.cfg.Reconnect != NoReconnect && !l.client.isClosing(),
	}
	err = l.readOn(&r)
	return served, err
}

// drain collects all slots, so that nothing is in flight, until the lane ends or
// patience is closed. It reports whether the connection is at rest.
func (l *clientLane) drain(patience <-chan struct{}) bool {
	for range l.slots {
		select {
		case <-l.free:
		case <-l.gone:
			return false
		case <-patience:
			return false
		}
	}
	return true
}

// hangUp says goodbye to the server and ends the connection; run notices. What
// is still in flight then fails.
func (l *clientLane) hangUp(polite bool) {
	l.mu.Lock()
	link := l.link
	if link != nil && polite && !l.writing {
		l.writing = true
		l.mu.Unlock()
		var head [requestExtendedSize]byte
		n := putRequest(head[:], request{cmd: cmdDisconnect}, link.mode.extended)
		_ = link.stream.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_ = link.stream.send([][]byte{head[:n]})
		l.mu.Lock()
		l.writing = false
		l.idle.Broadcast()
	}
	l.mu.Unlock()
	if link != nil {
		_ = link.stream.conn.Close()
		l.wakeReader() // run may be leaving the reading to callers, of whom none comes
	}
}
