package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/backends/location"
	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
	"sluice/gateway/state"
	"sluice/metrics"
	"sluice/nbd"
)

// Config configures a Gateway.
type Config struct {
	// Server is the NBD server's configuration; its Catalog is the gateway's.
	Server nbd.ServerConfig
	// Allow are the common names of certificates that let clients in; empty: all
	// that the server's TLS lets in. An export can narrow it down.
	Allow []string

	Files *fusefs.FS // where exports are files; may be nil; the caller's. See Remounted
	// FilesChanged is called when what the mount has to remember of itself has
	// changed; may be nil.
	FilesChanged func()
	Look         Look // of the files

	// Listen opens the sockets that exports have of their own; nil: the usual way.
	// One that was there before has PutBack() error, which is called instead of Close
	// when the export cannot be opened.
	Listen func(context.Context, endpoint.Address) (net.Listener, error)

	State   *state.State      // keeps what is added at run time; may be nil; the caller's
	Metrics *metrics.Registry // may be nil

	AllowFaults bool // exports may have fault rules
	Tuning

	Log *slog.Logger
}

// Tuning is what can be changed while a Gateway runs.
type Tuning struct {
	// SlowRequest is how long a request may take before it is logged, of exports
	// that do not say; 0: nothing is logged.
	SlowRequest time.Duration

	// DrainTimeout bounds the wait for requests in progress when an export ends;
	// 0 waits for as long as they take.
	DrainTimeout time.Duration
}

// Look is what the files of exports look like.
type Look struct {
	Mode     uint32 // permissions; 0 means 0600, or 0400 when read-only
	UID, GID uint32
}

// Gateway holds many exports.
type Gateway struct {
	cfg    Config
	tuning atomic.Pointer[Tuning]
	files  atomic.Pointer[fusefs.FS] // nil without a mount, also while it is unmounted
	srv    *nbd.Server
	events *events

	base    func() context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // opening exports, listeners
	cuts    cuts

	compared sync.Once // the state with the configuration

	mu        sync.RWMutex // guards all below
	exports   map[string]*export
	listeners []net.Listener
	mount     *fusefs.FS // the last one that there was
	closing   bool
}

// New makes a Gateway without exports.
func New(cfg Config) *Gateway {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		cfg: cfg, cancel: cancel, base: func() context.Context { return ctx },
		exports: make(map[string]*export), events: newEvents(), mount: cfg.Files,
	}
	if cfg.Listen == nil {
		g.cfg.Listen = endpoint.Listen
	}
	g.tuning.Store(&cfg.Tuning)
	g.files.Store(cfg.Files)
	server := cfg.Server
	server.Catalog = catalog{g}
	server.Logger = cfg.Log
	g.srv = nbd.NewServer(server)
	return g
}

// Serve accepts NBD clients until the gateway is closed, which closes l; it then
// returns nil.
func (g *Gateway) Serve(l net.Listener) error {
	g.mu.Lock()
	g.listeners = append(g.listeners, l)
	g.mu.Unlock()
	if err := g.srv.Serve(l); !errors.Is(err, nbd.ErrServerClosed) {
		return err
	}
	return nil
}

// URIs are where the export of that name is found by NBD clients, at the
// gateway's own sockets, in order of the text: unix sockets first.
func (g *Gateway) URIs(name string) []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	uris := []string{}
	for _, l := range g.listeners {
		uris = append(uris, endpoint.URI(l.Addr(), name, g.tls()))
	}
	slices.Sort(uris) // listeners come in any order
	return uris
}

func (g *Gateway) tls() bool { return g.cfg.Server.TLSMode == nbd.TLSForced }

