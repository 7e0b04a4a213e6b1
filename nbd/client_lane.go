package nbd

import (
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
//  4. wait: the caller sleeps until the lane's reading goroutine has put the
//     reply into its buffer and completed the slot (client_reply.go).
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

	long atomic.Int64 // reads in flight whose payload is worth a system call

	mu      sync.Mutex
	idle    sync.Cond // writing has become false
	link    *clientLink
	dead    error // why there will be no connection any more
	writing bool
	seq     uint64
	queue   []*clientSlot
	head    int // queue[:head] is sent

	// Only the writer touches these.
	heads  []byte
	pieces [][]byte

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
		takeOver: make(chan struct{}, 1),
		gone:     make(chan struct{}),
	}
	l.idle.L = &l.mu
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
	l.submit(s)
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

// submit queues the slot and, when nobody is writing, writes.
func (l *clientLane) submit(s *clientSlot) {
	s.gen++
	if s.gen == 0 {
		s.gen = 1
	}
	s.giveUp, s.sent = false, false
	l.mu.Lock()
	if l.dead != nil {
		s.err = l.dead
		l.mu.Unlock()
		s.complete()
		return
	}
	l.seq++
	s.seq, s.queued = l.seq, true
	l.queue = append(l.queue, s)
	if l.writing || l.link == nil {
		l.mu.Unlock()
		return
	}
	l.writing = true
	l.write(clientOwnBatches)
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
	l.heads, l.pieces = l.heads[:0], l.pieces[:0]
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

// attach makes a connection the lane's and sends what waits for it.
func (l *clientLane) attach(link *clientLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = link
	l.up.Store(true)
	if l.head < len(l.queue) && !l.writing {
		l.writing = true
		l.takeOver <- struct{}{}
	}
}

// detach takes a broken connection away and queues again what it owed.
func (l *clientLane) detach(link *clientLink) {
	_ = link.stream.conn.Close()
	l.up.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = nil
	for l.writing {
		l.idle.Wait()
	}
	l.long.Store(0)
	queue := slices.Clone(l.queue[l.head:])
	for i := range l.slots {
		s := &l.slots[i]
		if s.live.Load() == 0 {
			continue
		}
		s.live.Store(0)
		if s.giveUp && !s.changes() {
			s.err = context.Canceled
			s.complete()
			continue
		}
		s.queued = true
		queue = append(queue, s)
	}
	slices.SortFunc(queue, func(a, b *clientSlot) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	l.queue, l.head = queue, 0
}

// end fails everything that waits and lets nothing in any more.
func (l *clientLane) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = cause
	l.lost.Store(true)
	for _, s := range l.queue[l.head:] {
		s.queued = false
		s.err = cause
		s.complete()
	}
	l.queue, l.head = nil, 0
}

// run is the lane's main goroutine: it reads replies and makes new connections.
func (l *clientLane) run(life context.Context, link *clientLink) {
	defer close(l.gone)
	defer close(l.takeOver)
	for brief := -1; ; {
		served, err := l.read(link)
		if brief++; served > 0 {
			brief = 0
		}
		l.client.leave(link)
		l.detach(link)
		if l.client.isClosing() {
			l.end(block.Closed)
			return
		}
		l.client.logger.Warn("NBD connection lost", "uri", l.client.object, "cause", clientDescribe(err))
		if link, err = l.client.reconnect(life, err, brief); err != nil {
			l.client.logger.Error("NBD connection given up", "uri", l.client.object, "cause", err)
			l.end(err)
			return
		}
		l.attach(link)
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
	err = r.run()
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
	}
}
