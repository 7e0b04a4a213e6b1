package v3

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
)

// Config says which server and how.
type Config struct {
	Host string
	Port int // of NFS; 0: the port mapper tells
	// MountPort is that of the MOUNT protocol; 0: the port mapper tells.
	MountPort int
	// PortmapPort is the port mapper's own; 0: 111.
	PortmapPort int
	// Path is that of an image or of a folder that will be used: Dial finds out
	// whether it is in an export. Empty: it does not.
	Path string

	Connections int // 1 to maxConnections
	Cred        rpc.Cred

	// Patience is how long a call waits while the server is away, or wants time: see
	// rpc.Config.
	Patience time.Duration
	// Silence is how long a server that owes replies may say nothing.
	Silence time.Duration
	// Timeout bounds an attempt to connect, and one to mount.
	Timeout time.Duration
	// MaxIO is the longest payload in bytes; 0: 1 MiB.
	MaxIO int

	// Dial makes connections instead of net.Dialer, for tests: then a connection does
	// not come from the port of the one before.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Logger *slog.Logger
}

const (
	maxConnections = 16
	defaultMaxIO   = 1 << 20
	// overhead is the most that a reply holds beside its payload.
	overhead = 4 << 10
)

// Client implements remote.Client.
type Client struct {
	cfg    Config
	custom bool         // Config.Dial was set
	server string       // for errors and the log
	port   atomic.Int32 // of NFS, as it was found last
	lanes  []*lane
	slots  slots

	closing  chan struct{} // closed by Close
	ended    sync.Once
	unshared sync.Once     // that files are not kept from others was said
	reviving chan struct{} // a token: see the package's comment
	mounting chan struct{} // a token: held by who mounts an export

	mu         sync.Mutex
	files      map[*File]struct{}
	roots      []*root
	exports    []string                     // the server's list, as of the last mount
	creating   map[string]chan struct{}     // names that are being created; closed at the end
	verifiers  map[remote.Verifier]struct{} // all that were seen
	recoveries uint64
}

var _ remote.Client = (*Client)(nil)

// Dial connects, and mounts the export that the path is in. It fails with Unsupported
// where the server does not speak the version.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	c := &Client{
		cfg: cfg, custom: cfg.Dial != nil,
		closing: make(chan struct{}), reviving: make(chan struct{}, 1), mounting: make(chan struct{}, 1),
		files: map[*File]struct{}{}, creating: map[string]chan struct{}{}, verifiers: map[remote.Verifier]struct{}{},
	}
	c.cfg.normalize()
	c.slots = slots{free: make(chan *slot, maxSlots), closing: c.closing}
	if err := c.begin(ctx); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (cfg *Config) normalize() {
	if cfg.PortmapPort == 0 {
		cfg.PortmapPort = portmapPort
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
	cfg.Connections = max(1, min(cfg.Connections, maxConnections))
	if cfg.Dial == nil {
		dialer := net.Dialer{Timeout: cfg.Timeout}
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
}

// begin finds the server, makes the connections and mounts the export.
func (c *Client) begin(ctx context.Context) error {
	port := c.cfg.Port
	if port == 0 {
		var err error
		if port, err = c.portOf(ctx, program, version); err != nil {
			return err
		}
	}
	c.port.Store(int32(port))
	c.server = net.JoinHostPort(c.cfg.Host, strconv.Itoa(port))
	for range c.cfg.Connections {
		l, err := c.openLane(ctx)
		if err != nil {
			return err
		}
		c.lanes = append(c.lanes, l)
	}
	c.slots.fill(c.lanes)
	return c.probe(ctx)
}

// probe finds out whether the server speaks the version, and knows the path's export.
func (c *Client) probe(ctx context.Context) error {
	sl, err := c.slots.take(ctx, nil)
	if err != nil {
		return err
	}
	sl.call.Head, sl.call.Changes = sl.t.Start(sl.call.Head, 0), false
	if err := sl.do(ctx, 0); err != nil {
		return err
	}
	sl.release()
	if c.cfg.Path == "" {
		return nil
	}
	r, err := c.root(ctx, clean(c.cfg.Path))
	if err != nil {
		return err
	}
	_, err = getAttr(ctx, c, r.fh)
	return err
}

// Tree implements remote.Client.
func (c *Client) Tree() remote.Tree { return tree{c} }

// Status implements remote.Client.
func (c *Client) Status() remote.Status {
	st := remote.Status{Version: "3", Wanted: len(c.lanes)}
	for _, l := range c.lanes {
		since, cause := l.away()
		switch {
		case since.IsZero():
			st.Connected++
		case st.Away.IsZero() || since.Before(st.Away):
			st.Away, st.Cause = since, cause
		}
		st.Losses += l.t.Losses()
	}
	if st.Connected > 0 {
		st.Away, st.Cause = time.Time{}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st.Recoveries = c.recoveries
	return st
}

// goodbyeTime is how long a server has to hear that its exports are not used any more.
const goodbyeTime = time.Second

// Close implements remote.Client.
func (c *Client) Close() error {
	c.ended.Do(func() {
		if c.Status().Connected > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
			c.unmount(ctx)
			cancel()
		}
		c.end()
		c.slots.drain()
	})
	return nil
}

// end frees what is ours.
func (c *Client) end() {
	c.mu.Lock()
	if !c.isClosing() {
		close(c.closing)
	}
	c.mu.Unlock()
	for _, l := range c.lanes {
		_ = l.t.Close()
	}
}

func (c *Client) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}
