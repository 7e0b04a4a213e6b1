package nbd

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/block"
)

// Catalog is what a server asks for exports. Its methods are called by many
// connections at once.
type Catalog interface {
	// List gives the exports that the peer may know of, for OPT_LIST.
	List(ctx context.Context, peer Peer) ([]Listing, error)

	// Open gives the export of that name for one connection; the empty name is
	// the default export. It is called only when a client has chosen the
	// export. Its error's kind decides the answer: NotFound (unknown),
	// Permission or Busy (policy), others platform.
	Open(ctx context.Context, name string, peer Peer) (*Export, error)
}

// Listing is an export as OPT_LIST shows it.
type Listing struct {
	Name        string
	Description string
}

// Export is a device offered to clients. The server does not change it.
type Export struct {
	Name        string // canonical; at most 4096 bytes of UTF-8
	Description string
	Device      block.Device // stays open as long as a connection uses it
	ReadOnly    bool         // even if the device is not
	Observer    Observer     // may be nil

	// MaxConnections is how many clients may use the export at once; 0 means no
	// limit but the server's. Exports enforces it.
	MaxConnections int

	// Withdrawn reports whether the export has been withdrawn since it was opened:
	// a connection that was opened before and begins its transmission after
	// Server.End ends at once. May be nil.
	Withdrawn func() bool

	// Release is called when the connection is done with the export; may be
	// nil.
	Release func()
}

// Peer tells a Catalog who asks.
type Peer struct {
	Addr net.Addr             // the client's address; of little use on unix sockets
	TLS  *tls.ConnectionState // nil on a connection in the clear
}

// CommonName is the subject CN of the client's verified certificate, or "".
func (p Peer) CommonName() string {
	if p.TLS == nil || len(p.TLS.VerifiedChains) == 0 {
		return ""
	}
	return p.TLS.PeerCertificates[0].Subject.CommonName
}

// Exports is a Catalog kept in memory, which can be changed while it is served.
// The zero value is empty and ready.
type Exports struct {
	// Authorize, when set, is asked before a peer sees or opens an export. Set
	// it before serving.
	Authorize func(name string, peer Peer) error

	mu    sync.RWMutex
	table map[string]*exportEntry
}

type exportEntry struct {
	export *Export
	users  sync.WaitGroup
	count  atomic.Int64 // of users
}

// Add offers an export; it fails with Exists when the name is taken.
func (e *Exports) Add(x *Export) error {
	if err := checkString(x.Name); err != nil {
		return block.Errorf(block.Invalid, "add export", x.Name, -1, "%w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, taken := e.table[x.Name]; taken {
		return block.Errorf(block.Exists, "add export", x.Name, -1, "")
	}
	if e.table == nil {
		e.table = make(map[string]*exportEntry)
	}
	e.table[x.Name] = &exportEntry{export: x}
	return nil
}

// Remove withdraws an export and waits until no connection uses it. It does not
// end those connections.
func (e *Exports) Remove(name string) error {
	e.mu.Lock()
	entry, ok := e.table[name]
	delete(e.table, name)
	e.mu.Unlock()
	if !ok {
		return block.Errorf(block.NotFound, "remove export", name, -1, "")
	}
	entry.users.Wait()
	return nil
}

// List implements Catalog.
func (e *Exports) List(_ context.Context, peer Peer) ([]Listing, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var list []Listing
	for name, entry := range e.table {
		if e.Authorize == nil || e.Authorize(name, peer) == nil {
			list = append(list, Listing{Name: name, Description: entry.export.Description})
		}
	}
	slices.SortFunc(list, func(a, b Listing) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Open implements Catalog.
func (e *Exports) Open(_ context.Context, name string, peer Peer) (*Export, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.Authorize != nil {
		if err := e.Authorize(name, peer); err != nil {
			return nil, err
		}
	}
	entry, ok := e.table[name]
	if !ok {
		return nil, block.Errorf(block.NotFound, "open export", name, -1, "no such export")
	}
	limit := int64(entry.export.MaxConnections)
	if n := entry.count.Add(1); limit > 0 && n > limit {
		entry.count.Add(-1)
		return nil, block.Errorf(block.Busy, "open export", name, -1, "in use by %d clients, the limit", limit)
	}
	entry.users.Add(1)
	x := *entry.export
	release := x.Release
	x.Release = func() {
		if release != nil {
			release()
		}
		entry.count.Add(-1)
		entry.users.Done()
	}
	return &x, nil
}

// AllowCommonNames makes an Authorize function that lets in the peers whose
// verified certificate carries one of the names.
func AllowCommonNames(names ...string) func(string, Peer) error {
	return func(export string, peer Peer) error {
		cn := peer.CommonName()
		if cn != "" && slices.Contains(names, cn) {
			return nil
		}
		return block.Errorf(block.Permission, "open export", export, -1, "client certificate %q is not allowed", cn)
	}
}

// flagsOf computes an export's transmission flags (proto.md, "Transmission
// flags"). Nothing is advertised that is not implemented; what is advertised
// without the device's help is emulated honestly: zeroes are written, FUA is
// followed by a flush, trim is a hint.
func flagsOf(info block.Info, readOnly bool) transmissionFlags {
	flags := tfHasFlags | tfFlush | tfFUA | tfCache
	if info.Rotational {
		flags |= tfRotational
	}
	if info.Has(block.CapMultiConn) {
		flags |= tfMultiConn
	}
	if readOnly {
		return flags | tfReadOnly | tfMultiConn
	}
	return flags | tfTrim | tfWriteZeroes | tfFastZero
}

// checkString applies the protocol's rule for strings: valid UTF-8 without NUL,
// at most 4096 bytes.
func checkString(s string) error {
	switch {
	case len(s) > maxString:
		return fmt.Errorf("longer than %d bytes", maxString)
	case strings.ContainsRune(s, 0):
		return fmt.Errorf("contains a NUL byte")
	case strings.ToValidUTF8(s, "") != s:
		return fmt.Errorf("is not UTF-8")
	}
	return nil
}
