package v4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// Config says which server and how.
type Config struct {
	Host string
	Port int // 0: 2049
	// Minor is the highest minor version that is asked for, 2 or 1; with Only the
	// only one.
	Minor uint32
	Only  bool

	Connections int // 1 to maxSlots
	Cred        rpc.Cred

	// Patience is how long a call waits while the server is away, or wants time: see
	// rpc.Config.
	Patience time.Duration
	// Silence is how long a server that owes replies may say nothing.
	Silence time.Duration
	// Timeout bounds an attempt to connect.
	Timeout time.Duration
	// MaxIO is the longest payload in bytes; 0: 1 MiB.
	MaxIO int

	// Dial makes connections instead of net.Dialer, for tests.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Logger *slog.Logger
}

const (
	defaultPort  = 2049
	defaultMaxIO = 1 << 20
	defaultLease = 90 * time.Second
)

// Client implements remote.Client.
type Client struct {
	cfg    Config
	server string // for errors and the log
	owner  *owner
	lease  time.Duration

	minor      uint32 // settled by Dial
	transports []*rpc.Transport
	bare       *rpc.Call // keep's, for what goes without SEQUENCE
	slots      slots

	current    atomic.Pointer[session] // nil while there is none
	granted    atomic.Pointer[channel] // the limits of the last one
	recoveries atomic.Uint64

	mu      sync.Mutex
	changed chan struct{} // closed when current changes, and made anew
	why     error         // what is in the way of the next session
	files   map[*File]struct{}
	closed  bool

	// keep's
	clientID  uint64
	createSeq uint32
	last      *session
	number    uint64
	forgotten bool          // the server has no state of ours
	delay     time.Duration // before the last one was made

	wake    chan struct{} // keep has something to do
	life    func()        // ends keep and renew
	running sync.WaitGroup
}

var _ remote.Client = (*Client)(nil)

// Dial connects and makes a session. It fails with Unsupported where the server does
// not speak the version.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg.normalize()
	c := &Client{
		cfg: cfg, minor: cfg.Minor, changed: make(chan struct{}), files: map[*File]struct{}{}, wake: make(chan struct{}, 1),
		lease: defaultLease, server: net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)),
	}
	life, end := context.WithCancel(context.Background())
	c.life = end
	c.owner = newOwner(c.server, cfg.Cred.UID)
	if err := c.begin(ctx); err != nil {
		c.abandon()
		return nil, err
	}
	c.running.Go(func() { c.keep(life) })
	c.running.Go(func() { c.renew(life) })
	return c, nil
}

