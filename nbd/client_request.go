package nbd

import (
	"context"

	"sluice/block"
)

// clientRequest is one request as the methods of Client describe it.
type clientRequest struct {
	op     string // for messages
	cmd    command
	flags  commandFlags
	off, n int64
	buf    []byte
	status *clientStatus
}

// request carries one request out on the least loaded lane.
func (c *Client) request(ctx context.Context, r clientRequest) error {
	_, err := c.requestOn(ctx, c.pick(), r)
	return err
}

// requestOn carries a request out and gives, for a flush, the birth of the
// connection that answered it.
func (c *Client) requestOn(ctx context.Context, lane *clientLane, r clientRequest) (born uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, block.Wrap(err, r.op, c.object, r.off)
	}
	s, err := lane.acquire(ctx)
	if err != nil {
		return 0, block.Wrap(err, r.op, c.object, r.off)
	}
	s.cmd, s.flags, s.off, s.n, s.buf, s.status = r.cmd, r.flags, r.off, r.n, r.buf, r.status
	lane.do(ctx, s)
	born, err = s.born, s.result(r.op, c.object)
	lane.release(s)
	return born, err
}

// pick chooses the lane with the most free slots among those with a connection,
// or, where none has one, among those that may get one.
func (c *Client) pick() *clientLane {
	best := c.lanes[0]
	for _, lane := range c.lanes[1:] {
		if lane.rank() > best.rank() {
			best = lane
		}
	}
	return best
}

// rank orders lanes by how well they suit the next request.
func (l *clientLane) rank() int {
	n := len(l.free)
	if l.up.Load() {
		n += 1 << 30
	} else if !l.lost.Load() {
		n += 1 << 20
	}
	return n
}

// flush sends a flush where its success says the most: on a connection that was
// there before everything that it is to cover. CAN_MULTI_CONN makes one enough.
func (c *Client) flush(ctx context.Context) (born uint64, err error) {
	lane := c.pick()
	if link := lane.current(); link == nil || !c.durability.vouches(link.born.Load()) {
		for _, other := range c.lanes {
			if link := other.current(); link != nil && c.durability.vouches(link.born.Load()) {
				lane = other
				break
			}
		}
	}
	if !c.info.Flush {
		if link := lane.current(); link != nil {
			return link.born.Load(), nil
		}
		return c.durability.acknowledged.Load(), nil
	}
	return c.requestOn(ctx, lane, clientRequest{op: "flush", cmd: cmdFlush})
}

// current is the lane's connection, nil while there is none.
func (l *clientLane) current() *clientLink {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.link
}
