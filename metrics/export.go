package metrics

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// Export counts what happens to one export. It is an nbd.Observer; a server
// that gives each connection a Shard of it keeps connections from slowing each
// other down. What comes through FUSE or passes a layer of the export's stack is
// counted apart, by FUSE and Layer. All methods may be called by many goroutines
// at once, also after Close.
type Export struct {
	name     string // as in the label
	registry *Registry
	nbd      *Requests

	mu     sync.Mutex // guards all below
	fuse   *Requests  // nil until it is asked for
	layers map[string]*Requests
	gauges func() Gauges
	info   block.Info
	known  bool // info was set
}

var _ nbd.Observer = (*Export)(nil)

func newExport(r *Registry, name string) *Export {
	return &Export{name: name, registry: r, nbd: newRequests(maxShards)}
}

// label makes any name fit to be a label's value, which has to be UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// Shard gives an Observer to be used by one NBD connection; see Requests.Shard.
func (e *Export) Shard() nbd.Observer { return e.nbd.Shard() }

// Request counts an answered NBD request; see nbd.Observer.
func (e *Export) Request(op nbd.Op, bytes int64, took time.Duration, kind block.Kind) {
	e.nbd.Request(op, bytes, took, kind)
}

// InFlight changes the number of NBD requests being worked on.
func (e *Export) InFlight(op nbd.Op, delta int) { e.nbd.InFlight(op, delta) }

// Connection changes the number of NBD connections.
func (e *Export) Connection(delta int) { e.nbd.Connection(delta) }

// FUSE gives what counts the requests that come through FUSE, and the open
// files. An export that is never asked for it pays nothing for it.
func (e *Export) FUSE() *Requests {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fuse == nil {
		e.fuse = newRequests(maxSpread)
	}
	return e.fuse
}

// Layer gives what counts the requests that pass a layer of the export's stack,
// by the name that it has in the label.
func (e *Export) Layer(name string) *Requests {
	name = label(name)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.layers == nil {
		e.layers = make(map[string]*Requests)
	}
	r := e.layers[name]
	if r == nil {
		r = newRequests(maxSpread)
		e.layers[name] = r
	}
	return r
}

// SetInfo tells size and mode of the export, at its beginning and after each
// change. Until then the metrics about them are absent.
func (e *Export) SetInfo(info block.Info) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info, e.known = info, true
}

// SetGauges says whom to ask, at each scrape, what the export is doing. Until
// then the metrics about that are absent. It may be asked by several goroutines at
// once, and is not asked with a lock held.
func (e *Export) SetGauges(ask func() Gauges) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gauges = ask
}

// Close takes the export's metrics out of the registry. What is counted
// afterwards is lost.
func (e *Export) Close() { e.registry.remove(e) }

// parts is what a scrape looks at, all of one moment.
type parts struct {
	protocols []part // that are in use
	layers    []part
	gauges    func() Gauges
	info      block.Info
	known     bool
}

// part is Requests and their name.
type part struct {
	name string
	*Requests
}

// The values of the label "protocol".
const (
	protocolNBD  = "nbd"
	protocolFUSE = "fuse"
)

func (e *Export) parts() parts {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := parts{protocols: []part{{protocolNBD, e.nbd}}, gauges: e.gauges, info: e.info, known: e.known}
	if e.fuse != nil {
		p.protocols = append(p.protocols, part{protocolFUSE, e.fuse})
	}
	for _, name := range slices.Sorted(maps.Keys(e.layers)) {
		p.layers = append(p.layers, part{name, e.layers[name]})
	}
	return p
}
