package v4

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"strings"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// tree implements remote.Tree and remote.TreeSetter.
type tree struct{ c *Client }

var (
	_ remote.Tree       = tree{}
	_ remote.TreeSetter = tree{}
)

// Tree implements remote.Client.
func (c *Client) Tree() remote.Tree { return tree{c} }

const maxLinks = 40 // symbolic links on the way to a name

// names takes a path apart.
func names(p string) []string {
	return strings.FieldsFunc(path.Clean("/"+p), func(r rune) bool { return r == '/' })
}

// walk looks a path up from the root of the pseudo file system (RFC 8881, section 7.3),
// which spans all that the server exports. Symbolic links are followed on the way, and
// at its end with follow.
func (c *Client) walk(ctx context.Context, p string, follow bool) (handle, *attributes, error) {
	todo := names(p)
	for links := 0; ; {
		fh, a, done, err := c.descend(ctx, todo)
		if err != nil {
			return nil, nil, err
		}
		last := done == len(todo)
		if a.Type != remote.Symlink || last && !follow {
			if last {
				return fh, a, nil
			}
			return nil, nil, &nfsstat.Error{Op: "LOOKUP", Status: nfsstat.NotDir}
		}
		if links++; links > maxLinks {
			return nil, nil, fmt.Errorf("more than %d symbolic links%w", maxLinks, quiet{block.Invalid})
		}
		target, err := c.readLink(ctx, fh)
		if err != nil {
			return nil, nil, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Join(todo[:done-1]...), target)
		}
		todo = append(names(target), todo[done:]...)
	}
}

// descend goes down as far as folders go, and gives what it came to with the number of
// names that it took: all of them, or those up to something that is no folder.
func (c *Client) descend(ctx context.Context, todo []string) (handle, *attributes, int, error) {
	// SEQUENCE, PUTFH, GETFH and GETATTR besides the names.
	most := max(1, int(c.granted.Load().maxOps)-4)
	start := putRoot()
	for done := 0; ; {
		part := todo[done:min(len(todo), done+most)]
		fh, a, err := c.lookup(ctx, start, part)
		if s := statusOf(err); (s == nfsstat.Symlink || s == nfsstat.NotDir) && len(part) > 1 {
			// Find out where.
			most = max(1, len(part)/2)
			continue
		}
		if err != nil {
			return nil, nil, 0, err
		}
		done += len(part)
		if done == len(todo) || a.Type != remote.Directory {
			return fh, a, done, nil
		}
		start = putFH(fh)
	}
}

// lookup goes down some names in one compound.
func (c *Client) lookup(ctx context.Context, start step, names []string) (handle, *attributes, error) {
	var fh handle
	a := new(attributes)
	op := &chain{steps: append(make([]step, 0, len(names)+3), start)}
	for _, name := range names {
		op.steps = append(op.steps, lookup(name))
	}
	op.steps = append(op.steps, getFH(&fh), getAttr(openAttrs, a))
	err := c.do(ctx, op)
	return fh, a, err
}

func (c *Client) readLink(ctx context.Context, fh handle) (target string, err error) {
	err = c.do(ctx, &chain{steps: []step{putFH(fh), {op: opReadLink, result: func(r *results) { target = r.String(maxName) }}}})
	return target, err
}

// parent looks up the folder of a path.
func (c *Client) parent(ctx context.Context, p string) (folder handle, name string, err error) {
	dir, name := path.Split(path.Clean("/" + p))
	if name == "" {
		return nil, "", fmt.Errorf("it is the server's root%w", quiet{block.Invalid})
	}
	folder, a, err := c.walk(ctx, dir, true)
	if err == nil && a.Type != remote.Directory {
		err = &nfsstat.Error{Op: "LOOKUP", Status: nfsstat.NotDir}
	}
	return folder, name, err
}

// Stat implements remote.Tree.
func (t tree) Stat(ctx context.Context, p string, follow bool) (remote.Attr, error) {
	_, a, err := t.c.walk(ctx, p, follow)
	if err != nil {
		return remote.Attr{}, err
	}
	return a.Attr, nil
}

