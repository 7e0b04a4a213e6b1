package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway"
	"sluice/gateway/config"
	"sluice/gateway/endpoint"
	"sluice/gateway/httpapi"
	"sluice/gateway/state"
	"sluice/gateway/wire"
	"sluice/metrics"
)

// Options are what the command line says.
type Options struct {
	Config *config.Config
	// Reread reads the configuration again, for a reload; nil where there is none.
	Reread  func() (*config.Config, error)
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // what log_level sets
	// Announce is called for each place where the daemon can be reached, when it
	// can.
	Announce func(what, where string)
}

// openWait is how long the start waits for the first attempts to open exports: a
// storage that does not answer must not keep the others from being served.
const openWait = 10 * time.Second

// daemon is a running one.
type daemon struct {
	Options
	started  time.Time
	notifier *endpoint.Notifier
	keeper   *keeper
	state    *state.State
	registry *metrics.Registry
	files    atomic.Pointer[files] // nil without FUSE; the newest mount, also when it is lost
	gw       *gateway.Gateway
	api      *httpapi.Server
	watchdog *endpoint.Watchdog

	listeners struct{ nbd, api []net.Listener }
	metricsAt []string

	reloading sync.Mutex   // guards Config
	limit     atomic.Int64 // shutdown_timeout, in nanoseconds

	serving sync.WaitGroup
	failed  chan error // a listener
	undo    []func() error

	losing sync.Mutex    // held while a mount is lost or made again, and to close ending
	ending chan struct{} // closed when whatever ends is no surprise any more
}

// Run runs the daemon until stop ends or something fails without which it cannot
// go on. Then it drains; when cut ends it does not wait for clients any longer.
// Each value of hangup asks for a reload.
func Run(stop, cut context.Context, hangup <-chan os.Signal, o Options) error {
	d := newDaemon(o)
	err := d.open(stop)
	if err == nil {
		d.tell(d.notifier.Ready())
		d.announce()
		err = d.wait(stop, hangup)
	}
	d.tell(d.notifier.Stopping())
	return errors.Join(err, d.close(cut))
}

func newDaemon(o Options) *daemon {
	d := &daemon{Options: o, started: time.Now(), notifier: endpoint.NewNotifier(),
		failed: make(chan error, 1), ending: make(chan struct{})}
	d.limit.Store(int64(o.Config.ShutdownTimeout))
	return d
}

// tell logs what the service manager could not be told.
func (d *daemon) tell(err error) {
	if err != nil {
		d.Log.Warn("the service manager was not told", "err", err)
	}
}

// later puts down what has to be done at the end, in reverse order.
func (d *daemon) later(f func() error) { d.undo = append(d.undo, f) }

// fail ends the daemon.
func (d *daemon) fail(err error) {
	select {
	case d.failed <- err:
	default: // it is ending already
	}
}

// open starts everything, in the order of the package comment.
func (d *daemon) open(ctx context.Context) error {
	if err := d.takeSockets(ctx); err != nil {
		return err
	}
	return d.openWith(ctx)
}

// openWith is open with the sockets that were handed over.
func (d *daemon) openWith(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.openState, d.openMetrics, d.openFiles, d.openGateway, d.claimSockets, d.openExports, d.listen, d.openAPI, d.settle, d.watch,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
	}
	return nil
}

func (d *daemon) openState(context.Context) (err error) {
	dir := d.Config.State
	if dir == "" {
		if dir, err = state.DefaultFolder(); err != nil {
			return err
		}
	}
	if d.state, err = state.Open(dir); err != nil {
		return err
	}
	d.later(d.state.Close)
	return nil
}

func (d *daemon) openMetrics(ctx context.Context) error {
	d.registry = metrics.New(metrics.Build{Version: d.Version})
	ctx, opts := context.WithoutCancel(ctx), metrics.Options{Log: d.Log}
	serving := func(srv *metrics.Server) {
		d.metricsAt = append(d.metricsAt, metricsPlace(srv.Addr()))
		d.later(srv.Close)
	}
	for _, l := range d.keeper.takeMetrics() {
		serving(d.registry.ServeOn(ctx, l, opts))
	}
	if where := d.Config.Metrics; where == "" || len(d.metricsAt) > 0 && (where == config.Default().Metrics || slices.Contains(d.metricsAt, where)) {
		return nil // those of socket units count as the default
	}
	srv, err := d.registry.Serve(ctx, d.Config.Metrics, opts)
	if err != nil {
		return err
	}
	serving(srv)
	return nil
}

// metricsPlace is HOST:PORT, or unix:PATH for a socket unit's.
func metricsPlace(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

func (d *daemon) openGateway(context.Context) error {
	cfg := gateway.Config{
		Server: serverConfig(d.Config), Allow: d.Config.TLS.Allow,
		State: d.state, Metrics: d.registry, AllowFaults: d.Config.AllowFaults,
		Tuning: tuning(d.Config), Listen: d.keeper.listen, Log: d.Log,
	}
	if c := d.Config.TLS; c.Cert != "" {
		t, err := endpoint.ServerTLS(c.Cert, c.Key, c.CA)
		if err != nil {
			return err
		}
		cfg.Server.TLS = t
	}
	if f := d.files.Load(); f != nil {
		o := d.Config.FUSEOptions
		cfg.Files, cfg.FilesChanged = f.fs, func() { d.files.Load().save() }
		d.registry.Mount(func() bool { return d.files.Load().mounted() })
		cfg.Look = gateway.Look{Mode: uint32(o.Mode), UID: uint32(o.UID), GID: uint32(o.GID)}
	}
	d.gw = gateway.New(cfg)
	return nil // closed by close, which knows when to give up
}

// openExports begins to open what the state and the configuration have. Before
// any client is let in, all names are known, and all files that clients may have
// open are there: those whose image is not have them wait.
func (d *daemon) openExports(ctx context.Context) error {
	if err := d.gw.Restore(); err != nil {
		return err
	}
	if err := d.gw.Configure(ctx, d.Config.Exports); err != nil {
		d.Log.Error("not all exports of the configuration are there", "err", err)
	}
	f := d.files.Load()
	if err := f.serve(); err != nil {
		return err
	}
	d.guard(f)
	return nil
}

// settle waits until each export has been tried once, not for ever.
func (d *daemon) settle(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, openWait)
	defer done()
	d.gw.Settled(ctx)
	d.keeper.dropStored(d.gw.List())
	d.serving.Go(d.tidy)
	return nil
}

