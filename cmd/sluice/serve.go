package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/hold"
	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
	"sluice/metrics"
	"sluice/nbd"
)

const serveLong = `Serve one image as an NBD export, as a file of a FUSE mount, or both, until
SIGTERM, SIGINT or SIGHUP.

For each place a line "ready URI" is printed on standard output when clients can
connect, and "ready fuse FILE" when the file is there. Sockets that a service
manager hands over (LISTEN_FDS) are served too, without such a line; without them,
--nbd and --fuse, the export is at a socket of its own in the runtime folder
(/run/sluice for root, else $XDG_RUNTIME_DIR/sluice).

The file of --fuse has the export's name (--name), or else the image's.

On the first SIGTERM or SIGINT no more requests are taken, those that have
arrived are finished, the image is flushed, and the exit code is 0. A second
signal cuts clients off at once, a third one kills. SIGHUP, which a lost terminal
sends, is a first signal too, never a second one; under nohup it is ignored. An
image that cannot be flushed at the end is a failure: exit code 1.

A unix socket has mode 0660. One that was left behind by a killed process is
replaced; one that somebody listens on is refused.`

const serveExample = `  sluice serve disk.img --nbd unix:/tmp/disk.sock
  sluice serve disk.img --nbd tcp:127.0.0.1:10809 --name disk --read-only
  sluice serve mem://1G --nbd unix:/tmp/ram.sock --metrics 127.0.0.1:9808
  sluice serve nbd://storage1/db --fuse /mnt/disks --name db.img
  sluice serve disk.img --nbd tcp:0.0.0.0:10809 --tls-cert server-cert.pem \
    --tls-key server-key.pem --tls-ca ca-cert.pem --tls-allow host1
  nbdcopy -- [ sluice serve disk.img ] copy.img`

// serveFlags are the flags of serve.
type serveFlags struct {
	*globals
	format      string
	name        string
	description string
	nbd         []string
	open        block.OpenOptions
	fuse        fuseFlags
	settings    settingsFlags
	tls         tlsFlags
	metrics     string
	pprof       bool
	pidFile     string
	connections int
	busyPoll    time.Duration
	shutdown    time.Duration

	places []endpoint.Address // what nbd says
	handed int                // listeners that a service manager opened; they come first
}

func newServe(g *globals) *cobra.Command { return (&serveFlags{globals: g}).command() }

func (f *serveFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serve URL",
		Short:   "Serve an image over NBD or as a FUSE file",
		Long:    serveLong,
		Example: serveExample,
		Args:    exactly("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },

		Annotations: map[string]string{ownSignals: ""},
	}
	flags := cmd.Flags()
	formatFlag(cmd, &f.format, "format", "the image")
	flags.StringArrayVar(&f.nbd, "nbd", nil, "listen at unix:PATH or tcp:HOST:PORT (may be repeated)")
	flags.StringVar(&f.name, "name", "", "name of the export (default: empty, NBD's default export)")
	flags.StringVar(&f.description, "description", "", "description of the export, shown to clients that list exports")
	flags.BoolVar(&f.open.ReadOnly, "read-only", false, "refuse changes")
	flags.BoolVar(&f.open.Direct, "direct", false, "bypass the page cache (O_DIRECT)")
	flags.BoolVar(&f.open.Share, "share", false, "permit other writers at the same time, as QEMU's share-rw does")
	flags.BoolVar(&f.open.Unlocked, "unlocked", false, "take no image lock: nothing keeps a second writer away")
	f.fuse.add(cmd)
	f.settings.add(cmd)
	f.tls.add(cmd)
	flags.StringVar(&f.metrics, "metrics", "", "serve /metrics and /healthz over HTTP at HOST:PORT")
	flags.BoolVar(&f.pprof, "pprof", false, "serve /debug/pprof beside the metrics")
	flags.StringVar(&f.pidFile, "pid-file", "", "write the process id to a file, locked while it is used and removed at the end")
	flags.IntVar(&f.connections, "max-connections", 0, "clients served at once; more are turned away (default 4096)")
	flags.DurationVar(&f.busyPoll, "busy-poll", 20*time.Microsecond, "ask a client that sends one request at a time for its next so long before blocking; 0 never")
	flags.DurationVar(&f.shutdown, "shutdown-timeout", 30*time.Second, "wait for requests in progress at the end; 0 waits without limit")
	return cmd
}

