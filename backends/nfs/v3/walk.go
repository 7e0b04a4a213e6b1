package v3

import (
	"context"
	"fmt"
	"path"
	"strings"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

const maxLinks = 40 // symbolic links on the way to a name

// node is what a path leads to.
type node struct {
	attributes
	fh handle
}

// clean is the one way to write a path.
func clean(p string) string { return path.Clean("/" + p) }

// names takes a path apart.
func names(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// walk looks a path up from the root of the export that it is in. Symbolic links are
// followed on the way, and at its end with follow. Where a handle turns out to be stale
// on the way (of a folder that was replaced, or of an export from before) it begins anew.
func (c *Client) walk(ctx context.Context, a asker, p string, follow bool) (node, error) {
	w := walker{c: c, a: a, follow: follow}
	n, err := w.walk(ctx, clean(p))
	if isStale(err) {
		if w.from != nil {
			c.forget(w.from)
		}
		w.links = 0
		n, err = w.walk(ctx, clean(p))
	}
	return n, err
}

// walker is on its way.
type walker struct {
	c      *Client
	a      asker
	follow bool
	from   *root // where it began
	links  int   // followed so far
}

func (w *walker) walk(ctx context.Context, p string) (node, error) {
	for {
		n, next, err := w.descend(ctx, p)
		if err != nil || next == "" {
			return n, err
		}
		if w.links++; w.links > maxLinks {
			return node{}, &fault{
				kind: block.Invalid, text: fmt.Sprintf("more than %d symbolic links", maxLinks),
				cause: &nfsstat.Error{Op: "LOOKUP", Status: nfsstat.Inval},
			}
		}
		p = next
	}
}

// descend follows a path to its end, or to a symbolic link that has to be followed: then
// next is the path with the link replaced.
func (w *walker) descend(ctx context.Context, p string) (n node, next string, err error) {
	if w.from, err = w.c.root(ctx, p); err != nil {
		return node{}, "", err
	}
	n.fh = w.from.fh
	todo := names(strings.TrimPrefix(p, w.from.dir))
	if len(todo) == 0 {
		n.attributes, err = getAttr(ctx, w.a, n.fh)
		return n, "", err
	}
	at := w.from.dir
	for i, name := range todo {
		if n, err = lookup(ctx, w.a, n.fh, name); err != nil {
			return node{}, "", err
		}
		last := i == len(todo)-1
		switch {
		case n.Type == remote.Symlink && (!last || w.follow):
			target, err := readLink(ctx, w.a, n.fh)
			if err != nil {
				return node{}, "", err
			}
			if !path.IsAbs(target) {
				target = path.Join(at, target)
			}
			return node{}, clean(path.Join(target, path.Join(todo[i+1:]...))), nil
		case n.Type != remote.Directory && !last:
			return node{}, "", &nfsstat.Error{Op: "LOOKUP", Status: nfsstat.NotDir}
		}
		at = path.Join(at, name)
	}
	return n, "", nil
}

// lookup finds a name in a folder.
func lookup(ctx context.Context, a asker, folder handle, name string) (node, error) {
	r, err := a.ask(ctx, procLookup, appendName(nil, folder, name))
	if err != nil {
		return node{}, err
	}
	n, err := lookupResult(&r)
	if err == nil && !n.known {
		n.attributes, err = getAttr(ctx, a, n.fh)
	}
	return n, err
}

func lookupResult(r *result) (n node, err error) {
	n.fh = readHandle(&r.Reader)
	n.readPost(&r.Reader)
	skipPost(&r.Reader)
	return n, r.check()
}

// appendName appends a diropargs3.
func appendName(b []byte, folder handle, name string) []byte {
	return xdr.AppendString(xdr.AppendOpaque(b, folder), name)
}

func getAttr(ctx context.Context, a asker, fh handle) (attributes, error) {
	r, err := a.ask(ctx, procGetAttr, xdr.AppendOpaque(nil, fh))
	if err != nil {
		return attributes{}, err
	}
	var got attributes
	got.read(&r.Reader)
	return got, r.check()
}

func readLink(ctx context.Context, a asker, fh handle) (string, error) {
	r, err := a.ask(ctx, procReadLink, xdr.AppendOpaque(nil, fh))
	if err != nil {
		return "", err
	}
	skipPost(&r.Reader)
	target := r.String(maxName)
	if target == "" || strings.ContainsRune(target, 0) {
		r.Fail()
	}
	return target, r.check()
}

// parent looks up the folder of a path.
func (c *Client) parent(ctx context.Context, p string) (folder handle, name string, err error) {
	dir, name := path.Split(clean(p))
	if name == "" {
		return nil, "", faultf(block.Invalid, "it is the server's root")
	}
	n, err := c.walk(ctx, c, dir, true)
	if err == nil && n.Type != remote.Directory {
		err = &nfsstat.Error{Op: "LOOKUP", Status: nfsstat.NotDir}
	}
	return n.fh, name, err
}
