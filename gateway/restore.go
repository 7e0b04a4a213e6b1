package gateway

import (
	"context"
	"errors"
	"reflect"
	"time"

	"sluice/block"
	"sluice/gateway/spec"
)

// Waits between attempts to open an image.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
)

// Restore takes the exports that were added at run time and are kept in the
// state. It returns when each has been tried once or ctx ends; what could not be
// opened is tried again in the background.
func (g *Gateway) Restore(ctx context.Context) error {
	if g.cfg.State == nil {
		return nil
	}
	records, err := g.cfg.State.All()
	if err != nil {
		return err
	}
	var tried []<-chan struct{}
	for _, r := range records {
		e, err := g.reserve(r.Spec, FromAPI, r.ID)
		if err != nil { // its name is in the configuration now, or this version knows more rules
			g.cfg.Log.Error("an export that was added earlier cannot be restored", "export", r.Spec.Name, "err", err)
			continue
		}
		tried = append(tried, g.openLater(e, false))
	}
	return await(ctx, tried)
}

func await(ctx context.Context, all []<-chan struct{}) error {
	for _, c := range all {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Configure makes the exports of the configuration those of the list: new ones are
// opened, missing ones ended, changed settings take effect, and an export that is
// otherwise another one is replaced. It returns when each new one has been tried
// once or ctx ends. The error names each that could not be made so; the others
// are.
func (g *Gateway) Configure(ctx context.Context, list []spec.Spec) error {
	wanted := make(map[string]spec.Spec, len(list))
	for _, s := range list {
		wanted[s.Name] = s
	}
	var failed []error
	for _, e := range g.all() {
		if e.source != FromConfig {
			continue
		}
		s, stays := wanted[e.name]
		if stays && sameImage(e.described(), s) {
			delete(wanted, e.name)
			failed = append(failed, e.settle(s))
			continue
		}
		failed = append(failed, g.remove(ctx, e, true))
	}
	var tried []<-chan struct{}
	for _, s := range list {
		if _, missing := wanted[s.Name]; !missing {
			continue
		}
		e, err := g.reserve(s, FromConfig, 0)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		tried = append(tried, g.openLater(e, false))
	}
	return errors.Join(append(failed, await(ctx, tried))...)
}

// sameImage reports whether two Specs differ in their settings alone.
func sameImage(a, b spec.Spec) bool {
	a.Settings, b.Settings = spec.Settings{}, spec.Settings{}
	return reflect.DeepEqual(a, b)
}

// settle gives an export the settings of the configuration.
func (e *export) settle(s spec.Spec) error {
	e.control.Lock()
	defer e.control.Unlock()
	if reflect.DeepEqual(e.described().Settings, s.Settings) {
		return nil
	}
	_, err := e.change(s.Settings)
	return err
}

// openLater opens an export in the background, again and again while its storage
// is away. tried is closed after the first attempt.
func (g *Gateway) openLater(e *export, again bool) (tried <-chan struct{}) {
	first := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		close(first)
		return first
	}
	ctx, abort := context.WithCancel(g.base())
	e.mu.Lock()
	e.abort = abort
	if again {
		e.set(Opening, nil)
		e.ready = make(chan struct{})
	}
	e.mu.Unlock()
	g.running.Go(func() {
		defer abort()
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			done := e.tryOpen(ctx)
			if first != nil {
				close(first)
				first = nil
			}
			if done {
				return
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	})
	return first
}

// tryOpen tries to open an export once. It reports whether that is the end of it.
func (e *export) tryOpen(ctx context.Context) (done bool) {
	e.control.Lock()
	defer e.control.Unlock()
	if e.ended() || ctx.Err() != nil {
		return true
	}
	err := e.open(ctx)
	if err == nil {
		e.tell(ExportAdded)
		return true
	}
	if ctx.Err() != nil {
		return true
	}
	e.mu.Lock()
	again := mayPass(block.KindOf(err))
	news := e.why == nil || e.why.Error() != err.Error()
	if again {
		e.set(Opening, err)
	} else {
		e.set(Failed, err)
		close(e.ready)
	}
	e.mu.Unlock()
	if news {
		e.gw.cfg.Log.Error("an image cannot be opened", "export", e.name, "err", err, "again", again)
		e.tell(ExportState)
	}
	return !again
}

// mayPass says whether opening an image that failed that way can work later: its
// storage is away, is not mounted yet, or another process has not yet ended.
func mayPass(kind block.Kind) bool {
	switch kind {
	case block.Invalid, block.Unsupported, block.Corrupt, block.Permission, block.ReadOnly:
		return false
	}
	return true
}