// check refuses flags that make no sense, and reads where to listen.
func (f *serveFlags) check(cmd *cobra.Command, url string) error {
	switch {
	case f.connections < 0:
		return usagef(cmd, "--max-connections %d is negative", f.connections)
	case f.busyPoll < 0 || f.busyPoll > time.Millisecond:
		return usagef(cmd, "--busy-poll %v is not between 0 and 1ms", f.busyPoll)
	case f.shutdown < 0:
		return usagef(cmd, "--shutdown-timeout %v is negative", f.shutdown)
	case f.pprof && f.metrics == "":
		return usagef(cmd, "--pprof needs --metrics HOST:PORT")
	}
	if err := f.checkMetrics(cmd); err != nil {
		return err
	}
	if err := f.fuse.check(cmd, f.name, url); err != nil {
		return err
	}
	if err := new(nbd.Exports).Add(&nbd.Export{Name: f.name}); err != nil {
		return usagef(cmd, "--name: %w", errors.Unwrap(err))
	}
	for _, s := range f.nbd {
		a, err := endpoint.Parse(s)
		if err != nil {
			return usagef(cmd, "--nbd: %w", err)
		}
		f.places = append(f.places, a)
	}
	return nil
}

// checkMetrics refuses what is no HOST:PORT. The host may be looked up later.
func (f *serveFlags) checkMetrics(cmd *cobra.Command) error {
	if f.metrics == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(f.metrics)
	if err != nil || host == "" {
		return usagef(cmd, "--metrics %s is not HOST:PORT (0.0.0.0:PORT or [::]:PORT listens everywhere)", f.metrics)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return usagef(cmd, "--metrics %s: %q is not a port", f.metrics, port)
	}
	return nil
}

// run serves from the opening of the image to its closing.
func (f *serveFlags) run(cmd *cobra.Command, url string) error {
	if err := f.check(cmd, url); err != nil {
		return err
	}
	cfg, err := f.config(cmd, url)
	if err != nil {
		return err
	}
	if err := f.tls.apply(cmd, &cfg); err != nil {
		return err
	}
	stop, cut, release := endSignals(cmd.Context(), endings()...)
	defer release()
	done, err := f.serveMetrics(stop, &cfg)
	if err != nil {
		return err
	}
	defer done()
	f.open.Held = cfg.Hold && cfg.Settings.OnError.Hold().Mode == hold.Wait
	if cfg.Device, err = openServed(stop, url, f.format, f.open); err != nil {
		return err
	}
	if cfg.Listeners, err = f.listen(stop); err != nil {
		_ = cfg.Device.Close()
		return err
	}
	if err := f.fuse.mount(&cfg, url, f.format); err != nil {
		closeAll(cfg.Listeners)
		_ = cfg.Device.Close()
		return err
	}
	single, err := gateway.NewSingle(cfg)
	if err != nil {
		giveUp(cfg)
		return err
	}
	return f.announceAndRun(cmd, single, cfg, stop, cut)
}

// config is what the flags say of the server itself.
func (f *serveFlags) config(cmd *cobra.Command, url string) (gateway.SingleConfig, error) {
	cfg := gateway.SingleConfig{
		Object: location.Redact(url), Name: f.name, Description: f.description, ReadOnly: f.open.ReadOnly,
		MaxConnections: f.connections, BusyPoll: f.busyPoll, DrainTimeout: f.shutdown, Logger: slog.Default(),
		Stopping: func() { notify(daemon.SdNotifyStopping) }, Hold: remote(url),
	}
	if f.busyPoll == 0 {
		cfg.BusyPoll = -1 // 0 is the server's default
	}
	var err error
	if cfg.Settings, err = f.settings.settings(cmd); err != nil {
		return cfg, err
	}
	s := spec.Spec{Name: "disk", URL: "/", Passthrough: f.fuse.passthrough, Settings: cfg.Settings}
	if err := s.Check(); err != nil {
		return cfg, usagef(cmd, "%w", inFlags(cmd, err))
	}
	return cfg, nil
}

