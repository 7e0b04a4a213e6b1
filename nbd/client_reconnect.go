package nbd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// ReconnectPolicy says for how long requests wait until a broken connection is
// made again.
type ReconnectPolicy time.Duration

const (
	// NoReconnect fails the requests of a broken connection at once.
	NoReconnect ReconnectPolicy = 0
	// ReconnectForever lets them wait until the Client is closed.
	ReconnectForever ReconnectPolicy = -1
)

// ReconnectFor lets them wait for a time, counted from each loss. Then they fail
// with kind Transient, and so do those that come; but the Client keeps trying, and
// when the server is back, they work again. A request that meets one loss after the other, perhaps because the server ends the connection
// whenever it gets it, fails with the first loss after that time.
func ReconnectFor(d time.Duration) ReconnectPolicy { return ReconnectPolicy(d) }

const (
	clientFirstDelay = 20 * time.Millisecond
	clientMaxDelay   = 2 * time.Second

	// clientSteady is how long a connection has to last to say nothing about the
	// next one.
	clientSteady = time.Second
)

// reconnect makes a lane's next connection after a loss, or says why there will
// be none. The first attempt comes at once, unless the connections before, as many
// as brief says, ended soon and in vain: they answered nothing, or broke under a
// request that an earlier one had broken under.
func (c *Client) reconnect(life context.Context, lost error, brief int) (*clientLink, error) {
	describe := clientDescribe(lost)
	if c.cfg.Reconnect == NoReconnect || errors.Is(lost, ErrProtocol) {
		return nil, &clientError{clientLossKind(lost), describe}
	}
	ctx, cancel := c.cfg.Reconnect.limit(life)
	defer cancel()
	delay := min(clientFirstDelay<<min(brief, 10), clientMaxDelay)
	if p := time.Duration(c.cfg.Reconnect); p > 0 {
		delay = min(delay, max(p/2, 1))
	}
	if brief > 0 {
		clientSleep(ctx, delay)
	}
	for {
		link, err := c.again(ctx)
		if err == nil {
			c.logger.Info("NBD connection made again", "uri", c.object)
			c.reconnects.Add(1)
			return link, nil
		}
		var changed *clientChangedError
		if errors.As(err, &changed) || errors.Is(err, ErrProtocol) {
			return nil, &clientError{block.IO, fmt.Errorf("reconnect: %w", err)}
		}
		c.logger.Debug("NBD reconnect failed", "uri", c.object, "cause", err, "delay", delay)
		if !clientSleep(ctx, delay/2+rand.N(delay)) {
			if c.isClosing() {
				return nil, block.Closed
			}
			return nil, &clientError{block.Transient, fmt.Errorf("%w; no connection within %v: %w",
				describe, time.Duration(c.cfg.Reconnect), err)}
		}
		delay = min(2*delay, clientMaxDelay)
	}
}

// returns reports whether a failed reconnect says only that there was no time
// left: the server may come back later.
func (c *Client) returns(err error) bool {
	e, ok := err.(*clientError)
	return ok && e.kind == block.Transient && c.cfg.Reconnect != NoReconnect && !c.isClosing()
}

// owes says what a request whose connection broke ends with, or nil where it is to
// be sent again.
func (c *Client) owes(s *clientSlot, now time.Time, cause error) error {
	if s.giveUp && !s.changes() {
		return context.Canceled
	}
	if s.lost.IsZero() {
		s.lost = now
	}
	patience := time.Duration(c.cfg.Reconnect)
	if patience <= 0 || now.Sub(s.lost) < patience || errors.Is(cause, ErrProtocol) {
		return nil // with NoReconnect, or a broken rule, the lane ends
	}
	return &clientError{block.Transient, fmt.Errorf("%w; sent again and again for %v without an answer",
		clientDescribe(cause), now.Sub(s.lost).Round(time.Millisecond))}
}

// clientLossKind: a lost connection may come back, for who opens anew; a server
// that breaks the rules does not mend.
func clientLossKind(lost error) block.Kind {
	if errors.Is(lost, ErrProtocol) {
		return block.IO
	}
	return block.Transient
}

// limit gives a context that ends with the policy's time or with life, the
// Client's.
func (p ReconnectPolicy) limit(life context.Context) (context.Context, context.CancelFunc) {
	if p < 0 {
		return context.WithCancel(life)
	}
	return context.WithTimeout(life, time.Duration(p))
}

