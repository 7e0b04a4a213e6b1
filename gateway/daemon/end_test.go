package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/gateway"
	"sluice/gateway/config"
	"sluice/gateway/spec"
)

// deaf is a device whose flush does not return, whatever it is told, until it is let
// go.
type deaf struct {
	*mem.Device
	once         sync.Once
	arrived, let chan struct{}
	closed       chan struct{}
}

func (d *deaf) Flush(ctx context.Context) error {
	d.once.Do(func() { close(d.arrived) })
	<-d.let
	return d.Device.Flush(ctx)
}

func (d *deaf) Close() error {
	defer close(d.closed)
	return d.Device.Close()
}

// running is a daemon in this process.
type running struct {
	*daemon
	t     *testing.T
	stop  context.CancelFunc
	ended chan error
}

// started opens a daemon whose configuration has an export of that name.
func started(t *testing.T, name string) *running {
	t.Helper()
	r := prepared(t, spec.Spec{Name: name, URL: "mem://1M"})
	r.openNow((*daemon).open)
	return r
}

// openNow opens the daemon that was prepared.
func (r *running) openNow(open func(*daemon, context.Context) error) {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	r.stop = stop
	if err := open(r.daemon, ctx); err != nil {
		r.t.Fatal(err)
	}
}

// prepared makes a daemon whose configuration has some exports, and none when it is
// read again.
func prepared(t *testing.T, exports ...spec.Spec) *running {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.State, cfg.Metrics, cfg.ShutdownTimeout = filepath.Join(dir, "state"), "", spec.Duration(500*time.Millisecond)
	cfg.API, cfg.NBD = []string{"unix:" + filepath.Join(dir, "api")}, []string{"unix:" + filepath.Join(dir, "nbd")}
	without := *cfg
	cfg.Exports = exports
	d := newDaemon(Options{
		Config: cfg, Reread: func() (*config.Config, error) { return &without, nil },
		Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar), Announce: func(string, string) {},
	})
	return &running{daemon: d, t: t, ended: make(chan error, 1)}
}

// deafen makes the storage of an export deaf.
func (r *running) deafen(name string) *deaf {
	r.t.Helper()
	dev, err := mem.New(1 << 20)
	if err != nil {
		r.t.Fatal(err)
	}
	d := &deaf{Device: dev, arrived: make(chan struct{}), let: make(chan struct{}), closed: make(chan struct{})}
	err = r.gw.Exchange(r.t.Context(), name, func(_ context.Context, old block.Device, _ func(gateway.Image) error) (block.Device, error) {
		return d, old.Close()
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// end ends the daemon, which must take no longer than it may.
func (r *running) end() error {
	r.t.Helper()
	r.stop()
	begin := time.Now()
	go func() { r.ended <- r.close(context.Background()) }()
	select {
	case err := <-r.ended:
		r.t.Logf("it took %v: %v", time.Since(begin), err)
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("it does not end")
		return nil
	}
}

// TestEndThoughADeviceIsDeaf: in time, and with a line that names it.
func TestEndThoughADeviceIsDeaf(t *testing.T) {
	r := started(t, "disk")
	stuck := r.deafen("disk")
	err := r.end()
	if err == nil || !strings.Contains(err.Error(), "close export disk: ") {
		t.Errorf("the end: %v", err)
	}
	close(stuck.let)
	<-stuck.closed
}

// TestEndThoughAReloadHangs: in a device, while it takes an export away.
func TestEndThoughAReloadHangs(t *testing.T) {
	r := started(t, "disk")
	stuck := r.deafen("disk")
	r.serving.Go(func() { _ = r.reload(t.Context()) })
	<-stuck.arrived
	err := r.end()
	if err == nil || !strings.Contains(err.Error(), "disk: ") || !strings.Contains(err.Error(), "stop a reload: ") {
		t.Errorf("the end: %v", err)
	}
	close(stuck.let)
	<-stuck.closed
	r.serving.Wait()
}
