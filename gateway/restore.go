package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"sluice/block"
	"sluice/gateway/spec"
	"sluice/gateway/state"
)

// Waits between attempts to open an image.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
)

// Restore takes the exports that were added at run time and are kept in the
// state. They are opened in the background, again and again while that may help;
// see Settled. It comes before Configure, so that they keep their names whatever the
// configuration has come to say.
func (g *Gateway) Restore() error {
	records, err := g.records()
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Source == string(FromConfig) {
			continue
		}
		e, err := g.reserve(r.Spec, FromAPI, r.ID)
		if err != nil { // this version knows more rules
			g.cfg.Log.Error("an export that was added earlier cannot be restored", "export", r.Spec.Name, "err", err)
			continue
		}
		e.await(r.Size)
		g.openLater(e, e.first)
	}
	return nil
}

func (g *Gateway) records() ([]state.Record, error) {
	if g.cfg.State == nil {
		return nil, nil
	}
	return g.cfg.State.All()
}

// compare looks, at the first Configure, for what the state still has and the
// configuration has no more, and for what it replaces. Later nobody else but those who
// remove an export may forget what is kept of it.
func (g *Gateway) compare(records []state.Record, list []spec.Spec) {
	for _, r := range records {
		name := r.Spec.Name
		listed := slices.ContainsFunc(list, func(s spec.Spec) bool { return s.Name == name })
		switch {
		case r.Source == string(FromConfig) && !listed:
			if err := g.cfg.State.Delete(name); err != nil {
				g.cfg.Log.Error("what is no more in the configuration is still in the state", "export", name, "err", err)
			}
		case r.Source != string(FromConfig) && listed:
			if e, err := g.find("restore", name); err == nil && e.source == FromConfig {
				g.cfg.Log.Warn("the configuration's export replaces one that was added earlier and cannot be restored", "export", name)
			}
		}
	}
}

// Settled returns when each export has been tried to open once, or ctx ends.
func (g *Gateway) Settled(ctx context.Context) {
	for _, e := range g.all() {
		select {
		case <-e.tried:
		case <-ctx.Done():
			return
		}
	}
}

// Configure makes the exports of the configuration those of the list: new ones are
// opened in the background (see Settled), missing ones ended, changed settings take
// effect, and an export that is otherwise another one is replaced. One whose name an
// export has that was added at run time is refused with Exists: that goes on. The error
// names each that could not be made so; the others are.
func (g *Gateway) Configure(ctx context.Context, list []spec.Spec) error {
	records, err := g.records()
	if err != nil {
		return err
	}
	before := make(map[string]state.Record, len(records))
	for _, r := range records {
		if r.Source == string(FromConfig) {
			before[r.Spec.Name] = r
		}
	}
	failed := g.reconcile(ctx, list)
	for _, s := range list {
		if e, err := g.find("configure", s.Name); err == nil && e.source == FromConfig {
			continue
		}
		// The same image keeps its number, by which clients have its file open.
		r := before[s.Name]
		if r.Spec.URL != s.URL {
			r = state.Record{}
		}
		e, err := g.reserve(s, FromConfig, r.ID)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		e.await(r.Size)
		g.openLater(e, e.first)
	}
	g.compared.Do(func() { g.compare(records, list) })
	return errors.Join(failed...)
}

// reconcile ends the exports of the configuration that are not in the list, or are
// others there, and gives those that stay their settings; each in a goroutine, since
// it may have to wait for its storage.
func (g *Gateway) reconcile(ctx context.Context, list []spec.Spec) []error {
	wanted := make(map[string]spec.Spec, len(list))
	for _, s := range list {
		wanted[s.Name] = s
	}
	var mu sync.Mutex
	var failed []error
	var working sync.WaitGroup
	for _, e := range g.all() {
		if e.source != FromConfig {
			continue
		}
		working.Go(func() {
			s, stays := wanted[e.name]
			var err error
			if stays {
				e.tellReplaced(s.Settings)
			}
			if stays && sameImage(e.described(), s) {
				err = e.settle(ctx, s)
			} else {
				err = g.remove(ctx, e, true)
			}
			mu.Lock()
			failed = append(failed, err)
			mu.Unlock()
		})
	}
	working.Wait()
	return failed
}

