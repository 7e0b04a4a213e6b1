package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/fault"
	"sluice/filters/hold"
	"sluice/fusefs"
	"sluice/gateway/endpoint"
	"sluice/gateway/image"
	"sluice/gateway/spec"
	"sluice/metrics"
	"sluice/nbd"
)

// export is one export from its Spec to its end: reserved in the table, opened,
// served, withdrawn (nobody new comes in), ended.
type export struct {
	gw       *Gateway
	name     string
	id       uint64 // of its FUSE file, the same in every process
	source   Source
	rules    []fault.Rule    // of the Spec that it began with
	counters *metrics.Export // nil without metrics

	// control is held by the one who opens, changes, exchanges or ends it. It is
	// taken before Gateway.mu and before mu.
	control turnstile
	adding  bool // guarded by control: the state is to know nothing of it yet

	mu       sync.Mutex         // guards all below
	abort    context.CancelFunc // ends the attempts to open it in the background; may be nil
	removers int                // that have halted the attempts
	halted   bool               // the attempts were ended by those
	spec     spec.Spec
	asked    spec.Settings // as the configuration had them last
	state    State         // but Held and Frozen, which the stack knows
	since    time.Time
	why      error
	stack    *stack   // nil until it is open, and after its end
	last     int64    // size when it was open last, in a process before; 0 where unknown
	awaited  *awaited // its FUSE file was made before it was open
	own      *ownSockets
	ready    chan struct{} // closed when clients need not wait: it is open, has failed, or has ended
	tried    chan struct{} // closed when it has been tried to open it once
	away     bool          // the storage is, as the stack has told last
	flushing *lastFlush    // nil before it
	clients  int
	idle     chan struct{} // closed when the last client leaves; made by who waits for it
	gone     bool          // withdrawn
	over     bool          // ended
}

func newExport(g *Gateway, s spec.Spec, from Source, id uint64) *export {
	return &export{
		gw: g, name: s.Name, id: id, source: from, spec: s, asked: s.Settings, control: newTurnstile(),
		state: Opening, since: time.Now(), ready: make(chan struct{}), tried: make(chan struct{}),
	}
}

// described gives the Spec as it is now.
func (e *export) described() spec.Spec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.spec
}

func (e *export) ended() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over
}

// giveUp ends the attempts to open it in the background.
func (e *export) giveUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopTrying()
}

// stopTrying is giveUp with e.mu held. It reports whether there may have been
// attempts.
func (e *export) stopTrying() bool {
	if e.stack != nil || e.abort == nil || e.state != Opening {
		return false
	}
	e.abort()
	e.abort = nil
	return true
}

// halt is giveUp for who wants to remove the export and may not be able to; goOn
// follows.
func (e *export) halt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.removers++
	if e.stopTrying() {
		e.halted = true
	}
}

// letIn ends the wait of clients; e.mu is held.
func (e *export) letIn() {
	select {
	case <-e.ready:
	default:
		close(e.ready)
	}
}

// fail ends an export that was never open. The caller holds control.
func (e *export) fail() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone, e.over = true, true
	e.letIn()
}

// waits reports whether requests wait for the storage.
func (e *export) waits() bool {
	e.mu.Lock()
	st, a := e.stack, e.awaited
	e.mu.Unlock()
	if st != nil {
		return st.hold.State().Status == hold.Held
	}
	return a != nil
}

// size is that of the image; while it is not open, that of the last time, 0 where
// there was none.
func (e *export) size() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stack == nil {
		return e.last
	}
	return e.stack.top.Info().Size
}

// patienceHeld is how long the end of a process waits for a storage that is away.
const patienceHeld = time.Second

// cut sends clients away whose requests wait for the storage, those of its file too.
func (e *export) cut(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, patienceHeld)
	defer done()
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	_ = errors.Join(e.gw.srv.End(ctx, e.name), own.end(ctx)) // it is what was meant to happen
	files := e.gw.files.Load()
	if files == nil || !files.InUse(e.name) {
		return
	}
	<-ctx.Done()
	if e.waits() {
		files.GiveUp(e.name)
	}
}

// set changes the state; e.mu is held.
func (e *export) set(s State, why error) {
	e.state, e.since, e.why = s, time.Now(), why
}