// Add opens an image and serves it. When it returns, the export is there for
// clients, and survives the end of the process. When it fails, nothing is left of
// it. It fails with Exists when the name is taken.
func (g *Gateway) Add(ctx context.Context, s spec.Spec) (Status, error) {
	e, err := g.claim(s)
	if err != nil {
		return Status{}, err
	}
	defer e.control.unlock()
	defer e.attempted()
	e.adding = false
	if err := e.open(ctx); err != nil {
		e.fail()
		g.forget(e)
		return Status{}, err
	}
	if err := g.keep(e); err != nil {
		return Status{}, errors.Join(err, g.undo(ctx, e))
	}
	st := e.status()
	g.events.publish(Event{Kind: ExportAdded, Export: s.Name, Status: &st})
	return st, nil
}

// claim reserves an export for Add, with its control held since before anybody can
// find it: a removal, or the end, that comes at once waits for the outcome of Add,
// and does not end what Add then opens and keeps.
func (g *Gateway) claim(s spec.Spec) (*export, error) {
	e, err := g.prepare(s, FromAPI, 0)
	if err != nil {
		return nil, err
	}
	e.control.take()
	e.adding = true
	return e, g.enter(e)
}

// undo ends an export that cannot be kept. One whose file the kernel has in its own
// hands by now (passthrough) is served until somebody removes it. The caller holds
// control.
func (g *Gateway) undo(ctx context.Context, e *export) error {
	if err := e.withdraw(ctx, true); err != nil {
		return err
	}
	err := e.end(ctx)
	g.forget(e)
	return err
}

// reserve checks a Spec and puts an export that is not open yet into the table.
func (g *Gateway) reserve(s spec.Spec, from Source, id uint64) (*export, error) {
	e, err := g.prepare(s, from, id)
	if err != nil {
		return nil, err
	}
	if err := g.enter(e); err != nil {
		return nil, err
	}
	return e, nil
}

// prepare checks a Spec and makes an export of it that nobody knows yet. Where id is
// 0, it gets a new one.
func (g *Gateway) prepare(s spec.Spec, from Source, id uint64) (*export, error) {
	if err := checkImage(s); err != nil {
		return nil, err
	}
	if len(s.Allow) > 0 && (g.cfg.Server.TLS == nil || g.cfg.Server.TLS.ClientCAs == nil) {
		return nil, block.Errorf(block.Invalid, "check export", s.Name, -1, "allow: the daemon asks NBD clients for no certificates (tls.ca)")
	}
	rules, err := g.rules(s.Name, s.Settings)
	if err != nil {
		return nil, err
	}
	if id == 0 && g.cfg.State != nil {
		if id, err = g.cfg.State.NextID(); err != nil {
			return nil, err
		}
	}
	e := newExport(g, s, from, id)
	e.rules = rules
	return e, nil
}

// enter puts an export into the table, where its name is free.
func (g *Gateway) enter(e *export) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch old := g.exports[e.name]; {
	case g.closing:
		return block.Errorf(block.Closed, "add export", e.name, -1, "the daemon is stopping")
	case old != nil:
		return block.Errorf(block.Exists, "add export", e.name, -1, "an export has that name, %s", wayOut(old.source))
	}
	if g.cfg.Metrics != nil {
		e.counters = g.cfg.Metrics.Export(e.name)
		e.counters.SetGauges(e.gauges)
	}
	g.exports[e.name] = e
	return nil
}

// wayOut says where the export comes from that is in the way, and how to get rid of it.
func wayOut(s Source) string {
	if s == FromConfig {
		return "from the configuration; take it out there and reload"
	}
	return "added over the API; remove it first"
}

// keep makes an export durable; of one from the configuration, what its FUSE file
// needs after a restart.
func (g *Gateway) keep(e *export) error {
	if g.cfg.State == nil {
		return nil
	}
	r := state.Record{Spec: e.described(), ID: e.id, Source: string(e.source), Size: e.size()}
	return block.Wrap(g.cfg.State.Put(r), "keep export", e.name, -1)
}

// checkImage checks a Spec, and that its image is the same from wherever it is opened.
func checkImage(s spec.Spec) error {
	if err := s.Check(); err != nil {
		return err
	}
	if location.Scheme(s.URL) == "" && !filepath.IsAbs(s.URL) { // the folder of a daemon is nobody's business
		return block.Errorf(block.Invalid, "check export", s.Name, -1, "url is neither an absolute path nor a URL")
	}
	return nil
}

