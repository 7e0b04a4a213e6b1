package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"sluice/block"
	"sluice/nbd"
)

func cmpNames(a, b string) int { return strings.Compare(a, b) }

// catalog is the table as the NBD server sees it.
type catalog struct{ g *Gateway }

// List implements nbd.Catalog.
func (c catalog) List(_ context.Context, peer nbd.Peer) ([]nbd.Listing, error) {
	var list []nbd.Listing
	for _, e := range c.g.all() {
		if s := e.described(); c.g.allowed(s.Name, s.Allow, peer) == nil {
			list = append(list, nbd.Listing{Name: s.Name, Description: s.Description})
		}
	}
	return list, nil
}

// Open implements nbd.Catalog. An export that is being opened is waited for: its
// client has most likely just been cut off by a restart.
func (c catalog) Open(ctx context.Context, name string, peer nbd.Peer) (*nbd.Export, error) {
	e, err := c.g.find("open export", name)
	if err != nil {
		return nil, err
	}
	return e.connect(ctx, peer)
}

// single is the catalog of an export's own sockets, where it is the default
// export as well.
type single struct{ e *export }

// List implements nbd.Catalog.
func (c single) List(_ context.Context, peer nbd.Peer) ([]nbd.Listing, error) {
	s := c.e.described()
	if c.e.gw.allowed(s.Name, s.Allow, peer) != nil {
		return nil, nil
	}
	return []nbd.Listing{{Name: s.Name, Description: s.Description}}, nil
}

// Open implements nbd.Catalog.
func (c single) Open(ctx context.Context, name string, peer nbd.Peer) (*nbd.Export, error) {
	if name != "" && name != c.e.name {
		return nil, block.Errorf(block.NotFound, "open export", name, -1, "there is no such export")
	}
	return c.e.connect(ctx, peer)
}

// allowed says whether a client may have an export: its certificate has to be
// among those of the gateway and among those of the export.
func (g *Gateway) allowed(name string, names []string, peer nbd.Peer) error {
	cn := peer.CommonName()
	for _, list := range [...][]string{g.cfg.Allow, names} {
		if len(list) > 0 && (cn == "" || !slices.Contains(list, cn)) {
			return block.Errorf(block.Permission, "open export", name, -1, "client certificate %q is not allowed", cn)
		}
	}
	return nil
}

// connect gives the export to one connection.
func (e *export) connect(ctx context.Context, peer nbd.Peer) (*nbd.Export, error) {
	s := e.described()
	if err := e.gw.allowed(s.Name, s.Allow, peer); err != nil {
		return nil, err
	}
	if err := e.waitOpen(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.stack == nil && e.why != nil:
		return nil, block.Wrap(e.why, "open export", e.name, -1)
	case e.stack == nil || e.gone:
		return nil, block.Errorf(block.NotFound, "open export", e.name, -1, "the export has ended")
	case s.MaxConnections > 0 && e.clients >= s.MaxConnections:
		return nil, block.Errorf(block.Busy, "open export", e.name, -1, "in use by %d clients, the limit", e.clients)
	}
	e.clients++
	x := &nbd.Export{
		Name: e.name, Description: s.Description, Device: e.stack.top, ReadOnly: s.ReadOnly,
		Withdrawn: e.withdrawn, Release: e.disconnect,
	}
	if e.counters != nil {
		x.Observer = e.counters
	}
	return x, nil
}

// patience is how long a client in the handshake waits for an image that is being
// opened: less than the handshake may take. It is told to come again then.
const patience = 5 * time.Second

// waitOpen waits until the export can be given to clients, or until it is clear that
// it cannot.
func (e *export) waitOpen(ctx context.Context) error {
	e.mu.Lock()
	ready := e.ready
	e.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return block.Errorf(block.Closed, "open export", e.name, -1, "its image is still being opened")
}

func (e *export) disconnect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients--
	if e.clients == 0 && e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
}

func (e *export) withdrawn() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone
}
