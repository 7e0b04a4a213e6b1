package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// ClientConfig configures a Client. The zero value of each field means its
// default.
type ClientConfig struct {
	// Connections is the number of connections, used together. Default 1. More
	// are made only where the server says that they are consistent with each
	// other (CAN_MULTI_CONN); elsewhere it is one.
	Connections int

	// TLS makes the connection secure or fail, whatever the URI's scheme, and
	// replaces the URI's certificates. ServerName may be left out.
	TLS *tls.Config

	// MetaContexts are the metadata contexts to select; the server leaves out
	// what it does not have. nil means ContextAllocation and ContextDepth, an
	// empty slice none. Names of dirty bitmaps begin with ContextDirty.
	MetaContexts []string

	// ReadOnly refuses changes even where the server would take them.
	ReadOnly bool

	// Reconnect says what happens when a connection breaks. Default
	// NoReconnect.
	Reconnect ReconnectPolicy

	// StableCache says that a server which was restarted has lost nothing that
	// it had acknowledged (its cache is the host's page cache, and the host
	// stayed up). Flush then does not report what was not flushed when a
	// connection broke; see Client.Flush.
	StableCache bool

	// DialTimeout bounds connecting and the handshake, for each connection and
	// each attempt. Default 10 s.
	DialTimeout time.Duration

	// CloseTimeout bounds how long Close waits for replies. Default 10 s.
	CloseTimeout time.Duration

	// MaxInFlight is the number of requests in flight per connection; further
	// ones wait. Default 128.
	MaxInFlight int

	// NoStructured and NoExtended leave out structured replies (and all that
	// rests on them) or just extended headers in the negotiation.
	NoStructured bool
	NoExtended   bool

	// Logger is told of lost and new connections. Default: nothing.
	Logger *slog.Logger
}