// clientSleep waits; false means that the context ended first.
func clientSleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// again connects and checks that the export is the one that was left.
func (c *Client) again(ctx context.Context) (*clientLink, error) {
	link, info, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.sameExport(info, link.mode); err != nil {
		_ = link.stream.conn.Close()
		return nil, err
	}
	c.join(link)
	return link, nil
}

// clientChangedError: the export that was found again is another one.
type clientChangedError struct{ what string }

func (e *clientChangedError) Error() string { return "the export has changed: " + e.what }

// sameExport checks that everything that the Client's Info promises still holds.
func (c *Client) sameExport(now ExportInfo, mode clientMode) error {
	was := c.info
	changed := func(format string, args ...any) error {
		return &clientChangedError{fmt.Sprintf(format, args...)}
	}
	const promises = tfFlush | tfFUA | tfTrim | tfWriteZeroes | tfFastZero | tfCache | tfMultiConn
	switch lost := was.flags &^ now.flags & promises; {
	case now.Size != was.Size:
		return changed("%d bytes, was %d", now.Size, was.Size)
	case lost != 0:
		return changed("flags %#x are missing", uint16(lost))
	case now.ReadOnly && !c.resolved.ReadOnly:
		return changed("read-only now")
	case clientLeastBlock(now) > clientLeastBlock(was):
		return changed("minimum block size %d, was %d", now.Block.Min, was.Block.Min)
	case clientPayload(now) < c.maxPayload:
		return changed("maximum payload %d, was %d", clientPayload(now), c.maxPayload)
	case now.Headers != was.Headers:
		return changed("%s replies, were %s", now.Headers, was.Headers)
	case !slices.Equal(mode.names(), was.MetaContexts):
		return changed("metadata contexts %q, were %q", mode.names(), was.MetaContexts)
	}
	return nil
}

func (m clientMode) names() []string {
	var names []string
	for _, c := range m.contexts {
		names = append(names, c.name)
	}
	return names
}

// clientDurability keeps the promise of block.Device.Flush across reconnects.
//
// A server that was killed may have lost writes that it had acknowledged and not
// been asked to flush. A flush sent to its successor succeeds and says nothing
// about them. But a flush proves that the same server was there all the time when
// it is answered on a connection that was made before the first of these writes.
//
// So bytes are counted as they are acknowledged; each connection remembers the
// count at its birth; and a flush answered on a connection that was born after
// acknowledged bytes that no flush has covered fails, once, and tells how many
// bytes they are.
type clientDurability struct {
	acknowledged atomic.Uint64 // bytes, of writes without FUA

	mu       sync.Mutex
	durable  uint64 // of these, covered by a flush
	reported uint64 // of these, told as perhaps lost
}

func (d *clientDurability) acknowledge(n int64) { d.acknowledged.Add(uint64(n)) }

// clientFlushMark is the state when a flush was issued.
type clientFlushMark struct{ covers, settled uint64 }

func (d *clientDurability) begin() clientFlushMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return clientFlushMark{covers: d.acknowledged.Load(), settled: max(d.durable, d.reported)}
}

// end takes a flush's success, answered on a connection born at the count born,
// and gives the number of bytes that it cannot vouch for.
func (d *clientDurability) end(m clientFlushMark, born uint64) (lost uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	settled := max(m.settled, d.durable)
	if born > settled {
		d.reported = max(d.reported, born)
		return born - settled
	}
	d.durable = max(d.durable, m.covers)
	return 0
}

// vouches reports whether a flush on a connection born at the count born would
// be believed.
func (d *clientDurability) vouches(born uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return born <= max(d.durable, d.reported)
}

// join notes a new connection's birth.
func (c *Client) join(link *clientLink) {
	c.links.Lock()
	defer c.links.Unlock()
	c.links.count++
	link.age = c.links.count
	if !c.cfg.StableCache {
		link.born.Store(c.durability.acknowledged.Load())
	}
	link.first = c.links.count <= uint64(len(c.lanes))
	c.links.live = append(c.links.live, link)
}

// leave notes a connection's end. Replies that an older connection had still
// buffered when a younger one was made may have come from a server that was gone
// by then: the younger one vouches for nothing acknowledged up to now.
func (c *Client) leave(link *clientLink) {
	c.links.Lock()
	defer c.links.Unlock()
	c.links.live = slices.DeleteFunc(c.links.live, func(l *clientLink) bool { return l == link })
	if c.cfg.StableCache {
		return
	}
	for _, l := range c.links.live {
		if l.age > link.age && !l.first {
			l.born.Store(c.durability.acknowledged.Load())
		}
	}
}