// remote reports whether an image is on storage that can be away for a while.
func remote(url string) bool {
	switch location.Scheme(url) {
	case "", "file", "mem":
		return false
	}
	return true
}

// announceAndRun tells everybody who wants to know that clients can connect, and
// serves them. Who handed sockets over knows where they are, and may give its
// own output to us: nothing is printed about those.
func (f *serveFlags) announceAndRun(cmd *cobra.Command, s *gateway.Single, cfg gateway.SingleConfig, stop, cut context.Context) error {
	if f.pidFile != "" {
		pid, err := writePIDFile(f.pidFile)
		if err != nil {
			giveUp(cfg)
			return err
		}
		defer pid.remove()
	}
	for _, l := range cfg.Listeners[f.handed:] {
		f.announce(cmd, endpoint.URI(l.Addr(), f.name, f.tls.forced()))
	}
	if cfg.Files != nil {
		f.announce(cmd, "fuse "+filepath.Join(cfg.Files.Dir(), cfg.File))
	}
	notify(daemon.SdNotifyReady)
	return s.Run(stop, cut)
}

// giveUp closes what was opened for a server that does not run.
func giveUp(cfg gateway.SingleConfig) {
	closeAll(cfg.Listeners)
	if cfg.Files != nil {
		_ = cfg.Files.Close()
	}
	_ = cfg.Device.Close()
}

// announce prints where the export is.
func (f *serveFlags) announce(cmd *cobra.Command, uri string) {
	var err error
	if f.json {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"ready": uri}) // one line each
	} else {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "ready", uri)
	}
	if err != nil {
		slog.Warn("cannot print where the export is", "uri", uri, "err", err)
	}
}

// notify tells the service manager, if there is one.
func notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		slog.Warn("cannot notify the service manager", "state", state, "err", err)
	}
}

// serveMetrics starts the HTTP endpoint where one is asked for.
func (f *serveFlags) serveMetrics(stop context.Context, cfg *gateway.SingleConfig) (done func(), err error) {
	if f.metrics == "" {
		return func() {}, nil
	}
	registry := metrics.New(metrics.Build{Version: buildVersion()})
	cfg.Metrics = registry.Export(f.name)
	registry.Check("serve", func(context.Context) error {
		if stop.Err() != nil {
			return fmt.Errorf("stopping")
		}
		return nil
	})
	// The metrics can be read until the last request has been answered.
	srv, err := registry.Serve(context.WithoutCancel(stop), f.metrics, metrics.Options{Pprof: f.pprof, Log: slog.Default()})
	if err != nil {
		return nil, err
	}
	slog.Info("metrics", "url", "http://"+srv.Addr().String()+"/metrics")
	return func() {
		if err := srv.Close(); err != nil {
			slog.Warn("metrics", "err", err)
		}
	}, nil
}

// listen opens all places: the service manager's sockets, then the flags'.
func (f *serveFlags) listen(ctx context.Context) ([]net.Listener, error) {
	addrs := f.places
	listeners, err := endpoint.Activated()
	if err != nil {
		return nil, err
	}
	f.handed = len(listeners)
	if len(listeners)+len(addrs) == 0 && f.fuse.dir == "" {
		a, err := ownSocket()
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	for _, a := range addrs {
		l, err := endpoint.Listen(ctx, a)
		if err != nil {
			closeAll(listeners)
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// ownSocket is a socket in the runtime folder that only this process has.
func ownSocket() (endpoint.Address, error) {
	dir, err := endpoint.RuntimeFolder()
	if err != nil {
		return endpoint.Address{}, err
	}
	return endpoint.Unix(dir + "/serve-" + strconv.Itoa(os.Getpid()) + ".sock")
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}