// open opens the image and makes the export known to clients. The caller holds
// control. When it fails nothing is open.
func (e *export) open(ctx context.Context) error {
	s := e.described()
	st, err := e.gw.build(ctx, e, s)
	if err != nil {
		return err
	}
	if err := e.publish(ctx, s, st); err != nil {
		return errors.Join(err, st.top.Close())
	}
	return nil
}

// publish gives the stack to the exporters.
func (e *export) publish(ctx context.Context, s spec.Spec, st *stack) error {
	own, err := e.listen(ctx, s)
	if err != nil {
		return err
	}
	if err := e.show(s, st); err != nil {
		own.putBack()
		return err
	}
	if e.counters != nil {
		e.counters.SetInfo(st.top.Info())
	}
	e.mu.Lock()
	e.stack, e.own = st, own
	e.set(Serving, nil)
	e.letIn()
	own.serve() // before anybody can end it
	e.mu.Unlock()
	return nil
}

// show makes the FUSE file, where the gateway has a mount.
func (e *export) show(s spec.Spec, st *stack) error {
	if s.NoFUSE || e.arrived(s, st) {
		return nil
	}
	if err := e.addFile(s, st.top); err != nil {
		return err
	}
	e.filesChanged(s)
	return nil
}

// addFile puts a file into the mount. One that somebody has unmounted takes none.
func (e *export) addFile(s spec.Spec, dev block.Device) error {
	files := e.gw.files.Load()
	if files == nil {
		return nil
	}
	f := fusefs.File{
		Name: s.Name, ID: e.id, Device: dev, ReadOnly: s.ReadOnly, Passthrough: s.Passthrough,
		Mode: e.gw.cfg.Look.Mode, UID: e.gw.cfg.Look.UID, GID: e.gw.cfg.Look.GID,
		Xattrs: map[string]string{
			"user.sluice.format": image.Format{Name: s.Format}.Of(s.URL),
			"user.sluice.url":    location.Redact(s.URL),
		},
	}
	if e.counters != nil {
		f.Observer = fileCounters{e.counters.FUSE()}
	}
	err := files.Add(f)
	if block.KindOf(err) == block.Closed {
		return nil
	}
	return err
}

// filesChanged says that the mount has more or less to remember of itself, where
// that is so.
func (e *export) filesChanged(s spec.Spec) {
	if s.Passthrough && e.gw.cfg.FilesChanged != nil {
		e.gw.cfg.FilesChanged()
	}
}

// withdraw lets nobody new in. Without force it fails with Busy when somebody is
// in, and nothing has changed then. The caller holds control.
func (e *export) withdraw(ctx context.Context, force bool) error {
	e.mu.Lock()
	if n := e.clients; n > 0 && !force {
		e.mu.Unlock()
		return block.Errorf(block.Busy, "remove export", e.name, -1, "%s", clients(n))
	}
	e.gone = true
	s := e.spec
	files := e.gw.files.Load()
	shown := (e.stack != nil || e.awaited != nil) && files != nil && !s.NoFUSE
	e.mu.Unlock()
	if !shown {
		return nil
	}
	err := files.Remove(ctx, e.name, force)
	if block.KindOf(err) == block.Canceled { // who asked has gone; half of it is done
		again, done := e.gw.limited(context.WithoutCancel(ctx))
		defer done()
		err = files.Remove(again, e.name, force)
	}
	if block.KindOf(err) == block.NotFound {
		return nil // the mount is closed already
	}
	if err != nil {
		e.mu.Lock()
		e.gone = false
		e.mu.Unlock()
		return err
	}
	e.filesChanged(s)
	return nil
}

func clients(n int) string {
	if n == 1 {
		return "1 NBD client uses it"
	}
	return fmt.Sprintf("%d NBD clients use it", n)
}

// readmit takes withdraw back: clients may come again, and the file is there again.
// The caller holds control.
func (e *export) readmit() error {
	e.mu.Lock()
	e.gone = false
	s, st, a := e.spec, e.stack, e.awaited
	e.mu.Unlock()
	var dev block.Device
	switch {
	case e.gw.files.Load() == nil || s.NoFUSE:
		return nil
	case a != nil:
		dev = a
	case st != nil:
		dev = st.top
	default:
		return nil
	}
	err := e.addFile(s, dev)
	if kind := block.KindOf(err); kind == block.Closed || kind == block.Exists {
		return nil // the mount is gone, or the file has never been
	}
	if err == nil {
		e.filesChanged(s)
	}
	return err
}

