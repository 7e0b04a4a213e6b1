package metrics

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/block"
)

// limits bound what clients of the HTTP endpoint may hold. It shares file
// descriptors and memory with the data path.
type limits struct {
	header  time.Duration // to send the request's header
	read    time.Duration // to send the whole request
	write   time.Duration // to take the answer, from the end of the header; pprof adds what it measures
	idle    time.Duration // between requests
	close   time.Duration // for answers under way when the server closes
	bytes   int           // of a request's header; net/http allows some 4 KiB on top
	clients int64         // connections at once
}

var standardLimits = limits{
	header:  5 * time.Second,
	read:    10 * time.Second,
	write:   30 * time.Second,
	idle:    2 * time.Minute,
	close:   5 * time.Second,
	bytes:   16 << 10,
	clients: 64,
}

// Options shape the HTTP endpoint.
type Options struct {
	// Pprof adds /debug/pprof. Profiles tell much about a program and taking
	// them costs time, so this is for those who look for a problem.
	Pprof bool
	// Log takes what goes wrong in answering; nil means nowhere.
	Log *slog.Logger
}

// Server is the HTTP endpoint.
type Server struct {
	http     *http.Server
	addr     net.Addr
	limits   limits
	stopWait func() bool   // ends the wait for the context
	done     chan struct{} // closed when the accepting goroutine has returned
	handlers sync.WaitGroup
	once     sync.Once
	serveErr error // set before done is closed
	clients  atomic.Int64
}

// Serve listens on addr, HOST:PORT, and serves /metrics, /healthz and with the
// option /debug/pprof there until the context ends or the Server is closed. The
// caller has to close it in either case. The error is one line and names addr.
func (r *Registry) Serve(ctx context.Context, addr string, opts Options) (*Server, error) {
	return r.serve(ctx, addr, opts, standardLimits)
}

// ServeOn does the same at a listener that is open already, which it closes at the
// end.
func (r *Registry) ServeOn(ctx context.Context, l net.Listener, opts Options) *Server {
	return r.serveOn(ctx, l, opts, standardLimits)
}

func (r *Registry) serve(ctx context.Context, addr string, opts Options, lim limits) (*Server, error) {
	l, err := listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return r.serveOn(ctx, l, opts, lim), nil
}

func (r *Registry) serveOn(ctx context.Context, l net.Listener, opts Options, lim limits) *Server {
	s := &Server{addr: l.Addr(), limits: lim, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.track(r.mux(opts)),
		ReadHeaderTimeout: lim.header,
		ReadTimeout:       lim.read,
		WriteTimeout:      lim.write,
		IdleTimeout:       lim.idle,
		MaxHeaderBytes:    lim.bytes,
		ErrorLog:          errorLog(opts.Log),
		ConnState:         s.count,
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.serveErr = err
		}
	}()
	s.stopWait = context.AfterFunc(ctx, s.stop)
	return s
}

// listen takes only addresses that name a host, so that nobody serves the whole
// network by leaving it out.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	const op = "serve metrics on"
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return nil, block.Errorf(block.Invalid, op, addr, -1,
			"not HOST:PORT (0.0.0.0:PORT or [::]:PORT listens everywhere)")
	}
	if err := ctx.Err(); err != nil {
		return nil, block.Wrap(err, op, addr, -1)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	kind := block.KindOf(err)
	var name *net.DNSError
	if errors.As(err, &name) {
		return nil, block.Errorf(block.NotFound, op, addr, -1, "look up the host %s: %s", name.Name, name.Err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno // without the address, which is named already
		if errno == syscall.EADDRINUSE {
			kind = block.Busy
		}
	}
	return nil, &block.Error{Kind: kind, Op: op, Object: addr, Off: -1, Err: err}
}

// mux joins the pages. net/http/pprof also puts itself into http's default mux,
// which nothing of ours serves. cmdline of pprof is left out: storage URLs on the
// command line may hold secrets.
func (r *Registry) mux(opts Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.Handler(opts.Log))
	mux.HandleFunc("GET /healthz", r.serveHealth)
	if opts.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
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

// Addr is the address the server listens on, with the port that was chosen when
// port 0 was asked for.
func (s *Server) Addr() net.Addr { return s.addr }

// Close stops listening, lets answers under way finish for a few seconds, hangs
// up, and waits until nothing of the server runs any more. It returns why
// serving ended when that was not for Close or the context. More calls do the
// same and return the same.
func (s *Server) Close() error {
	s.stopWait()
	s.stop()
	if s.serveErr != nil {
		return fmt.Errorf("serve metrics on %s: %w", s.addr, s.serveErr)
	}
	return nil
}

// stop is what Close and the end of the context have in common.
func (s *Server) stop() {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.limits.close)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			_ = s.http.Close() // ends the contexts of handlers
		}
		<-s.done
		s.handlers.Wait()
	})
}

// track lets stop wait for handlers whose client is gone already.
func (s *Server) track(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		h.ServeHTTP(w, req)
	})
}

// errorLog fits a structured log to packages that know only the old one.
func errorLog(l *slog.Logger) *log.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return slog.NewLogLogger(l.Handler(), slog.LevelWarn)
}
