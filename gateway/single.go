package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/spec"
	"sluice/metrics"
	"sluice/nbd"
)

// SingleConfig says what to serve and how.
type SingleConfig struct {
	Device      block.Device // closed by Run
	Object      string       // the device's name in messages
	Name        string       // of the export; "" is NBD's default export
	Description string
	ReadOnly    bool

	// Settings are what limits the device and what becomes of its failures. Filters
	// are put on it only where they ask for some, and Hold for waiting while the
	// storage is away, as for storage that can be.
	Settings spec.Settings
	Hold     bool

	Listeners []net.Listener // closed by Run

	// Files is where the device is a file, too, under the name File; Run closes
	// it. May be nil.
	Files       *fusefs.FS
	File        string
	Xattrs      map[string]string // of the file
	Passthrough bool              // the kernel may move the file's bytes by itself

	TLS     *tls.Config
	TLSMode nbd.TLSMode
	Allow   []string // common names of clients that may come in; all when empty

	MaxConnections int           // 0: the server's default
	BusyPoll       time.Duration // as in nbd.ServerConfig
	// DrainTimeout bounds the wait for requests in progress at the end; 0
	// waits for as long as they take.
	DrainTimeout time.Duration

	Stopping func()          // called when Run takes no more requests; may be nil
	Metrics  *metrics.Export // may be nil
	Logger   *slog.Logger
}

// Single serves one device.
type Single struct {
	cfg   SingleConfig
	srv   *nbd.Server
	waits bool // a filter holds requests
}

// layer puts filters on the device.
func (cfg *SingleConfig) layer() error {
	rules, err := rulesOf(cfg.Name, cfg.Settings)
	if err != nil {
		return err
	}
	on := layering{
		name: cfg.Object, settings: cfg.Settings, rules: rules, slow: cfg.Settings.SlowRequest.Std(), sparing: true,
		holds: cfg.Hold, counters: cfg.Metrics, log: cfg.Logger,
	}.build(cfg.Device)
	cfg.Device = on.top
	if cfg.Metrics != nil {
		cfg.Metrics.SetGauges(func() metrics.Gauges {
			g := metrics.Gauges{State: string(Serving)}
			on.gauges(&g)
			return g
		})
	}
	return nil
}

// show makes the file.
func (cfg *SingleConfig) show() error {
	if cfg.Files == nil {
		return nil
	}
	f := fusefs.File{
		Name: cfg.File, Device: cfg.Device, ReadOnly: cfg.ReadOnly, Passthrough: cfg.Passthrough, Xattrs: cfg.Xattrs,
	}
	if cfg.Metrics != nil {
		f.Observer = fileCounters{cfg.Metrics.FUSE()}
	}
	return cfg.Files.Add(f)
}

// NewSingle prepares to serve. When it fails, device, listeners and mount stay the
// caller's.
func NewSingle(cfg SingleConfig) (*Single, error) {
	if err := cfg.layer(); err != nil {
		return nil, err
	}
	exports := &nbd.Exports{}
	if len(cfg.Allow) > 0 {
		exports.Authorize = nbd.AllowCommonNames(cfg.Allow...)
	}
	x := &nbd.Export{Name: cfg.Name, Description: cfg.Description, Device: cfg.Device, ReadOnly: cfg.ReadOnly}
	if cfg.Metrics != nil {
		info := cfg.Device.Info()
		info.ReadOnly = info.ReadOnly || cfg.ReadOnly
		cfg.Metrics.SetInfo(info)
		x.Observer = cfg.Metrics
	}
	if err := exports.Add(x); err != nil {
		return nil, err
	}
	if err := cfg.show(); err != nil {
		return nil, err
	}
	srv := nbd.NewServer(nbd.ServerConfig{
		Catalog: exports, TLS: cfg.TLS, TLSMode: cfg.TLSMode,
		MaxConnections: cfg.MaxConnections, BusyPoll: cfg.BusyPoll, Logger: cfg.Logger,
	})
	return &Single{cfg: cfg, srv: srv, waits: cfg.Hold || cfg.Settings.OnError != (spec.OnError{})}, nil
}