func (cfg *ClientConfig) setDefaults() {
	cfg.Connections = max(cfg.Connections, 1)
	if cfg.MetaContexts == nil {
		cfg.MetaContexts = []string{ContextAllocation, ContextDepth}
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.CloseTimeout <= 0 {
		cfg.CloseTimeout = 10 * time.Second
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 128
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

// Client is an export of an NBD server as a block.Device. Its capabilities follow
// from what the server advertises and, for extents and bitmaps, from the metadata
// contexts that were agreed on.
//
// Requests are pipelined: as many calls as MaxInFlight allows share a connection
// without waiting for each other. Longer reads and writes than the server takes
// are split. Where the server has a minimum block size, Info tells it and requests
// must be aligned.
//
// # Cancelling
//
// NBD cannot take a request back. A call whose context ends returns at once while
// its request waits to be sent or, if it changes nothing, for a new connection;
// once the request is with the server the call waits for the reply.
//
// # Reconnecting
//
// With a ReconnectPolicy, requests in flight when a connection breaks are sent
// again on the next one, in the order in which they were made; each is idempotent.
// The export must still have the size and at least the capabilities it had, or
// every request fails from then on. A server that was cut off, and not killed, may
// still be carrying out a write of the old connection while it does those of the
// new one: where that can happen (a network that breaks while the server's disk
// hangs), a block written again right after a reconnect may end with the older
// content. No NBD client can exclude this.
type Client struct {
	cfg      ClientConfig
	target   clientTarget
	object   string // the URI, for messages
	logger   *slog.Logger
	info     ExportInfo
	resolved block.Info

	maxPayload int64 // of one read or write
	maxEffect  int64 // of one request without payload
	allocation int   // index of base:allocation in info.MetaContexts, or -1
	depth      int   // of qemu:allocation-depth

	lanes      []*clientLane
	durability clientDurability
	reconnects atomic.Int64

	links struct {
		sync.Mutex
		live  []*clientLink
		count uint64
	}

	once    sync.Once
	closing chan struct{} // closed by Close
	cancel  context.CancelFunc
	workers sync.WaitGroup
}

// clientCompactEffect is the longest request without payload that a 32-bit length
// can say, aligned to every block size.
const clientCompactEffect = 1<<32 - 1<<16

// resolve turns what the server said into block.Info.
func (c *Client) resolve(info ExportInfo) error {
	size := block.BlockSize{Min: clientLeastBlock(info), Preferred: info.Block.Preferred}
	if size.Preferred == 0 {
		size.Preferred = 4096
	}
	if info.Size%size.Min != 0 {
		return clientErrorf(block.Unsupported,
			"the export's %d bytes are no multiple of its minimum block size %d: its end could not be reached", info.Size, size.Min)
	}
	c.info = info
	c.maxPayload = clientPayload(info)
	c.maxEffect = clientCompactEffect
	if info.Headers == "extended" {
		c.maxEffect = math.MaxInt64
	}
	c.allocation, c.depth = -1, -1
	for i, name := range info.MetaContexts {
		switch name {
		case ContextAllocation:
			c.allocation = i
		case ContextDepth:
			c.depth = i
		}
	}
	c.resolved = block.Info{
		Size: info.Size, Block: size, Rotational: info.Rotational,
		ReadOnly: info.ReadOnly || c.cfg.ReadOnly,
	}
	c.resolved.Caps = c.caps()
	return nil
}

func (c *Client) caps() block.Cap {
	var caps block.Cap
	when := func(ok bool, add block.Cap) {
		if ok {
			caps |= add
		}
	}
	writable := !c.resolved.ReadOnly
	when(c.info.Flush, block.CapFlush)
	when(c.info.FUA && writable, block.CapFUA)
	when(c.info.Zero && writable, block.CapZero)
	when(c.info.Trim && writable, block.CapDiscard)
	when(c.info.Cache, block.CapPrefetch)
	when(c.info.MultiConn, block.CapMultiConn)
	when(c.allocation >= 0, block.CapExtents)
	when(c.allocation >= 0 && c.depth >= 0, block.CapDepth)
	when(len(c.Bitmaps()) > 0, block.CapBitmaps)
	return caps
}

func clientLeastBlock(info ExportInfo) int64 { return max(info.Block.Min, 1) }

// clientPayload is the longest read or write that is sent.
func clientPayload(info ExportInfo) int64 {
	most := int64(maxPayload)
	if info.Block.Max > 0 {
		most = min(most, info.Block.Max)
	}
	return most - most%clientLeastBlock(info)
}

// start gives each connection its lane.
func (c *Client) start(links []*clientLink) {
	life, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for range links {
		c.lanes = append(c.lanes, newClientLane(c, c.cfg.MaxInFlight))
	}
	for i, link := range links {
		lane := c.lanes[i]
		c.join(link)
		lane.attach(link)
		c.workers.Go(func() { lane.run(life, link) })
		c.workers.Go(lane.writeOn)
	}
}

// Info implements block.Device.
func (c *Client) Info() block.Info { return c.resolved }

// ExportInfo is what the server said about the export, at the first connection.
func (c *Client) ExportInfo() ExportInfo { return c.info }

// Connections is the number of connections that the Client uses.
func (c *Client) Connections() int { return len(c.lanes) }

// Reconnects counts the connections that were made anew after a loss.
func (c *Client) Reconnects() int64 { return c.reconnects.Load() }

// String is the URI, without a password.
func (c *Client) String() string { return c.object }

// ReadAt implements block.Device.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := c.check("read", off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(int64(len(p)), c.maxPayload)
		if err := c.request(ctx, clientRequest{op: "read", cmd: cmdRead, off: off, n: n, buf: p[:n]}); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteAt implements block.Device.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	wire, err := c.checkChange("write", off, int64(len(p)), flags, block.FUA)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(int64(len(p)), c.maxPayload)
		r := clientRequest{op: "write", cmd: cmdWrite, flags: wire, off: off, n: n, buf: p[:n]}
		if err := c.request(ctx, r); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteZeroes implements block.Zeroer.
func (c *Client) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	const op = "write zeroes"
	if !c.info.Zero {
		return c.unsupported(op, off, "the server does not know WRITE_ZEROES")
	}
	wire, err := c.checkChange(op, off, n, flags, block.FUA|block.MayUnmap|block.FastOnly)
	if err != nil {
		return err
	}
	if flags&block.FastOnly != 0 {
		if !c.info.FastZero {
			return c.unsupported(op, off, "the server does not know fast zeroing")
		}
		wire |= cfFastZero
	}
	if flags&block.MayUnmap == 0 {
		wire |= cfNoHole
	}
	return c.effect(ctx, clientRequest{op: op, cmd: cmdWriteZeroes, flags: wire, off: off, n: n}, c.maxEffect)
}

// Discard implements block.Discarder.
func (c *Client) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if !c.info.Trim {
		return c.unsupported("discard", off, "the server does not know TRIM")
	}
	wire, err := c.checkChange("discard", off, n, flags, block.FUA)
	if err != nil {
		return err
	}
	return c.effect(ctx, clientRequest{op: "discard", cmd: cmdTrim, flags: wire, off: off, n: n}, c.maxEffect)
}

// Prefetch implements block.Prefetcher. It returns when the server has answered,
// which may be before or after the range is in its cache.
func (c *Client) Prefetch(ctx context.Context, off, n int64) error {
	if !c.info.Cache {
		return c.unsupported("prefetch", off, "the server does not know CACHE")
	}
	if err := c.check("prefetch", off, n); err != nil {
		return err
	}
	return c.effect(ctx, clientRequest{op: "prefetch", cmd: cmdCache, off: off, n: n}, c.maxPayload)
}

// effect sends a request without payload, in parts of at most limit bytes.
func (c *Client) effect(ctx context.Context, r clientRequest, limit int64) error {
	for left := r.n; left > 0; left -= r.n {
		r.n = min(left, limit)
		if err := c.request(ctx, r); err != nil {
			return err
		}
		r.off += r.n
	}
	return nil
}

// Flush implements block.Device. Where the server advertises no FLUSH it does
// nothing: such a server makes no promise to keep.
//
// After a reconnect the server may be another process, which knows nothing of
// writes that its predecessor had acknowledged and not yet made durable. If there
// are such writes, and no connection is left that was there before them, the next
// Flush makes durable what the server has and then fails, once, with kind IO,
// naming how many bytes may be lost; so do flushes issued before it returned. The
// caller decides what to do: write them again, or pass the error on. A
// configuration with StableCache trusts the server instead.
func (c *Client) Flush(ctx context.Context) error {
	if err := c.check("flush", 0, 0); err != nil {
		return err
	}
	mark := c.durability.begin()
	born, err := c.flush(ctx)
	if err != nil {
		return err
	}
	if lost := c.durability.end(mark, born); lost > 0 {
		return block.Errorf(block.IO, "flush", c.object, -1, "the connection broke after %d acknowledged bytes that were "+
			"not flushed: if the server was restarted, they may be lost", lost)
	}
	return nil
}

// Close waits for replies to the requests in flight, for CloseTimeout at most,
// and takes leave of the server. Requests that wait for a new connection fail.
func (c *Client) Close() error {
	c.once.Do(func() {
		close(c.closing)
		c.cancel()
		patience := make(chan struct{})
		timer := time.AfterFunc(c.cfg.CloseTimeout, func() { close(patience) })
		defer timer.Stop()
		for _, lane := range c.lanes {
			lane.hangUp(lane.drain(patience))
		}
		c.workers.Wait()
	})
	return nil
}

func (c *Client) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

func (c *Client) check(op string, off, n int64) error {
	if c.isClosing() {
		return block.Errorf(block.Closed, op, c.object, off, "")
	}
	return c.named(block.CheckRange(c.resolved, op, off, n))
}

// named puts the URI into an error that is made for this call.
func (c *Client) named(err error) error {
	if err == nil {
		return nil
	}
	var e *block.Error
	if errors.As(err, &e) {
		e.Object = c.object
	}
	return err
}

func (c *Client) unsupported(op string, off int64, why string) error {
	return block.Errorf(block.Unsupported, op, c.object, off, "%s", why)
}

// checkChange is check for what changes the export. It turns FUA into its wire
// flag.
func (c *Client) checkChange(op string, off, n int64, flags, known block.Flags) (commandFlags, error) {
	if err := c.check(op, off, n); err != nil {
		return 0, err
	}
	if err := block.CheckChange(c.resolved.ReadOnly, op, c.object, off, flags&^known); err != nil {
		return 0, err
	}
	switch {
	case flags&block.FUA == 0:
		return 0, nil
	case !c.info.FUA:
		return 0, block.Errorf(block.Invalid, op, c.object, off, "the server does not know FUA")
	}
	return cfFUA, nil
}
