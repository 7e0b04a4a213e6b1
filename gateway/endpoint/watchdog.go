package endpoint

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"sluice/block"
)

// WatchdogInterval gives the time after which the service manager takes a silent
// process for dead (WATCHDOG_USEC); 0 when it does not.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	return d, block.Wrap(err, "read", "WATCHDOG_USEC", -1)
}

// Watchdog tells the service manager that the process is alive, as long as it
// is. It owns one goroutine, which Close waits for.
type Watchdog struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// WatchdogConfig says whom to tell, how often, and what being alive is.
type WatchdogConfig struct {
	Notifier *Notifier
	Interval time.Duration // as WatchdogInterval gives it
	// Alive does a little of what the process is there for, through the locks
	// and loops that this takes. When it does not return, or with an error, the
	// manager is not told, and restarts the process when that lasts. ctx ends
	// with Close.
	Alive  func(ctx context.Context) error
	Logger *slog.Logger
}

// StartWatchdog begins to tell, twice in each interval. With an interval of 0 it
// does nothing.
func StartWatchdog(cfg WatchdogConfig) *Watchdog {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watchdog{stop: stop, ended: make(chan struct{})}
	if cfg.Interval <= 0 {
		close(w.ended)
		return w
	}
	go w.run(ctx, cfg)
	return w
}

// Close ends it.
func (w *Watchdog) Close() {
	w.stop()
	<-w.ended
}

// run asks in the goroutine that tells: when the answer hangs, so does the news.
func (w *Watchdog) run(ctx context.Context, cfg WatchdogConfig) {
	defer close(w.ended)
	tick := time.NewTicker(max(cfg.Interval/2, time.Millisecond))
	defer tick.Stop()
	for said := false; ; {
		err := cfg.Alive(ctx)
		if err == nil {
			err = cfg.Notifier.alive()
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !said { // once, not every few seconds
			cfg.Logger.Error("the watchdog is not fed", "err", err)
		}
		said = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
