package gateway

import (
	"context"
	"path/filepath"
	"slices"

	"sluice/block"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/gateway/spec"
)

// Change replaces the settings of an export, which take effect at once. Those of
// an export from the configuration last until it is read again.
func (g *Gateway) Change(ctx context.Context, name string, s spec.Settings) (Status, error) {
	e, err := g.find("change export", name)
	if err != nil {
		return Status{}, err
	}
	if err := e.control.lock(ctx); err != nil {
		return Status{}, err
	}
	defer e.control.unlock()
	return e.change(s)
}

// change is Change with control held.
func (e *export) change(s spec.Settings) (Status, error) {
	next := e.described()
	next.Settings = s
	next.Faults = slices.Clone(s.Faults)
	if err := next.Check(); err != nil {
		return Status{}, err
	}
	rules, err := e.gw.rules(e.name, s)
	if err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return Status{}, block.Errorf(block.NotFound, "change export", e.name, -1, "there is no such export")
	}
	st, a := e.stack, e.awaited
	e.mu.Unlock()
	if err := e.respecify(next, rules); err != nil {
		return Status{}, err
	}
	if st != nil {
		st.adjust(s, rules, e.gw.slow(s))
	} else if a != nil {
		a.hold.SetPolicy(s.OnError.Hold())
	}
	return e.tell(ExportChanged), nil
}

// respecify makes an export another one, durably; where that fails it stays what it
// was. The caller holds control.
func (e *export) respecify(next spec.Spec, rules []fault.Rule) error {
	e.mu.Lock()
	before, old := e.spec, e.rules
	e.spec, e.rules = next, rules
	e.mu.Unlock()
	if e.adding { // it may yet fail; if not, Add keeps what it is by then
		return nil
	}
	err := e.gw.keep(e)
	if err != nil {
		e.mu.Lock()
		e.spec, e.rules = before, old
		e.mu.Unlock()
	}
	return err
}

// tell publishes an event about the export and gives its Status.
func (e *export) tell(kind EventKind) Status {
	st := e.status()
	e.gw.events.publish(Event{Kind: kind, Export: e.name, Status: &st})
	return st
}

// opened gives the stack of an export that is open; control is held.
func (e *export) opened(op string) (*stack, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stack == nil {
		return nil, block.Errorf(block.Busy, op, e.name, -1, "its image is not open (%s)", e.state)
	}
	return e.stack, nil
}

// Resize changes the size of an export's image. NBD clients see it with their
// next connection, FUSE files at once.
func (g *Gateway) Resize(ctx context.Context, name string, size int64) (Status, error) {
	e, err := g.find("resize export", name)
	if err != nil {
		return Status{}, err
	}
	if err := e.control.lock(ctx); err != nil {
		return Status{}, err
	}
	defer e.control.unlock()
	st, err := e.opened("resize export")
	if err != nil {
		return Status{}, err
	}
	info := st.top.Info()
	switch {
	case info.ReadOnly:
		return Status{}, block.Errorf(block.ReadOnly, "resize export", name, -1, "")
	case !info.Has(block.CapResize):
		return Status{}, block.Errorf(block.Unsupported, "resize export", name, -1, "its image cannot be resized")
	case size < 0:
		return Status{}, block.Errorf(block.Invalid, "resize export", name, -1, "a size of %d bytes", size)
	}
	if err := st.image.Resize(ctx, size); err != nil {
		return Status{}, block.Wrap(err, "resize export", name, -1)
	}
	e.resized(st)
	err = e.gw.keep(e) // the size that its file has before it is open
	return e.tell(ExportChanged), err
}

// resized tells the exporters of the size that the device has now.
func (e *export) resized(st *stack) {
	if e.counters != nil {
		e.counters.SetInfo(st.top.Info())
	}
	if files := e.gw.files.Load(); files != nil && !e.described().NoFUSE {
		if err := files.Resized(e.name); err != nil {
			e.gw.cfg.Log.Error("FUSE clients were not told of the new size", "export", e.name, "err", err)
		}
	}
}

// Resume makes a held export try its storage at once, a frozen one take changes
// again, and one that could not be opened try again.
func (g *Gateway) Resume(_ context.Context, name string) (Status, error) {
	e, err := g.find("resume export", name)
	if err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	st, a, failed := e.stack, e.awaited, e.state == Failed
	e.mu.Unlock()
	if a != nil {
		a.hold.Resume()
	}
	switch {
	case st != nil:
		st.hold.Resume()
	case failed:
		g.openLater(e, e.anew)
	}
	return e.status(), nil
}

// status describes the export as it is.
func (e *export) status() Status {
	e.mu.Lock()
	s := Status{
		Spec: e.spec, State: e.state, Since: e.since, Source: e.source, Connections: e.clients,
		Capabilities: []string{}, ReadOnly: e.spec.ReadOnly,
	}
	if e.why != nil {
		s.Error = e.why.Error()
	}
	st, own, a := e.stack, e.own, e.awaited
	e.mu.Unlock()
	s.Spec.URL = redact(s.Spec.URL)
	s.URIs = append(e.gw.URIs(e.name), own.uris(e.gw.tls())...)
	if st == nil {
		if a != nil {
			s.HeldNow = a.hold.State().Waiting
		}
		return s
	}
	info := st.image.Current()
	s.Size, s.ReadOnly, s.Capabilities = info.Size, info.ReadOnly, names(info.Caps)
	files := e.gw.files.Load()
	switch {
	case s.Spec.NoFUSE:
	case files == nil:
		s.FileError = e.gw.unmounted()
	case !files.Has(e.name): // by a removal that took too long, or it was busy after a mount
		s.FileError = "its file was taken away, or could not be made; reload the daemon to make it again"
	default:
		s.File = filepath.Join(files.Dir(), e.name)
		s.OpenFiles, _ = files.OpenCount(e.name) // none, when it is just being removed
		s.Passthrough = files.Passthrough(e.name)
	}
	s.held(st.hold.State())
	return s
}

// held puts what the hold filter says over a state of Serving.
func (s *Status) held(h hold.State) {
	if s.State != Serving && s.State != Swapping || h.Status == hold.Serving {
		return
	}
	s.State, s.Since, s.HeldNow = Held, h.Since, h.Waiting
	if h.Status == hold.Frozen {
		s.State = Frozen
	}
	if h.Err != nil {
		s.Error = h.Err.Error()
	}
}