// Create implements remote.Tree: EXCLUSIVE4_1 tells a second attempt from another's
// file by a verifier.
func (t tree) Create(ctx context.Context, p string, set remote.SetAttr) error {
	c := t.c
	folder, name, err := c.parent(ctx, p)
	if err != nil {
		return err
	}
	var verifier [8]byte
	_, _ = rand.Read(verifier[:]) // never fails
	f := c.newFile(p, remote.OpenOptions{Write: true, Share: true})
	mode := uint32(0o644)
	if set.Mode != nil {
		mode = *set.Mode
	}
	err = c.do(ctx, &chain{keep: true, steps: []step{putFH(folder), {
		op: opOpen,
		args: func(b []byte) []byte {
			b = xdr.AppendUint32(b, 0)
			b = xdr.AppendUint32(b, shareRead|shareWrite|shareNoDeleg)
			b = xdr.AppendUint32(b, denyNone)
			b = xdr.AppendString(xdr.AppendUint64(b, 0), f.owner)
			b = xdr.AppendUint32(xdr.AppendUint32(b, openCreate), createExcl41)
			b = append(b, verifier[:]...)
			b = appendSet(b, remote.SetAttr{Mode: &mode})
			return xdr.AppendString(xdr.AppendUint32(b, claimNull), name)
		},
		result: func(r *results) { readOpen(r, &f.got) },
	}, getFH(&f.fh), getAttr(fileAttrs, &f.got.attr)}})
	if err != nil {
		return err
	}
	f.id = f.got.attr.ID
	f.state.Store(&f.got.state)
	c.mu.Lock()
	c.files[f] = struct{}{}
	c.mu.Unlock()
	err = t.dress(ctx, f, set)
	_ = f.Close()
	if err != nil {
		_ = t.Remove(context.WithoutCancel(ctx), p)
	}
	return err
}

// dress gives a new file the attributes that it is to have besides its mode.
func (t tree) dress(ctx context.Context, f *File, set remote.SetAttr) error {
	f.returnDelegation(ctx)
	// The times too: servers keep the verifier in them.
	return t.c.do(ctx, &chain{changes: true, steps: []step{putFH(f.fh), {
		op:     opSetAttr,
		args:   func(b []byte) []byte { return appendAttrs(appendStateID(b, f.stateID()), set, true) },
		result: func(r *results) { readBitmap(&r.Reader) },
	}}})
}

// Set implements remote.TreeSetter.
func (t tree) Set(ctx context.Context, p string, set remote.SetAttr) error {
	fh, _, err := t.c.walk(ctx, p, true)
	if err != nil {
		return err
	}
	return t.c.do(ctx, &chain{changes: true, steps: []step{putFH(fh), {
		op:     opSetAttr,
		args:   func(b []byte) []byte { return appendSet(appendStateID(b, anonymous), set) },
		result: func(r *results) { readBitmap(&r.Reader) },
	}}})
}

// Remove implements remote.Tree.
func (t tree) Remove(ctx context.Context, p string) error {
	folder, name, err := t.c.parent(ctx, p)
	if err != nil {
		return err
	}
	_, a, err := t.c.lookup(ctx, putFH(folder), []string{name})
	if err != nil {
		return err
	}
	if a.Type == remote.Directory {
		return notRegular(a.Type)
	}
	op := &chain{keep: true, steps: []step{putFH(folder), {
		op:     opRemove,
		args:   func(b []byte) []byte { return xdr.AppendString(b, name) },
		result: readChange,
	}}}
	err = t.c.do(ctx, op)
	if op.unsure && statusOf(err) == nfsstat.NoEnt { // an attempt before was carried out
		return nil
	}
	return err
}

// Rename implements remote.Tree.
func (t tree) Rename(ctx context.Context, from, to string) error {
	return t.move(ctx, from, to, opRename)
}

// Link implements remote.Tree.
func (t tree) Link(ctx context.Context, from, to string) error { return t.move(ctx, from, to, opLink) }

// move is RENAME or LINK.
func (t tree) move(ctx context.Context, from, to string, what uint32) error {
	c := t.c
	source, name, err := c.parent(ctx, from)
	if err != nil {
		return err
	}
	object, before, err := c.lookup(ctx, putFH(source), []string{name})
	if err != nil {
		return err
	}
	folder, newName, err := c.parent(ctx, to)
	if err != nil {
		return err
	}
	op := &chain{keep: true}
	if what == opLink {
		op.steps = []step{putFH(object), saveFH(), putFH(folder), {
			op: opLink, args: func(b []byte) []byte { return xdr.AppendString(b, newName) }, result: readChange,
		}}
	} else {
		op.steps = []step{putFH(source), saveFH(), putFH(folder), {
			op:     opRename,
			args:   func(b []byte) []byte { return xdr.AppendString(xdr.AppendString(b, name), newName) },
			result: func(r *results) { readChange(r); readChange(r) },
		}}
	}
	err = c.do(ctx, op)
	if s := statusOf(err); op.unsure && (s == nfsstat.NoEnt || s == nfsstat.Exist) {
		// An attempt before may have been carried out.
		if _, after, e := c.lookup(ctx, putFH(folder), []string{newName}); e == nil && after.ID == before.ID {
			return nil
		}
	}
	return err
}

