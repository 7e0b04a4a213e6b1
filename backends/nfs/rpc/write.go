package rpc

import (
	"sluice/backends/nfs/xdr"
)

const (
	batchCalls = 64      // calls per writev
	batchBytes = 1 << 20 // and about as many bytes of payload
)

// batch is what goes out with one system call. Only the writer touches it.
type batch struct {
	heads  []byte   // the calls up to their payloads, copied: a Call is its owner's again as soon as the reply is there
	pieces [][]byte // slices of heads, and payloads left where their callers have them
	lent   []*Call  // those with payloads
	cuts   []int    // where pieces of heads end that a payload follows
}

var padding [3]byte

func (b *batch) init() {
	b.heads = make([]byte, 0, batchCalls*256)
	b.pieces = make([][]byte, 0, 3*batchCalls)
	b.lent = make([]*Call, 0, batchCalls)
	b.cuts = make([]int, 0, batchCalls)
}

func (b *batch) reset() {
	b.heads, b.pieces, b.lent, b.cuts = b.heads[:0], b.pieces[:0], b.lent[:0], b.cuts[:0]
}

// add copies a call's head.
func (b *batch) add(c *Call) {
	from := len(b.heads)
	b.heads = append(b.heads, c.Head...)
	seal(b.heads[from:], c.xid, len(c.Data))
	if len(c.Data) > 0 {
		b.cuts = append(b.cuts, len(b.heads))
		b.lent = append(b.lent, c)
	}
}

// gather makes the pieces, when heads does not move any more.
func (b *batch) gather() {
	from := 0
	for i, end := range b.cuts {
		data := b.lent[i].Data
		b.pieces = append(b.pieces, b.heads[from:end], data)
		if pad := xdr.Pad(len(data)); pad > 0 {
			b.pieces = append(b.pieces, padding[:pad])
		}
		from = end
	}
	if from < len(b.heads) {
		b.pieces = append(b.pieces, b.heads[from:])
	}
}

// take moves queued calls into the batch and marks them as in flight.
func (t *Transport) take() {
	b := &t.out
	b.reset()
	payload := 0
	for n := 0; t.head < len(t.queue) && n < batchCalls && payload < batchBytes; n++ {
		c := t.queue[t.head]
		t.queue[t.head] = nil
		t.head++
		c.queued, c.Resent, c.sent = false, c.sent, true
		c.lent.Store(0)
		b.add(c)
		payload += len(c.Data)
		if c.large = len(c.Into) >= directRead; c.large {
			t.long.Add(1)
		}
		c.live.Store(c.xid)
	}
	if t.head == len(t.queue) {
		t.queue, t.head = t.queue[:0], 0
	}
	b.gather()
	b.pieces = append(b.pieces, t.answers...)
	t.answers = t.answers[:0]
}

// maxAnswers bounds the answers to a server that calls and does not listen.
const maxAnswers = 64

// reply queues an answer to a call that came over the link.
func (t *Transport) reply(link *Link, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == link && len(t.answers) < maxAnswers {
		t.answers = append(t.answers, b)
		t.wakeWriter()
	}
}

// waits reports whether there is something to send. The lock is held.
func (t *Transport) waits() bool { return t.head < len(t.queue) || len(t.answers) > 0 }

// write sends what is queued, at most batches times, and then leaves the rest to
// writeOn. It is entered with the lock and the writer's role, and left without.
func (t *Transport) write(batches int) {
	for ; t.waits() && t.link != nil; batches-- {
		if batches == 0 {
			t.mu.Unlock()
			t.takeOver <- struct{}{} // never blocks: there is one role
			return
		}
		link := t.link
		t.take()
		t.mu.Unlock()
		err := link.stream.send(t.out.pieces)
		clear(t.out.pieces)
		for i, c := range t.out.lent {
			t.out.lent[i] = nil
			push(c.settle(sendingEnded))
		}
		t.mu.Lock()
		if err != nil {
			// The reading goroutine notices, and what was in flight is sent again.
			link.close()
			break
		}
	}
	t.writing = false
	t.idle.Broadcast()
	t.mu.Unlock()
}

// writeOn is the goroutine that takes the writer's role over from callers.
func (t *Transport) writeOn() {
	for range t.takeOver {
		t.mu.Lock()
		t.write(1 << 30)
	}
}
