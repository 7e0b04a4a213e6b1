package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/block"
)

// afterCut is how long requests may take to end after they were told to.
const afterCut = time.Second

// flushLimit is how long images may take to be flushed after clients were cut off,
// where DrainTimeout does not say.
const flushLimit = 30 * time.Second

// Close ends all exports: no more requests are taken, those that have arrived are
// finished, every image is flushed and closed. Clients are not waited for any longer
// than DrainTimeout, nor when cut has ended; then flushing has DrainTimeout once more.
// Requests that wait for a storage that is away are not waited for: who connects
// again repeats them. A device that does not return is left to the end of the process;
// the other exports are not kept by it. The error names the images that could not be
// flushed or closed.
func (g *Gateway) Close(cut context.Context) error {
	ctx, done := g.limited(cut)
	defer done()
	g.sendAway(cut, ctx)
	late, stop := g.last(ctx)
	defer stop()
	err := g.endAll(ctx, late)
	g.cuts.end()
	opened := make(chan struct{})
	go func() { g.running.Wait(); g.cuts.wait(); close(opened) }()
	select {
	case <-opened:
	case <-ctx.Done(): // a storage that does not even answer that it is away
	}
	g.events.close()
	return err
}

// SendAway does the first part of Close, for a caller who has other clients to send
// away at the same time: those of the mount.
func (g *Gateway) SendAway(cut context.Context) {
	ctx, done := g.limited(cut)
	defer done()
	g.sendAway(cut, ctx)
}

// limited bounds a drain.
func (g *Gateway) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if limit := g.tuning.Load().DrainTimeout; limit > 0 {
		return context.WithTimeout(ctx, limit)
	}
	return context.WithCancel(ctx)
}

// last bounds the flushing, ctx being the bound of the drain.
func (g *Gateway) last(ctx context.Context) (context.Context, context.CancelFunc) {
	if limit := g.tuning.Load().DrainTimeout; limit > 0 {
		return after(ctx, limit+afterCut)
	}
	return after(ctx, flushLimit)
}

// after gives a context that ends some time after another one.
func after(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, end) })
	return late, func() { stop(); end() }
}

// sendAway ends all clients. Where a device does not return they are not gone,
// whatever they are told. Those whose storage is away, or is found to be while this
// lasts, are not waited for; with cut, which lasts as long as the caller's end, also
// afterwards, when files may still have clients.
func (g *Gateway) sendAway(cut, ctx context.Context) {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	g.cuts.begin(func() (context.Context, context.CancelFunc) { return g.limited(cut) })
	g.cancel() // exports that are being opened
	if n := g.srv.Connections(); n > 0 {
		g.cfg.Log.Info("draining", "connections", n)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for _, e := range g.all() {
			if e.waits() {
				g.cuts.of(e)
			}
		}
		if err := g.srv.Shutdown(ctx); err != nil {
			g.cfg.Log.Warn("requests in progress were cut off", "why", whyCut(err))
		}
		g.cuts.wait()
	}()
	late, stop := after(ctx, afterCut)
	defer stop()
	select {
	case <-gone:
	case <-late.Done():
	}
}

// endAll ends the exports, each in a goroutine: it waits for its own storage. Those
// that have not ended when late ends are left.
func (g *Gateway) endAll(ctx, late context.Context) error {
	type outcome struct {
		name string
		err  error
	}
	all := g.all()
	outcomes := make(chan outcome, len(all))
	left := make(map[string]bool, len(all))
	for _, e := range all {
		e.giveUp()
		left[e.name] = true
		go func() { outcomes <- outcome{e.name, e.endNow(ctx, late)} }()
	}
	var failed []error
	for len(left) > 0 {
		select {
		case o := <-outcomes:
			delete(left, o.name)
			if o.err != nil {
				failed = append(failed, o.err)
			}
			continue
		case <-late.Done():
		}
		failed = append(failed, leftOpen(left))
		break
	}
	if len(failed) > 1 {
		return fmt.Errorf("%d exports could not be closed in order: %w", len(failed), errors.Join(failed...))
	}
	return errors.Join(failed...)
}

const deafStorage = "the storage does not return what was asked of it; what was not flushed may be lost"

// leftOpen is the error about exports that do not end. The last of a long list are
// counted.
func leftOpen(left map[string]bool) error {
	const most = 8
	names := make([]string, 0, len(left))
	for name := range left {
		names = append(names, name)
	}
	slices.SortFunc(names, cmpNames)
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return block.Errorf(block.Canceled, "close export", strings.Join(names, ", "), -1, deafStorage)
}

// endNow withdraws an export and ends it. Who changes it just now is waited for as
// long as there is time to flush it.
func (e *export) endNow(ctx, late context.Context) error {
	if err := e.control.lock(late); err != nil {
		return block.Wrap(err, "close export", e.name, -1)
	}
	defer e.control.unlock()
	if e.ended() {
		return nil
	}
	return errors.Join(e.withdraw(ctx, true), e.end(ctx))
}
