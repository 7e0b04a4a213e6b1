package v3

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sluice/backends/nfs/rpc"
)

// lane is one of the client's connections, with what has to be known to make it anew.
type lane struct {
	c *Client
	t *rpc.Transport

	source int // the port that it came from last; only the transport's goroutine dials

	// ready is the connection that calls go over, since it was revived. Client.reviving
	// guards it.
	ready net.Conn

	mu    sync.Mutex
	since time.Time // when it was away first; zero: it is there
	cause error
}

// openLane connects.
func (c *Client) openLane(ctx context.Context) (*lane, error) {
	l := &lane{c: c}
	t, err := rpc.Open(ctx, rpc.Config{
		Dial: l.dial, Program: program, Version: version, Cred: &c.cfg.Cred,
		Patience: c.cfg.Patience, Silence: c.cfg.Silence, MaxReply: max(c.cfg.MaxIO, listBytes) + overhead,
		Revive: func(ctx context.Context, link *rpc.Link) error { return c.revive(ctx, l, link) },
		Object: c.server, Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, connectError(c.server, err)
	}
	l.t = t
	return l, nil
}

// dial makes a connection, to where the port mapper says now where the server is not at
// the port that it was at.
func (l *lane) dial(ctx context.Context) (net.Conn, error) {
	l.broke()
	c := l.c
	port := int(c.port.Load())
	conn, err := l.connect(ctx, port)
	if err == nil || c.cfg.Port != 0 || ctx.Err() != nil {
		l.gone(err)
		return conn, err
	}
	now, asked := c.portOf(ctx, program, version)
	if asked != nil || now == port {
		l.gone(err)
		return nil, err
	}
	conn, err = l.connect(ctx, now)
	if err == nil {
		c.port.Store(int32(now))
	}
	l.gone(err)
	return conn, err
}

// connect connects from the port that the last connection came from, since a server's
// reply cache may look at it, or from any.
func (l *lane) connect(ctx context.Context, port int) (net.Conn, error) {
	address := net.JoinHostPort(l.c.cfg.Host, strconv.Itoa(port))
	if l.c.custom {
		return l.c.cfg.Dial(ctx, address)
	}
	d := net.Dialer{Timeout: l.c.cfg.Timeout, Control: reusePort}
	if l.source != 0 {
		again := net.Dialer{Timeout: l.c.cfg.Timeout / 2, Control: reusePort, LocalAddr: &net.TCPAddr{Port: l.source}}
		conn, err := again.DialContext(ctx, "tcp", address)
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if local, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		l.source = local.Port
	}
	return conn, nil
}

// reusePort lets a connection have the port of one that has not quite ended.
func reusePort(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

var errBroke = errors.New("the connection broke")

// broke notes that there is no connection any more.
func (l *lane) broke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.since, l.cause = time.Now(), errBroke
	}
}

// gone notes why there is no connection. nil changes nothing.
func (l *lane) gone(cause error) {
	if cause == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause = cause
}

// there notes that calls go over a connection.
func (l *lane) there() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.cause = time.Time{}, nil
}

// away says since when there is no connection, and why.
func (l *lane) away() (since time.Time, cause error) {
	if l.t.Connected() {
		return time.Time{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() { // it broke just now
		return time.Now(), errBroke
	}
	return l.since, l.cause
}

// stop breaks the connection: what is under way is sent again over the next one.
// Client.reviving is held.
func (l *lane) stop() {
	if l.ready != nil {
		_ = l.ready.Close() // also where the transport has not taken it over yet
		l.ready = nil
	}
	l.t.Break()
}