// Run serves until stop ends, a listener fails or the mount is gone. Then it takes
// no more requests, lets those that have arrived finish, flushes the device and closes
// it. When cut ends, it does not wait for clients any longer, but flushes all the
// same. A device that does not return then is left to the end of the process. The
// error tells why serving ended other than by stop, or that the device could not be
// flushed.
func (s *Single) Run(stop, cut context.Context) error {
	failed := make(chan error, len(s.cfg.Listeners))
	var serving sync.WaitGroup
	for _, l := range s.cfg.Listeners {
		serving.Go(func() {
			if err := s.srv.Serve(l); !errors.Is(err, nbd.ErrServerClosed) {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-stop.Done():
	case err = <-failed:
	case <-s.unmounted():
		err = block.Errorf(block.Closed, "serve", s.cfg.Files.Dir(), -1, "it was unmounted")
	}
	if s.cfg.Stopping != nil {
		s.cfg.Stopping()
	}
	gone := s.drain(cut)
	serving.Wait()
	return errors.Join(err, s.release(cut, gone))
}

// unmounted is closed when somebody else unmounts; nil, which never is, without a
// mount.
func (s *Single) unmounted() <-chan struct{} {
	if s.cfg.Files == nil {
		return nil
	}
	return s.cfg.Files.Done()
}

// drain ends all connections and the mount, those that take too long by force. It
// reports whether all requests have ended.
func (s *Single) drain(cut context.Context) bool {
	ctx := cut
	if s.cfg.DrainTimeout > 0 {
		limited, cancel := context.WithTimeout(cut, s.cfg.DrainTimeout)
		defer cancel()
		ctx = limited
	}
	if n := s.srv.Connections(); n > 0 {
		s.cfg.Logger.Info("draining", "connections", n)
	}
	away := make(chan struct{})
	go func() {
		defer close(away)
		if err := s.srv.Shutdown(ctx); err != nil {
			s.cfg.Logger.Warn("requests in progress were cut off", "why", whyCut(err))
		}
	}()
	unmounted := s.closeFiles(ctx)
	late, stop := after(ctx, afterCut)
	defer stop()
	select {
	case <-away:
		return unmounted
	case <-late.Done():
		return false
	}
}

// closeFiles unmounts. It reports whether no request is left.
func (s *Single) closeFiles(ctx context.Context) bool {
	if s.cfg.Files == nil {
		return true
	}
	err := s.cfg.Files.CloseWithin(ctx)
	if err != nil {
		s.cfg.Logger.Warn("the files are not closed in order", "err", err)
	}
	return block.KindOf(err) != block.Canceled
}

// flushAfterCut is how long a flush may take after clients were cut off, where the
// storage may be away, or does not return, and nothing else bounds it.
const flushAfterCut = 5 * time.Second

// release makes durable what clients wrote and gives the device back. Who cuts
// clients off still wants the flush, but not one that waits for ever for a storage
// that is away. gone says that no request is in the device any more.
func (s *Single) release(ctx context.Context, gone bool) error {
	if s.cfg.DrainTimeout > 0 {
		limited, done := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
		defer done()
		ctx = limited
	} else {
		flushing, done := context.WithCancel(context.WithoutCancel(ctx))
		defer done()
		if s.waits || !gone {
			stop := context.AfterFunc(ctx, func() { time.AfterFunc(flushAfterCut, done) })
			defer stop()
		}
		ctx = flushing
	}
	released := make(chan error, 1)
	go func() {
		var err error
		if !s.cfg.Device.Info().ReadOnly {
			err = block.Wrap(s.cfg.Device.Flush(ctx), "flush", s.cfg.Object, -1)
		}
		released <- errors.Join(err, block.Wrap(s.cfg.Device.Close(), "close", s.cfg.Object, -1))
	}()
	late, stop := after(ctx, afterCut)
	defer stop()
	select {
	case err := <-released:
		return err
	case <-late.Done():
		return block.Errorf(block.Canceled, "close", s.cfg.Object, -1, deafStorage)
	}
}