// unkeep makes durable that an export is no more; one that was never open may not
// have been kept.
func (g *Gateway) unkeep(e *export) error {
	if g.cfg.State == nil {
		return nil
	}
	err := g.cfg.State.Delete(e.name)
	if block.KindOf(err) == block.NotFound {
		return nil
	}
	return block.Wrap(err, "remove export", e.name, -1)
}

// forget takes an export that has ended out of the table, and its counters, before
// the next of that name takes them for its own.
func (g *Gateway) forget(e *export) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.exports[e.name] == e {
		delete(g.exports, e.name)
	}
	if e.counters != nil {
		e.counters.Close()
	}
}

// find gives the export of that name.
func (g *Gateway) find(op, name string) (*export, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	e := g.exports[name]
	if e == nil {
		return nil, block.Errorf(block.NotFound, op, name, -1, "there is no such export")
	}
	return e, nil
}

// Remove ends an export. Without force it fails with Busy while NBD clients are
// connected or its file is open; with force their requests are finished and they
// are sent away. The image is flushed and closed. Exports of the configuration
// are removed there. When it fails before the image is flushed, the export is served
// as before, and attempts to open it go on; files that were open with force are not
// open any more.
func (g *Gateway) Remove(ctx context.Context, name string, force bool) error {
	e, err := g.find("remove export", name)
	if err != nil {
		return err
	}
	if e.source != FromAPI {
		return block.Errorf(block.Permission, "remove export", name, -1,
			"it is in the configuration; take it out there and reload")
	}
	return g.remove(ctx, e, force)
}

// remove ends an export, whatever its source.
func (g *Gateway) remove(ctx context.Context, e *export, force bool) error {
	e.halt()
	defer g.goOn(e)
	if err := e.control.lock(ctx); err != nil {
		return err
	}
	defer e.control.unlock()
	if e.ended() {
		return block.Errorf(block.NotFound, "remove export", e.name, -1, "there is no such export")
	}
	if err := e.withdraw(ctx, force); err != nil {
		return err
	}
	// Before its end: what stays in the state would come back.
	if err := g.unkeep(e); err != nil {
		return errors.Join(err, e.readmit())
	}
	err := e.end(ctx)
	g.forget(e)
	g.events.publish(Event{Kind: ExportRemoved, Export: e.name})
	return err
}

// List describes all exports, by name.
func (g *Gateway) List() []Status {
	all := g.all()
	list := make([]Status, 0, len(all))
	for _, e := range all {
		list = append(list, e.status())
	}
	return list
}

// all gives the exports in the order of their names.
func (g *Gateway) all() []*export {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]*export, 0, len(g.exports))
	for _, e := range g.exports {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *export) int { return cmpNames(a.name, b.name) })
	return all
}

// Show describes one export.
func (g *Gateway) Show(name string) (Status, error) {
	e, err := g.find("show export", name)
	if err != nil {
		return Status{}, err
	}
	return e.status(), nil
}

// Tune changes what can be changed while it runs.
func (g *Gateway) Tune(t Tuning) {
	g.tuning.Store(&t)
	for _, e := range g.all() {
		e.mu.Lock()
		if e.stack != nil {
			e.stack.observe.SetSlow(g.slow(e.spec.Settings))
		}
		e.mu.Unlock()
	}
}

// Announce tells those who subscribed of something that is not of one export.
func (g *Gateway) Announce(ev Event) { g.events.publish(ev) }

// Subscribe gives the events after the one with that sequence number, 0 for all
// that are still known, and those to come. The channel is closed when ctx ends or
// the gateway is closed. A reader that was too slow, or asks for what this process
// has never told, gets an event EventsLost, whose number is where it goes on.
func (g *Gateway) Subscribe(ctx context.Context, after uint64) <-chan Event {
	return g.events.subscribe(ctx, after)
}