// MakeDir makes a folder.
func (t tree) MakeDir(ctx context.Context, p string, mode uint32) error {
	folder, name, err := t.c.parent(ctx, p)
	if err != nil {
		return err
	}
	op := &chain{keep: true, steps: []step{putFH(folder), {
		op: opCreate,
		args: func(b []byte) []byte {
			b = xdr.AppendString(xdr.AppendUint32(b, typeDirectory), name)
			return appendSet(b, remote.SetAttr{Mode: &mode})
		},
		result: func(r *results) {
			readChange(r)
			readBitmap(&r.Reader)
		},
	}}}
	return t.c.do(ctx, op)
}

// Space implements remote.TreeSetter.
func (t tree) Space(ctx context.Context, p string) (total, free int64, err error) {
	fh, _, err := t.c.walk(ctx, p, true)
	if err != nil {
		return 0, 0, err
	}
	var a attributes
	err = t.c.do(ctx, &chain{steps: []step{putFH(fh), getAttr(spaceAttrs, &a)}})
	if err == nil && a.has&spaceAttrs != spaceAttrs {
		err = &nfsstat.Error{Op: "GETATTR", Status: nfsstat.Attrnotsupp}
	}
	return int64(min(a.total, 1<<63-1)), int64(min(a.avail, 1<<63-1)), err
}

// List implements remote.Tree.
func (t tree) List(ctx context.Context, p string) ([]remote.Entry, error) {
	fh, a, err := t.c.walk(ctx, p, true)
	if err != nil {
		return nil, err
	}
	if a.Type != remote.Directory {
		return nil, &nfsstat.Error{Op: "READDIR", Status: nfsstat.NotDir}
	}
	for range 5 { // a folder that changes all the time
		l := listing{c: t.c, fh: fh}
		err := l.read(ctx)
		if s := statusOf(err); s == nfsstat.BadCookie || s == nfsstat.NotSame {
			continue
		}
		return l.entries, err
	}
	return nil, errors.New("the folder changed again and again while it was read")
}

const (
	maxEntries = 1 << 20
	listBytes  = 128 << 10
)

// listing reads a folder.
type listing struct {
	c        *Client
	fh       handle
	cookie   uint64
	verifier [8]byte
	end      bool
	seen     int // entries received, those left out included
	entries  []remote.Entry
}

func (l *listing) read(ctx context.Context) error {
	most := uint32(min(listBytes, int(l.c.granted.Load().maxResponse)-overhead/2))
	for !l.end {
		cookie := l.cookie
		var part []remote.Entry
		err := l.c.do(ctx, &chain{steps: []step{putFH(l.fh), {
			op: opReadDir,
			args: func(b []byte) []byte {
				b = append(xdr.AppendUint64(b, l.cookie), l.verifier[:]...)
				b = xdr.AppendUint32(xdr.AppendUint32(b, most), most)
				return listAttrs.append(b)
			},
			result: func(r *results) { part = l.page(r) },
		}}})
		if err != nil {
			return err
		}
		l.entries = append(l.entries, part...)
		if !l.end && l.cookie == cookie {
			return breach("a READDIR that comes to no end")
		}
		if l.seen > maxEntries {
			return fmt.Errorf("the folder has more than %d entries", maxEntries)
		}
	}
	return nil
}

// page takes the result of one READDIR.
func (l *listing) page(r *results) (entries []remote.Entry) {
	copy(l.verifier[:], r.Fixed(len(l.verifier)))
	for r.More() {
		l.cookie = r.Uint64()
		l.seen++
		name := r.String(maxName)
		var a attributes
		a.read(&r.Reader)
		if name == "" || strings.ContainsAny(name, "/\x00") {
			r.Fail()
		}
		if name != "." && name != ".." {
			entries = append(entries, remote.Entry{Name: name, Attr: a.Attr})
		}
	}
	l.end = r.Bool()
	return entries
}