func (cfg *Config) normalize() {
	if cfg.Port == 0 {
		cfg.Port = defaultPort
	}
	if cfg.MaxIO <= 0 {
		cfg.MaxIO = defaultMaxIO
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	cfg.Connections = max(1, min(cfg.Connections, maxSlots))
	if cfg.Dial == nil {
		dialer := net.Dialer{Timeout: cfg.Timeout}
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
}

// begin makes the transports and the first session.
func (c *Client) begin(ctx context.Context) error {
	for i := range c.cfg.Connections {
		t, err := c.openTransport(ctx, i == 0)
		if err != nil {
			return err
		}
		c.transports = append(c.transports, t)
	}
	c.bare = c.transports[0].NewCall()
	c.slots.init(func(i int) (*rpc.Transport, *rpc.Call) {
		t := c.transports[i%len(c.transports)]
		return t, t.NewCall()
	})
	if err := c.settle(ctx); err != nil {
		return err
	}
	next, err := c.createSession(ctx)
	if err != nil {
		return err
	}
	c.install(next)
	if err := c.start(ctx, next); err != nil {
		return err
	}
	c.publish(next)
	return nil
}

// start is what a new client does first in its session.
func (c *Client) start(ctx context.Context, s *session) error {
	if err := c.now(ctx, s, reclaimComplete()); err != nil && statusOf(err) != nfsstat.CompleteAlready {
		return err
	}
	var a attributes
	if err := c.now(ctx, s, &chain{steps: []step{putRoot(), getAttr(leaseAttrs, &a)}}); err != nil {
		return err
	}
	if a.has.has(attrLeaseTime) && a.lease > 0 {
		c.lease = time.Duration(a.lease) * time.Second
	}
	return nil
}

func (c *Client) openTransport(ctx context.Context, main bool) (*rpc.Transport, error) {
	cred := c.cfg.Cred
	cfg := rpc.Config{
		Dial:    func(ctx context.Context) (net.Conn, error) { return c.cfg.Dial(ctx, c.server) },
		Program: program, Version: version, Cred: &cred,
		Patience: c.cfg.Patience, Silence: c.cfg.Silence, MaxReply: c.cfg.MaxIO + overhead,
		Object: c.server, Logger: c.cfg.Logger,
	}
	if main {
		cfg.Answer = c.answer
		cfg.Revive = c.bind
	}
	t, err := rpc.Open(ctx, cfg)
	if err != nil && block.KindOf(err) == block.IO && !errors.Is(err, block.IO) {
		err = &block.Error{Kind: block.Transient, Op: "connect to", Object: c.server, Off: -1, Err: err}
	}
	return t, err
}

// Status implements remote.Client.
func (c *Client) Status() remote.Status {
	st := remote.Status{Version: fmt.Sprintf("4.%d", c.minor), Wanted: len(c.transports), Recoveries: c.recoveries.Load()}
	for _, t := range c.transports {
		since, cause := t.Away()
		if cause == nil {
			st.Connected++
		} else if st.Away.IsZero() || since.Before(st.Away) {
			st.Away, st.Cause = since, cause
		}
		st.Losses += t.Losses()
	}
	if st.Connected > 0 {
		st.Away = time.Time{}
		c.mu.Lock()
		defer c.mu.Unlock()
		st.Cause = c.why
	}
	return st
}

// Close implements remote.Client.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.life()
	c.running.Wait()
	c.sayGoodbye()
	c.abandon()
	return nil
}

// goodbyeTime is how long a server has to take its state back.
const goodbyeTime = time.Second

// sayGoodbye gives the session and the client id back, if the server is there.
func (c *Client) sayGoodbye() {
	s := c.current.Load()
	if s == nil || s.spoiled.Load() || !c.transports[0].Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	if c.plain(ctx, c.transports[0].NewCall(), destroySession(s.id)) != nil {
		return
	}
	_ = c.plain(ctx, c.transports[0].NewCall(), destroyClientID(c.clientID))
}

// abandon frees what is ours.
func (c *Client) abandon() {
	c.life()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for _, t := range c.transports {
		_ = t.Close()
	}
	c.slots.close()
	c.wakeWaiters()
	c.owner.release()
}

// ready gives the session, and waits for the next where there is none.
func (c *Client) ready(ctx context.Context, p *patience) (_ *session, err error) {
	if s := c.current.Load(); s != nil && !s.spoiled.Load() {
		return s, nil
	}
	for {
		c.mu.Lock()
		s, changed, why, closed := c.current.Load(), c.changed, c.why, c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return nil, block.Closed
		case s != nil && s.spoiled.Load():
			c.lose(s)
			continue
		case s != nil:
			return s, nil
		}
		left := p.left(c.cfg.Patience)
		if left <= 0 {
			return nil, &block.Error{Kind: block.Transient, Op: "call", Object: c.server, Off: -1, Err: noSession(why)}
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-p.closing:
			err = block.Closed
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

func noSession(why error) error {
	if why == nil {
		return errors.New("no session with the server yet")
	}
	return fmt.Errorf("no session with the server: %w", why)
}

// lose notes that a session is not there any more, or must not be used.
func (c *Client) lose(s *session) {
	if c.current.CompareAndSwap(s, nil) {
		c.rouse()
	}
}

// rouse tells keep that there is something to do.
func (c *Client) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// install makes a session that which slots are handed out for.
func (c *Client) install(s *session) {
	c.last = s
	c.granted.Store(&s.fore)
	c.slots.grant(int(s.fore.maxSlots))
}

// publish lets calls use a session.
func (c *Client) publish(s *session) {
	c.current.Store(s)
	c.mu.Lock()
	c.why = nil
	c.mu.Unlock()
	c.wakeWaiters()
}

func (c *Client) wakeWaiters() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}
