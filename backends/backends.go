// Package backends opens storage by URL. The commands and the gateway call it;
// nothing below it knows more than one backend.
//
// What is known stands in one table. A backend is a package of its own below
// this one, with a typed configuration that its ParseConfig reads from the URL;
// a parameter that it does not know is an error. A string without "scheme://"
// is a path of a local file.
//
// The package holds no state.
package backends

import (
	"context"
	"strings"

	"sluice/backends/file"
	"sluice/backends/location"
	"sluice/backends/mem"
	"sluice/backends/nbd"
	"sluice/backends/nfs"
	"sluice/block"
)

// backend is a line of the table. open is always there; locate, entry and store
// only where images have names in a store, inUse where images can be locked.
type backend struct {
	schemes []string
	open    func(ctx context.Context, url string, opts block.OpenOptions) (block.Device, error)
	locate  func(ctx context.Context, url string) (block.Store, string, error)
	entry   func(ctx context.Context, url string) (block.Store, string, error)
	store   func(ctx context.Context, url string) (block.Store, error)
	inUse   func(url string) (bool, error)
}

// local is the scheme of a plain path.
const local = ""

var table = []backend{
	{
		schemes: []string{local, "file"}, open: file.Open, locate: file.Locate, entry: file.LocateEntry, store: file.OpenStore,
		inUse: file.InUse,
	},
	{schemes: []string{"mem"}, open: mem.Open},
	{schemes: []string{"nbd", "nbds", "nbd+unix", "nbds+unix"}, open: nbd.Open, store: nbd.OpenStore},
	{schemes: []string{"nfs"}, open: nfs.Open, locate: nfs.Locate, entry: nfs.LocateEntry, store: nfs.OpenStore},
}

// Schemes lists the schemes that can be opened.
func Schemes() []string {
	var names []string
	for _, b := range table {
		for _, scheme := range b.schemes {
			if scheme != local {
				names = append(names, scheme)
			}
		}
	}
	return names
}

func find(url string) (backend, error) {
	scheme := location.Scheme(url)
	for _, b := range table {
		for _, s := range b.schemes {
			if s == scheme {
				return b, nil
			}
		}
	}
	return backend{}, block.Errorf(block.Invalid, "parse", location.Redact(url), -1, "unknown scheme %q (known: %s, or a path)",
		scheme, strings.Join(Schemes(), ", "))
}

// Open opens the image that the URL names.
func Open(ctx context.Context, url string, opts block.OpenOptions) (block.Device, error) {
	b, err := find(url)
	if err != nil {
		return nil, err
	}
	return b.open(ctx, url, opts)
}

// Locate gives the store that the image at the URL lies in, or would lie in, and
// its name there. The caller closes the store. Where images have no names (RAM,
// an NBD server) it fails with Unsupported.
func Locate(ctx context.Context, url string) (block.Store, string, error) {
	b, err := find(url)
	if err != nil {
		return nil, "", err
	}
	if b.locate == nil {
		return nil, "", noStore(url)
	}
	return b.locate(ctx, url)
}

// LocateEntry is Locate for those who want the name itself, to remove it or to
// give it away: where it is a link, the name is the link's and not that of what
// it leads to.
func LocateEntry(ctx context.Context, url string) (block.Store, string, error) {
	b, err := find(url)
	if err != nil {
		return nil, "", err
	}
	if b.entry == nil {
		return nil, "", noStore(url)
	}
	return b.entry(ctx, url)
}

// InUse reports whether somebody holds the image that the URL names with an
// image lock. It takes none and needs no more than the right to read. Where that
// cannot be told it gives an error: Unsupported where no such locks are.
func InUse(_ context.Context, url string) (bool, error) {
	b, err := find(url)
	if err != nil {
		return false, err
	}
	if b.inUse == nil {
		return false, block.Errorf(block.Unsupported, "lock", location.Redact(url), -1, "%s:// has no image locks", location.Scheme(url))
	}
	return b.inUse(url)
}

// OpenStore opens the store that a folder's URL names.
func OpenStore(ctx context.Context, url string) (block.Store, error) {
	b, err := find(url)
	if err != nil {
		return nil, err
	}
	if b.store == nil {
		return nil, noStore(url)
	}
	return b.store(ctx, url)
}

func noStore(url string) error {
	return block.Errorf(block.Unsupported, "open", location.Redact(url), -1, "%s:// holds no images by name", location.Scheme(url))
}
