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
	cfg SingleConfig
	srv *nbd.Server
}

// show makes the file.
func (cfg *SingleConfig) show() error {
	if cfg.Files == nil {
		return nil
	}
	return cfg.Files.Add(fusefs.File{
		Name: cfg.File, Device: cfg.Device, ReadOnly: cfg.ReadOnly, Passthrough: cfg.Passthrough, Xattrs: cfg.Xattrs,
	})
}

// NewSingle prepares to serve. When it fails, device, listeners and mount stay the
// caller's.
func NewSingle(cfg SingleConfig) (*Single, error) {
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
	return &Single{cfg: cfg, srv: srv}, nil
}

// Run serves until stop ends, a listener fails or the mount is gone. Then it takes
// no more requests, lets those that have arrived finish, flushes the device and closes
// it. When cut ends, it does not wait for clients any longer, but flushes all the
// same. The error tells why serving ended other than by stop, or that the device
// could not be flushed.
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
	s.drain(cut)
	serving.Wait()
	return errors.Join(err, s.release(context.WithoutCancel(cut)))
}

// unmounted is closed when somebody else unmounts; nil, which never is, without a
// mount.
func (s *Single) unmounted() <-chan struct{} {
	if s.cfg.Files == nil {
		return nil
	}
	return s.cfg.Files.Done()
}

// drain ends all connections, those that take too long by force.
func (s *Single) drain(cut context.Context) {
	ctx := cut
	if s.cfg.DrainTimeout > 0 {
		limited, cancel := context.WithTimeout(cut, s.cfg.DrainTimeout)
		defer cancel()
		ctx = limited
	}
	if n := s.srv.Connections(); n > 0 {
		s.cfg.Logger.Info("draining", "connections", n)
	}
	if err := s.srv.Shutdown(ctx); err != nil {
		s.cfg.Logger.Warn("requests in progress were cut off", "err", err)
	}
	if s.cfg.Files == nil {
		return
	}
	if err := s.cfg.Files.Close(); err != nil {
		s.cfg.Logger.Warn("the files are still mounted", "err", err)
	}
}

// release makes durable what clients wrote and gives the device back.
func (s *Single) release(ctx context.Context) error {
	var err error
	if !s.cfg.Device.Info().ReadOnly {
		err = block.Wrap(s.cfg.Device.Flush(ctx), "flush", s.cfg.Object, -1)
	}
	return errors.Join(err, block.Wrap(s.cfg.Device.Close(), "close", s.cfg.Object, -1))
}