func (d *daemon) openAPI(context.Context) error {
	cfg := httpapi.Config{
		Gateway: d.gw, Version: d.Version, Started: d.started, Daemon: d.describe,
		Allow: d.Config.APITLS.Allow, Logger: d.Log,
	}
	if d.Reread != nil {
		cfg.Reload = d.reload
	}
	if c := d.Config.APITLS; c.Cert != "" {
		t, err := endpoint.ServerTLS(c.Cert, c.Key, c.CA)
		if err != nil {
			return err
		}
		cfg.TLS = t
	}
	d.api = httpapi.New(cfg)
	d.later(func() error { d.api.Close(); return nil })
	for _, l := range d.listeners.api {
		d.serve(func() error { return d.api.Serve(l) })
	}
	return nil
}

// serve runs a server in a goroutine; when it ends by itself, so does the daemon.
func (d *daemon) serve(run func() error) {
	d.serving.Go(func() {
		if err := run(); err != nil {
			d.fail(err)
		}
	})
}

func (d *daemon) addresses() wire.Addresses {
	a := wire.Addresses{API: texts(d.listeners.api), NBD: texts(d.listeners.nbd)}
	if len(d.metricsAt) > 0 {
		a.Metrics = d.metricsAt[0]
	}
	if f := d.files.Load(); f.mounted() {
		a.FUSE = f.fs.Dir()
	}
	return a
}

// describe tells the API of the daemon itself.
func (d *daemon) describe() (wire.Addresses, []string) {
	var problems []string
	if text := d.files.Load().problem(); text != "" {
		problems = append(problems, text)
	}
	return d.addresses(), problems
}

func texts(listeners []net.Listener) []string {
	list := []string{}
	for _, l := range listeners {
		list = append(list, place(l))
	}
	return list
}

// announce tells the user where everything is.
func (d *daemon) announce() {
	a := d.addresses()
	for _, where := range a.API {
		d.Announce("api", where)
	}
	for _, where := range a.NBD {
		d.Announce("nbd", where)
	}
	if a.FUSE != "" {
		d.Announce("fuse", a.FUSE)
	}
	for _, where := range d.metricsAt {
		d.Announce("metrics", where)
	}
}

// watch lets the service manager know that the process is alive.
func (d *daemon) watch(context.Context) error {
	interval, err := endpoint.WatchdogInterval()
	if err != nil {
		return err
	}
	d.watchdog = endpoint.StartWatchdog(endpoint.WatchdogConfig{
		Notifier: d.notifier, Interval: interval, Logger: d.Log,
		Alive: func(context.Context) error { d.gw.List(); return nil }, // takes the locks of all exports
	})
	d.later(func() error { d.watchdog.Close(); return nil })
	return nil
}

// wait waits for the end and reloads meanwhile.
func (d *daemon) wait(stop context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-stop.Done():
			return nil
		case err := <-d.failed:
			return err
		case <-hangup:
			d.serving.Go(func() {
				if err := d.reload(stop); err != nil {
					d.tellReload(err)
				}
			})
		}
	}
}

// reload makes what the configuration says of exports, and the few other things
// that can be changed, so.
func (d *daemon) reload(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.Reread == nil || ctx.Err() != nil {
		return nil
	}
	d.tell(d.notifier.Reloading())
	defer func() { d.tell(d.notifier.Ready()) }()
	next, err := d.Reread()
	if err != nil {
		return &refused{err}
	}
	for _, key := range config.NeedRestart(d.Config, next) {
		d.Log.Warn("this takes effect with the next start", "key", key)
	}
	if err := d.Level.UnmarshalText([]byte(next.LogLevel)); err != nil {
		return err
	}
	d.gw.Tune(tuning(next))
	d.limit.Store(int64(next.ShutdownTimeout))
	d.Config = next
	err = errors.Join(d.gw.Configure(ctx, next.Exports), d.remount(ctx))
	settled, done := context.WithTimeout(ctx, openWait)
	defer done()
	d.gw.Settled(settled)
	d.gw.Announce(gateway.Event{Kind: gateway.Reloaded})
	if err == nil {
		d.Log.Info("the configuration was read again", "exports", len(next.Exports))
	}
	return err
}

// refused is the error of a configuration that is not right.
type refused struct{ error }

func (r *refused) Unwrap() error { return r.error }

// tellReload logs why a reload has failed, for nobody waits for its end.
func (d *daemon) tellReload(err error) {
	var all *refused
	if errors.As(err, &all) {
		d.Log.Error("the configuration is not right, and everything stays as it was", "err", err)
		return
	}
	d.Log.Error("the reload could not do all that the configuration says", "err", err)
}
