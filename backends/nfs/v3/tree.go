package v3

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"

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

// Stat implements remote.Tree.
func (t tree) Stat(ctx context.Context, p string, follow bool) (remote.Attr, error) {
	n, err := t.c.walk(ctx, t.c, p, follow)
	return n.Attr, err
}

// createVerifier makes the verifier of an EXCLUSIVE create: two numbers that servers can
// keep as times, which is what they do (RFC 1813, section 3.3.8).
func createVerifier() (v [2]uint32) {
	return [2]uint32{rand.Uint32() & math.MaxInt32, rand.Uint32() & math.MaxInt32}
}

const defaultMode = 0o644

// Create implements remote.Tree. EXCLUSIVE tells a second attempt from another's file by
// a verifier; the attributes can only follow.
func (t tree) Create(ctx context.Context, p string, set remote.SetAttr) error {
	folder, name, err := t.c.parent(ctx, p)
	if err != nil {
		return err
	}
	end, err := t.c.beginCreate(ctx, string(folder)+"/"+name)
	if err != nil {
		return err
	}
	defer end()
	if set.Mode == nil {
		mode := uint32(defaultMode)
		set.Mode = &mode
	}
	fh, err := t.exclusive(ctx, folder, name)
	if isMissing(err) {
		return t.guarded(ctx, folder, name, set)
	}
	if err != nil {
		return err
	}
	// The times too: the verifier is in them.
	if err = t.setAttr(ctx, fh, set, true); err != nil {
		t.undo(ctx, folder, name)
	}
	return err
}

// undo removes what a create has made that failed after that.
func (t tree) undo(ctx context.Context, folder handle, name string) {
	_, _ = t.c.ask(context.WithoutCancel(ctx), procRemove, appendName(nil, folder, name))
}

