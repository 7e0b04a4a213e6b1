package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// TLSMode says when a server speaks TLS (proto.md, "TLS support").
type TLSMode uint8

const (
	// TLSOff: no TLS (NOTLS).
	TLSOff TLSMode = iota
	// TLSOptional: clients may start TLS (SELECTIVETLS); the Catalog decides
	// what a peer without it sees.
	TLSOptional
	// TLSForced: nothing but starting TLS works in the clear (FORCEDTLS).
	TLSForced
)

// ServerConfig configures a Server. The zero value of each limit means its
// default.
type ServerConfig struct {
	// Catalog finds the exports. Required.
	Catalog Catalog

	// TLS is the configuration for TLSMode Optional and Forced: a certificate,
	// and ClientCAs with ClientAuth where clients must prove who they are.
	// Those are verified, but clients are not told them: GnuTLS would not find
	// its RSA certificate.
	TLS     *tls.Config
	TLSMode TLSMode

	// HandshakeTimeout is the time from accepting a connection until the client
	// has chosen an export. Default 10 s.
	HandshakeTimeout time.Duration

	// MaxConnections is the number of clients served at once; one more is
	// dropped. Default 4096.
	MaxConnections int

	// MaxRequests is how many requests of one connection are worked on at once.
	// A client that sends more is read from again when one is done. Default
	// 128.
	MaxRequests int

	// MaxBytes is how many bytes of payload one connection may have in memory:
	// writes that have arrived and replies that have not been taken. One
	// request of the largest size is always possible. Default 64 MiB.
	MaxBytes int64

	// Workers is how many requests of one connection may wait in the device at
	// once. Default 32.
	Workers int

	// MaxWorkers is how many requests of all connections may wait in devices at
	// once, each on a thread; a connection always has one. Default 2048.
	MaxWorkers int

	// BusyPoll is how long a connection whose client sends one request at a time
	// asks for the next before it blocks, as long as that pays: it saves two
	// context switches and costs up to that much of a processor for each
	// request. Default 20 us; negative: never.
	BusyPoll time.Duration

	// Logger gets a line for each connection that ends in an error and for each
	// failed request. Default: nothing.
	Logger *slog.Logger
}

func (c ServerConfig) withDefaults() ServerConfig {
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.MaxConnections, 4096)
	setDefault(&c.MaxRequests, 128)
	setDefault(&c.MaxBytes, 64<<20)
	setDefault(&c.Workers, 32)
	setDefault(&c.MaxWorkers, 2048)
	setDefault(&c.BusyPoll, defaultBusyPoll)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Server serves the exports of a Catalog over any number of listeners and
// connections. It owns a goroutine for each connection and waits for all of
// them in Shutdown and Close.
type Server struct {
	cfg ServerConfig

	// ctx ends with Close; requests and catalog look-ups run under it.
	cancel context.CancelFunc
	done   <-chan struct{}
	base   func() context.Context

	draining atomic.Bool
	running  sync.WaitGroup // connections
	workers  atomic.Int64
	lanes    lanes

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*session]struct{}
	poll      *poller // made by the first connection that is a socket
}

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("nbd: server closed")

// NewServer returns a Server that is ready to serve.
func NewServer(cfg ServerConfig) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		cfg:       cfg.withDefaults(),
		cancel:    cancel,
		done:      ctx.Done(),
		base:      func() context.Context { return ctx },
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*session]struct{}),
	}
}

// Serve accepts connections until the listener fails or the server is closed,
// which closes the listener; then it returns ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed || s.draining.Load() {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(conn)
		case s.draining.Load():
			return ErrServerClosed
		case isTemporary(err):
			// Out of descriptors, most likely: others must be given back first.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Logger.Warn("accept failed, trying again", "listener", l.Addr(), "err", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-s.done:
			}
		default:
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
	}
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// start runs a connection in a goroutine of the server's.
func (s *Server) start(conn net.Conn) {
	ses := s.admit(conn)
	if ses == nil {
		return
	}
	go func() {
		defer s.forget(ses)
		_ = ses.run(s.base()) // it has logged why
	}()
}

// ServeConn serves one connection and returns when it has ended. The server
// closes conn. The error tells why a connection ended other than by the
// client's own wish.
func (s *Server) ServeConn(conn net.Conn) error {
	ses := s.admit(conn)
	if ses == nil {
		return ErrServerClosed
	}
	defer s.forget(ses)
	return ses.run(s.base())
}

// admit registers a connection, or closes it and returns nil when there is no
// room for it.
func (s *Server) admit(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := len(s.conns) >= s.cfg.MaxConnections
	if s.closed || s.draining.Load() || full {
		_ = conn.Close()
		if full {
			s.cfg.Logger.Warn("connection refused: too many", "client", addrOf(conn), "limit", s.cfg.MaxConnections)
		}
		return nil
	}
	ses := &session{srv: s, conn: conn, ended: make(chan struct{}), log: s.cfg.Logger.With("client", addrOf(conn))}
	s.conns[ses] = struct{}{}
	s.running.Add(1)
	return ses
}

func (s *Server) forget(ses *session) {
	s.mu.Lock()
	delete(s.conns, ses)
	s.mu.Unlock()
	close(ses.ended)
	s.running.Done()
}