// sameImage reports whether two Specs differ in their settings alone.
func sameImage(a, b spec.Spec) bool {
	a.Settings, b.Settings = spec.Settings{}, spec.Settings{}
	return same(a, b)
}

// same compares what is meant: an empty list is as good as none.
func same(a, b spec.Spec) bool {
	one, err := json.Marshal(a)
	two, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(one, two)
}

// tellReplaced logs which settings, as somebody has changed them at run time, the
// configuration is about to replace.
func (e *export) tellReplaced(next spec.Settings) {
	e.mu.Lock()
	asked, now := e.asked, e.spec.Settings
	e.mu.Unlock()
	for _, key := range now.Differ(asked) {
		if slices.Contains(now.Differ(next), key) {
			e.gw.cfg.Log.Warn("what was set at run time is replaced by what the configuration says", "export", e.name, "key", key)
		}
	}
}

// settle gives an export the settings of the configuration.
func (e *export) settle(ctx context.Context, s spec.Spec) error {
	if err := e.control.lock(ctx); err != nil {
		return err
	}
	defer e.control.unlock()
	e.mu.Lock()
	e.asked = s.Settings
	e.mu.Unlock()
	if same(e.described(), s) {
		return nil
	}
	_, err := e.change(s.Settings)
	return err
}

// openLater opens an export in the background, again and again while its storage
// is away, where may, which is called with e.mu held, says so.
func (g *Gateway) openLater(e *export, may func() bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !may() {
		return
	}
	ctx, abort := context.WithCancel(g.base())
	e.abort = abort
	g.running.Go(func() {
		defer abort()
		e.keepTrying(ctx)
	})
}

// first is for the first attempts.
func (e *export) first() bool { return true }

// anew is for those that somebody asks for after it has failed for good; not where
// somebody else was faster.
func (e *export) anew() bool {
	if e.state != Failed || e.gone {
		return false
	}
	e.set(Opening, nil)
	e.ready = make(chan struct{})
	if e.awaited != nil {
		e.awaited.anew()
	}
	return true
}

// goOn begins again with the attempts that halt ended, where the export was not
// removed and nobody else is about to.
func (g *Gateway) goOn(e *export) {
	g.openLater(e, func() bool {
		e.removers--
		if e.removers > 0 || !e.halted {
			return false
		}
		e.halted = false
		return !e.over && e.stack == nil && e.state == Opening
	})
}

// keepTrying opens an export, or finds out that it cannot be opened.
func (e *export) keepTrying(ctx context.Context) {
	defer e.attempted()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if e.tryOpen(ctx) {
			return
		}
		e.attempted()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// attempted notes that it has been tried to open the export.
func (e *export) attempted() {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.tried:
	default:
		close(e.tried)
	}
}

func (e *export) isOpen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stack != nil
}

// tryOpen tries to open an export once. It reports whether that is the end of it.
func (e *export) tryOpen(ctx context.Context) (done bool) {
	if e.control.lock(ctx) != nil {
		return true
	}
	defer e.control.unlock()
	if e.ended() || e.isOpen() || ctx.Err() != nil { // open: by an attempt that was given up and came through
		return true
	}
	err := e.open(ctx)
	if err == nil {
		if err := e.gw.keep(e); err != nil {
			e.gw.cfg.Log.Error("the state does not know of an export", "export", e.name, "err", err)
		}
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
		e.letIn()
	}
	a := e.awaited
	e.mu.Unlock()
	if a != nil {
		a.failed(err, again)
	}
	if news {
		text := "an image cannot be opened; sluice export resume tries again"
		if again {
			text = "an image cannot be opened; trying again until it can"
		}
		e.gw.cfg.Log.Error(text, "export", e.name, "err", err)
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