// beginCreate waits until nobody else creates the name: a server may not bear several
// calls at once that do (nfs-ganesha 4.3 does not bear the fourth).
func (c *Client) beginCreate(ctx context.Context, key string) (end func(), err error) {
	for {
		c.mu.Lock()
		other := c.creating[key]
		if other == nil {
			done := make(chan struct{})
			c.creating[key] = done
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.creating, key)
				c.mu.Unlock()
				close(done)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-c.closing:
			return nil, block.Closed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// exclusive creates an empty file.
func (t tree) exclusive(ctx context.Context, folder handle, name string) (handle, error) {
	verifier := createVerifier()
	b := xdr.AppendUint32(appendName(nil, folder, name), createExclusive)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, verifier[0]), verifier[1])
	for pause, resent := createPause, false; ; pause *= 2 {
		r, err := t.c.ask(ctx, procCreate, b)
		if err == nil {
			return t.created(ctx, &r, folder, name)
		}
		if resent = resent || r.resent; statusOf(err) != nfsstat.Exist || !resent {
			return nil, err
		}
		// A server that knew the verifier would have said OK; but its cache may have it
		// from a first attempt that made the file and failed after it.
		n, e := lookup(ctx, t.c, folder, name)
		if e == nil && (n.times == verifier || n.times == [2]uint32{verifier[1], verifier[0]}) {
			return n.fh, nil
		}
		// Or that attempt is still at it, and the verifier not there yet.
		if pause > mostCreatePause || !sleep(ctx, pause) {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	createPause     = 20 * time.Millisecond
	mostCreatePause = 200 * time.Millisecond
)

// guarded is for servers that do not know EXCLUSIVE.
func (t tree) guarded(ctx context.Context, folder handle, name string, set remote.SetAttr) error {
	b := xdr.AppendUint32(appendName(nil, folder, name), createGuarded)
	r, err := t.c.ask(ctx, procCreate, appendSet(b, set, false))
	if err == nil {
		_, err = t.created(ctx, &r, folder, name)
	}
	return err
}

// created takes the handle of what was made, which a server may leave out.
func (t tree) created(ctx context.Context, r *result, folder handle, name string) (handle, error) {
	fh := readPostHandle(&r.Reader)
	skipPost(&r.Reader)
	skipWCC(&r.Reader)
	err := r.check()
	if err == nil && fh == nil {
		var n node
		n, err = lookup(ctx, t.c, folder, name)
		fh = n.fh
	}
	if err != nil {
		t.undo(ctx, folder, name)
	}
	return fh, err
}

func (t tree) setAttr(ctx context.Context, fh handle, set remote.SetAttr, times bool) error {
	r, err := t.c.ask(ctx, procSetAttr, appendSetAttr(nil, fh, set, times))
	if err != nil {
		return err
	}
	skipWCC(&r.Reader)
	return r.check()
}

// Set implements remote.TreeSetter.
func (t tree) Set(ctx context.Context, p string, set remote.SetAttr) error {
	n, err := t.c.walk(ctx, t.c, p, true)
	if err != nil {
		return err
	}
	return t.setAttr(ctx, n.fh, set, false)
}

// Remove implements remote.Tree.
func (t tree) Remove(ctx context.Context, p string) error {
	folder, name, err := t.c.parent(ctx, p)
	if err != nil {
		return err
	}
	n, err := lookup(ctx, t.c, folder, name)
	if err != nil {
		return err
	}
	if n.Type == remote.Directory { // some servers remove these too
		return notRegular(n.Type)
	}
	r, err := t.c.ask(ctx, procRemove, appendName(nil, folder, name))
	if err == nil {
		skipWCC(&r.Reader)
		return r.check()
	}
	if r.resent && missed(err) && t.leadsElsewhere(ctx, folder, name, n.ID) { // an attempt before did it
		return nil
	}
	return err
}

// missed reports whether a change found that what it was to change is not as it was: a
// server that works on an attempt before may say either.
func missed(err error) bool {
	switch statusOf(err) {
	case nfsstat.NoEnt, nfsstat.Exist, nfsstat.Stale:
		return true
	}
	return false
}

// Rename implements remote.Tree.
func (t tree) Rename(ctx context.Context, from, to string) error {
	source, name, err := t.c.parent(ctx, from)
	if err != nil {
		return err
	}
	before, err := lookup(ctx, t.c, source, name)
	if err != nil {
		return err
	}
	folder, newName, err := t.c.parent(ctx, to)
	if err != nil {
		return err
	}
	r, err := t.c.ask(ctx, procRename, appendName(appendName(nil, source, name), folder, newName))
	if err == nil {
		skipWCC(&r.Reader)
		skipWCC(&r.Reader)
		return r.check()
	}
	if r.resent && missed(err) && t.leadsTo(ctx, folder, newName, before.ID) {
		return nil
	}
	return err
}

// Link implements remote.Tree.
func (t tree) Link(ctx context.Context, from, to string) error {
	object, err := t.c.walk(ctx, t.c, from, false)
	if err != nil {
		return err
	}
	folder, name, err := t.c.parent(ctx, to)
	if err != nil {
		return err
	}
	r, err := t.c.ask(ctx, procLink, appendName(xdr.AppendOpaque(nil, object.fh), folder, name))
	if err == nil {
		skipPost(&r.Reader)
		skipWCC(&r.Reader)
		return r.check()
	}
	if r.resent && missed(err) && t.leadsTo(ctx, folder, name, object.ID) {
		return nil
	}
	return err
}

// leadsTo reports whether a name is that of a file: then a change that the server calls
// impossible was made by an attempt before.
func (t tree) leadsTo(ctx context.Context, folder handle, name string, id remote.FileID) bool {
	n, err := lookup(ctx, t.c, folder, name)
	return err == nil && n.ID == id
}

// leadsElsewhere reports whether a name is not that of a file any more.
func (t tree) leadsElsewhere(ctx context.Context, folder handle, name string, id remote.FileID) bool {
	n, err := lookup(ctx, t.c, folder, name)
	return statusOf(err) == nfsstat.NoEnt || err == nil && n.ID != id
}

// MakeDir makes a folder.
func (t tree) MakeDir(ctx context.Context, p string, mode uint32) error {
	folder, name, err := t.c.parent(ctx, p)
	if err != nil {
		return err
	}
	r, err := t.c.ask(ctx, procMkDir, appendSet(appendName(nil, folder, name), remote.SetAttr{Mode: &mode}, false))
	if err == nil {
		readPostHandle(&r.Reader)
		skipPost(&r.Reader)
		skipWCC(&r.Reader)
		return r.check()
	}
	return err
}

// Space implements remote.TreeSetter.
func (t tree) Space(ctx context.Context, p string) (total, free int64, err error) {
	n, err := t.c.walk(ctx, t.c, p, true)
	if err != nil {
		return 0, 0, err
	}
	r, err := t.c.ask(ctx, procFSStat, xdr.AppendOpaque(nil, n.fh))
	if err != nil {
		return 0, 0, err
	}
	skipPost(&r.Reader)
	all := r.Uint64()
	r.Skip(8) // free, also to the superuser
	avail := r.Uint64()
	r.Skip(28) // files and invarsec
	return int64(min(all, math.MaxInt64)), int64(min(avail, math.MaxInt64)), r.check()
}

// List implements remote.Tree.
func (t tree) List(ctx context.Context, p string) ([]remote.Entry, error) {
	n, err := t.c.walk(ctx, t.c, p, true)
	if err != nil {
		return nil, err
	}
	if n.Type != remote.Directory {
		return nil, &nfsstat.Error{Op: "READDIR", Status: nfsstat.NotDir}
	}
	plus := true
	for range 5 { // a folder that changes all the time
		l := listing{c: t.c, fh: n.fh, plus: plus, seen: map[uint64]struct{}{}}
		err := l.read(ctx)
		switch s := statusOf(err); {
		case l.plus && isMissing(err):
			plus = false
		case s != nfsstat.NotSync && s != nfsstat.BadCookie:
			return l.entries, err
		}
	}
	return nil, faultf(block.Transient, "the folder changed again and again while it was read")
}