func addrOf(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		return a.String()
	}
	if a := conn.LocalAddr(); a != nil {
		return a.String()
	}
	return "unknown"
}

// Connections is the number of clients at the moment.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown stops accepting, lets every connection finish the requests that have
// arrived, and closes it. A request that arrives later finds the connection
// closed, at a boundary between replies: a client that reconnects repeats it, while
// ESHUTDOWN would reach the guest as an I/O error. Clients in the handshake are
// answered REP_ERR_SHUTDOWN. When ctx ends first, the rest is cut off as by
// Close, and the context's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for l := range s.listeners {
		_ = l.Close()
	}
	for ses := range s.conns {
		ses.drain()
	}
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return s.Close()
	case <-ctx.Done():
		_ = s.Close()
		<-idle
		return ctx.Err()
	}
}

// End ends the connections to one export as Shutdown does all, and waits for
// them. New ones are the Catalog's matter: it withdraws the export first
// (Export.Withdrawn). When ctx ends, the rest is cut off, and the context's error
// returned once they are gone.
func (s *Server) End(ctx context.Context, export string) error {
	var ending []*session
	s.mu.Lock()
	for ses := range s.conns {
		if ses.serves(export) {
			ending = append(ending, ses)
			ses.drain()
		}
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		for _, ses := range ending {
			ses.cut()
		}
	})
	defer stop()
	for _, ses := range ending {
		<-ses.ended
	}
	if len(ending) == 0 {
		return nil
	}
	return ctx.Err()
}

// Close cuts all connections and waits until they are gone; requests in the
// device are waited for, their replies are not sent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.draining.Store(true)
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for ses := range s.conns {
		ses.cut()
	}
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	s.lanes.ended.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll != nil {
		s.poll.close()
		s.poll = nil
	}
	return nil
}

// poller gives the connections what they wait in.
func (s *Server) poller() (*poller, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == nil {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		s.poll = p
	}
	return s.poll, nil
}

// session is one connection from accept to close: the handshake, then the
// transmission. run's goroutine owns it; drain and cut come from outside.
type session struct {
	srv   *Server
	conn  net.Conn
	log   *slog.Logger
	ended chan struct{} // closed at the end

	draining atomic.Bool // no more requests are taken

	mu     sync.Mutex
	stream stream // set when the transmission starts
	export string // of the transmission
	dead   bool
	abort  context.CancelFunc // ends what runs for the connection
}

// run serves the connection and closes it.
func (ses *session) run(ctx context.Context) error {
	defer func() { _ = ses.conn.Close() }()
	stop := context.AfterFunc(ctx, ses.cut)
	defer stop()
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	ses.mu.Lock()
	ses.abort = abort
	ses.mu.Unlock()
	h := newHandshake(ses.srv, ses.conn)
	agreed, err := h.run(ctx)
	ses.mu.Lock()
	ses.conn = h.conn // TLS may have wrapped it
	ses.mu.Unlock()
	if err == nil && agreed != nil {
		err = ses.transmit(ctx, agreed)
	}
	if err != nil && !isGone(err) {
		ses.log.Warn("connection ended", "err", err)
	}
	return err
}

// transmit is the second phase.
func (ses *session) transmit(ctx context.Context, a *agreement) error {
	defer a.release()
	st, err := newStream(ses.conn, ses.srv.poller, ses.srv.cfg.BusyPoll)
	if err != nil {
		return err
	}
	defer st.release()
	ses.mu.Lock()
	ses.stream, ses.export = st, a.export.Name
	if ses.dead {
		st.close()
	} else if ses.draining.Load() {
		st.stopReceiving()
	}
	ses.mu.Unlock()
	if a.export.Withdrawn != nil && a.export.Withdrawn() {
		ses.drain() // End came before the export's name was there to be found
	}
	c := newServerConn(ses.srv, st, a, ses.log)
	c.draining = &ses.draining
	return c.serve(ctx)
}

// drain lets the transmission finish what has arrived. The handshake looks at
// the server's flag before each option; one that waits for the client is cut.
func (ses *session) drain() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.draining.Store(true)
	if ses.stream != nil {
		ses.stream.stopReceiving()
	} else {
		_ = netConn(ses.conn).SetReadDeadline(time.Now().Add(drainHandshake))
	}
}

// drainHandshake is how long a client in the handshake has left to send its
// next option, which is then answered REP_ERR_SHUTDOWN.
const drainHandshake = 250 * time.Millisecond

// serves reports whether the connection is in the transmission of an export.
func (ses *session) serves(export string) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.stream != nil && ses.export == export
}

// cut ends the connection at once; what the device does for it is told by its
// context.
func (ses *session) cut() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.dead = true
	if ses.abort != nil {
		ses.abort()
	}
	if ses.stream != nil {
		ses.stream.close()
	} else {
		_ = netConn(ses.conn).Close()
	}
}

// isGone reports errors that only say that the peer is no longer there.
func isGone(err error) bool {
	return errors.Is(err, errGone) || errors.Is(err, net.ErrClosed) || block.KindOf(err) == block.Transient ||
		block.KindOf(err) == block.Closed
}

// errGone: the client left without a word.
var errGone = errors.New("client is gone")
