package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// clientPeerTimeout is how long a TCP peer may be silent (data of ours not
// acknowledged, or no answer to keep-alives) before the connection counts as
// lost.
const clientPeerTimeout = 30 * time.Second

// clientError is an error with a kind, whose text is that of its cause.
type clientError struct {
	kind  block.Kind
	cause error
}

func clientErrorf(kind block.Kind, format string, args ...any) error {
	return &clientError{kind, fmt.Errorf(format, args...)}
}

func (e *clientError) Error() string   { return e.cause.Error() }
func (e *clientError) Unwrap() []error { return []error{e.kind, e.cause} }

// clientTarget is where to connect and how.
type clientTarget struct {
	uri URI
	tls *tls.Config // nil in plain text

	timeout time.Duration // for connecting and the handshake
}

// dial connects and goes through the handshake up to the point where options are
// asked for, then through step. Both end within DialTimeout and with ctx. A
// handshake that failed is closed.
func (t *clientTarget) dial(ctx context.Context, step func(*clientHandshake) error) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	conn, err := t.open(ctx)
	if err != nil {
		return t.explain(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	h, err := clientOpenHandshake(ctx, conn, t.tls)
	if err == nil {
		err = step(h)
	}
	if !stop() && err == nil {
		err = ctx.Err() // the deadline is set, or will be: the connection is of no use
	}
	if err != nil {
		_ = conn.Close()
		return t.explain(ctx, err)
	}
	return nil
}

func (t *clientTarget) open(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: clientPeerTimeout / 2, Interval: clientPeerTimeout / 6, Count: 3},
		Control:         clientSocketOptions,
	}
	conn, err := dialer.DialContext(ctx, t.uri.Network(), t.uri.Address())
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetNoDelay(true); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// clientSocketOptions bounds the time that TCP goes on sending to a host that is
// gone; its own bound is a quarter of an hour.
func clientSocketOptions(network, _ string, raw syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(clientPeerTimeout/time.Millisecond))
	}); e != nil {
		return e
	}
	return err
}

// explain makes what went wrong an error about the server.
func (t *clientTarget) explain(ctx context.Context, err error) error {
	kind := block.KindOf(err)
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		kind = block.Canceled
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		kind, err = block.Transient, fmt.Errorf("no answer within %v", t.timeout)
	}
	return &block.Error{Kind: kind, Op: "connect", Object: t.uri.String(), Off: -1, Err: plainly(err)}
}

// plainly says why a server was not reached, without the address, which is told
// anyway.
func plainly(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		return err
	}
	var name *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(op.Err, &name) && name.IsNotFound:
		return fmt.Errorf("there is no host of that name: %s", name.Name)
	case errors.As(op.Err, &name):
		return fmt.Errorf("look up the host %s: %s", name.Name, name.Err)
	case !errors.As(op.Err, &errno):
		return op.Err
	case errno == syscall.ECONNREFUSED:
		return fmt.Errorf("no server listens there: %w", errno)
	case errno == syscall.ENOENT:
		return errors.New("there is no such socket")
	}
	return errno
}

// connect makes one connection up to the transmission phase.
func (c *Client) connect(ctx context.Context) (*clientLink, ExportInfo, error) {
	var link *clientLink
	var info ExportInfo
	err := c.target.dial(ctx, func(h *clientHandshake) (err error) {
		link, info, err = c.negotiate(h)
		return err
	})
	return link, info, err
}

// negotiate is the option haggling of a connection.
func (c *Client) negotiate(h *clientHandshake) (*clientLink, ExportInfo, error) {
	if err := h.headers(&c.cfg); err != nil {
		return nil, ExportInfo{}, err
	}
	if err := h.setContexts(c.target.uri.Export, c.cfg.MetaContexts); err != nil {
		return nil, ExportInfo{}, err
	}
	info, err := h.enter(c.target.uri.Export)
	if err != nil {
		return nil, info, err
	}
	info.MetaContexts = h.mode.names()
	return &clientLink{stream: h.stream, mode: h.mode}, info, nil
}

// Dial connects to the export that the URI names. ctx bounds the connecting
// only. The error's kind is NotFound for an unknown export, Permission where the
// server refuses it or TLS fails, Transient where the server is not there.
func Dial(ctx context.Context, uri string, cfg ClientConfig) (*Client, error) {
	target, err := clientPrepare(uri, &cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, target: target, object: target.uri.String(), logger: cfg.Logger, closing: make(chan struct{})}
	first, info, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.resolve(info); err != nil {
		_ = first.stream.conn.Close()
		return nil, block.Wrap(err, "connect", c.object, -1)
	}
	links := []*clientLink{first}
	if info.MultiConn && cfg.Connections > 1 {
		more, err := c.connectMore(ctx, cfg.Connections-1)
		links = append(links, more...)
		if err != nil {
			for _, link := range links {
				_ = link.stream.conn.Close()
			}
			return nil, err
		}
	}
	c.start(links)
	return c, nil
}

// connectMore makes further connections at the same time.
func (c *Client) connectMore(ctx context.Context, n int) ([]*clientLink, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var links []*clientLink
	var failed error
	for range n {
		wg.Go(func() {
			link, info, err := c.connect(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				links = append(links, link)
				err = c.sameExport(info, link.mode)
			}
			if err != nil {
				failed = block.Wrap(err, "connect", c.object, -1)
			}
		})
	}
	wg.Wait()
	return links, failed
}

// clientPrepare fills in defaults and reads what the URI names.
func clientPrepare(uri string, cfg *ClientConfig) (clientTarget, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return clientTarget{}, err
	}
	cfg.setDefaults()
	secure, err := clientTLSConfig(u, cfg.TLS)
	return clientTarget{uri: u, tls: secure, timeout: cfg.DialTimeout}, err
}
