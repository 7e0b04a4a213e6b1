package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/gateway/wire"
)

// limits bound what clients may hold. The API shares file descriptors and memory
// with the data path.
type limits struct {
	header    time.Duration // to send a request's header
	read      time.Duration // to send a whole request
	write     time.Duration // to take each piece of an answer
	idle      time.Duration // between requests
	heartbeat time.Duration // between signs of life in a quiet stream of events
	close     time.Duration // for requests under way when the server closes
	head      int           // bytes of a request's header; net/http allows some 4 KiB on top
	body      int64         // bytes of a request's body
	clients   int64         // connections at once
	streams   int64         // of them, how many may be streams of events
}

var standardLimits = limits{
	header:    5 * time.Second,
	read:      10 * time.Second,
	write:     30 * time.Second,
	idle:      2 * time.Minute,
	heartbeat: 15 * time.Second,
	close:     5 * time.Second,
	head:      16 << 10,
	body:      256 << 10,
	clients:   256,
	streams:   128,
}

// Config says what to serve, and to whom.
type Config struct {
	Gateway Gateway

	Version string    // of the program
	Started time.Time // when the daemon was started

	// Daemon tells of the daemon as it is: where it can be reached, and what is
	// wrong with it; nil tells nothing.
	Daemon func() (wire.Addresses, []string)

	// Reload reads the daemon's configuration anew; nil where there is none.
	Reload func(context.Context) error

	// TLS is needed for TCP. It has to ask clients for certificates:
	// RequireAndVerifyClientCert, and ClientCAs.
	TLS *tls.Config
	// Allow are the common names of certificates that let a client in; all that
	// ClientCAs signed when empty.
	Allow []string

	Logger *slog.Logger // nil: none
}

// Server is the API.
type Server struct {
	cfg    Config
	limits limits
	log    *slog.Logger
	mux    *http.ServeMux
	http   *http.Server
	turns  turns

	clients atomic.Int64
	streams atomic.Int64
	ending  chan struct{} // closed when streams have to end
	once    sync.Once

	mu       sync.Mutex // of the two below
	closed   bool       // no handler may begin
	handlers sync.WaitGroup
}

// New makes a Server. It has to be closed, also when nothing was served.
func New(cfg Config) *Server { return newServer(cfg, standardLimits) }

func newServer(cfg Config, lim limits) *Server {
	s := &Server{cfg: cfg, limits: lim, log: cfg.Logger, mux: http.NewServeMux(), ending: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.routes()
	one := new(http.Protocols)
	one.SetHTTP1(true) // of HTTP/2, a connection would be as much as hundreds
	s.http = &http.Server{
		Handler:           s.guard(s.mux),
		Protocols:         one,
		ReadHeaderTimeout: lim.header,
		ReadTimeout:       lim.read,
		WriteTimeout:      lim.write,
		IdleTimeout:       lim.idle,
		MaxHeaderBytes:    lim.head,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnState:         s.count,
		TLSConfig:         cfg.TLS,
	}
	return s
}

// Serve serves a listener, which it closes at the end, until the Server is
// closed, and then returns nil. What is not a unix socket is served only with TLS
// that asks clients for certificates. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	addr := l.Addr()
	where := addr.Network() + ":" + addr.String()
	var err error
	switch {
	case addr.Network() == "unix":
		err = s.http.Serve(l)
	case !asksForCertificates(s.cfg.TLS):
		_ = l.Close()
		return block.Errorf(block.Invalid, "serve the API on", where, -1,
			"over TCP it takes TLS with certificates on both sides: give a certificate, its key and the authority of the clients' certificates")
	default:
		err = s.http.ServeTLS(l, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return block.Wrap(err, "serve the API on", where, -1)
}

// asksForCertificates reports whether nobody gets in without a certificate.
func asksForCertificates(cfg *tls.Config) bool {
	return cfg != nil && cfg.ClientAuth == tls.RequireAndVerifyClientCert && cfg.ClientCAs != nil &&
		(len(cfg.Certificates) > 0 || cfg.GetCertificate != nil)
}

// count counts the clients and hangs up on those that are too many.
func (s *Server) count(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.clients.Add(1) > s.limits.clients {
			_ = conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.clients.Add(-1)
	}
}

// enter counts a handler that begins, unless none may any more.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.handlers.Add(1)
	}
	return !s.closed
}

// Close takes no more requests, ends streams of events, lets other requests
// finish for a few seconds, hangs up, and waits until nothing of the Server runs
// any more. More calls wait likewise.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.ending)
		ctx, cancel := context.WithTimeout(context.Background(), s.limits.close)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			_ = s.http.Close() // ends the contexts of handlers
		}
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.handlers.Wait()
	})
}