// end ends a withdrawn export: clients finish, the image is flushed and closed.
// The caller holds control.
func (e *export) end(ctx context.Context) error {
	e.mu.Lock()
	opened := e.stack != nil
	e.set(Closing, nil)
	e.mu.Unlock()
	if opened {
		e.drain(ctx)
	}
	e.mu.Lock()
	st, own := e.stack, e.own
	e.stack, e.own, e.gone, e.over = nil, nil, true, true
	e.letIn()
	e.mu.Unlock()
	own.close()
	if st == nil {
		return nil
	}
	return e.release(ctx, st)
}

// drain lets the clients finish and sends them away, in the end by force.
func (e *export) drain(ctx context.Context) {
	ctx, done := e.gw.limited(ctx)
	defer done()
	err := errors.Join(e.gw.srv.End(ctx, e.name), e.own.end(ctx))
	if err != nil {
		e.gw.cfg.Log.Warn("requests in progress were cut off", "export", e.name, "why", whyCut(err))
	}
	e.mu.Lock()
	idle := make(chan struct{})
	if e.clients == 0 {
		close(idle)
	} else {
		e.idle = idle
	}
	e.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done(): // a client in the handshake; the device tells it that it is closed
	}
}

// whyCut says why a drain has come to an end too soon.
func whyCut(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "they took longer than the shutdown timeout"
	case errors.Is(err, context.Canceled):
		return "a second signal, or whoever asked for it has gone"
	}
	return err.Error()
}

// ownSockets are an export's sockets besides the gateway's, with a server of
// their own. A nil one is none.
type ownSockets struct {
	srv       *nbd.Server
	listeners []net.Listener
	serving   sync.WaitGroup
	failed    func(net.Listener, error)
}

// listen opens the export's own sockets.
func (e *export) listen(ctx context.Context, s spec.Spec) (*ownSockets, error) {
	if len(s.NBD) == 0 {
		return nil, nil
	}
	own := &ownSockets{failed: func(l net.Listener, err error) {
		e.gw.cfg.Log.Error("a socket is lost", "export", e.name, "address", l.Addr(), "err", err)
	}}
	for _, text := range s.NBD {
		a, err := endpoint.Parse(text)
		if err == nil {
			var l net.Listener
			if l, err = e.gw.cfg.Listen(ctx, a); err == nil {
				own.listeners = append(own.listeners, l)
			}
		}
		if err != nil {
			own.putBack()
			return nil, fmt.Errorf("export %s: %w", e.name, err)
		}
	}
	cfg := e.gw.cfg.Server
	cfg.Catalog, cfg.Logger = single{e}, e.gw.cfg.Log
	own.srv = nbd.NewServer(cfg)
	return own, nil
}

// serve accepts clients until end or close.
func (o *ownSockets) serve() {
	if o == nil {
		return
	}
	for _, l := range o.listeners {
		o.serving.Go(func() {
			if err := o.srv.Serve(l); !errors.Is(err, nbd.ErrServerClosed) {
				o.failed(l, err)
			}
		})
	}
}

// end drains the server.
func (o *ownSockets) end(ctx context.Context) error {
	if o == nil {
		return nil
	}
	err := o.srv.Shutdown(ctx)
	o.serving.Wait()
	return err
}

// uris are where clients find the export, at its own sockets.
func (o *ownSockets) uris(tls bool) []string {
	if o == nil {
		return nil
	}
	uris := make([]string, 0, len(o.listeners))
	for _, l := range o.listeners {
		uris = append(uris, endpoint.URI(l.Addr(), "", tls))
	}
	return uris
}

// close gives up the sockets; the server has ended or never begun.
func (o *ownSockets) close() {
	if o == nil {
		return
	}
	if o.srv != nil {
		_ = o.srv.Close()
	}
	for _, l := range o.listeners {
		_ = l.Close()
	}
}
