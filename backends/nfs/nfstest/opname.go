package nfstest

import (
	"sluice/backends/nfs/xdr"
)

func (c *compound) putrootfh(*xdr.Reader) uint32 {
	c.fh, c.current = c.srv.tree.root, stateid{}
	return ok
}

func (c *compound) putfh(r *xdr.Reader) uint32 {
	handle := r.Opaque(128)
	if r.Err() != nil {
		return errBadXDR
	}
	n, status := c.srv.tree.at(handle)
	if status != ok {
		return status
	}
	c.fh, c.current = n, stateid{}
	return ok
}

func (c *compound) getfh(*xdr.Reader) uint32 {
	if c.fh == nil {
		return errNoFileHandle
	}
	c.out = xdr.AppendOpaque(c.out, c.fh.handle())
	return ok
}

func (c *compound) savefh(*xdr.Reader) uint32 {
	if c.fh == nil {
		return errNoFileHandle
	}
	c.saved, c.savedState = c.fh, c.current
	return ok
}

func (c *compound) restorefh(*xdr.Reader) uint32 {
	if c.saved == nil {
		return errRestoreFH
	}
	c.fh, c.current = c.saved, c.savedState
	return ok
}

func (c *compound) lookupName(r *xdr.Reader) uint32 {
	name := r.String(4096)
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.dir(); status != ok {
		return status
	}
	if status := badName(name); status != ok {
		return status
	}
	n := c.fh.find(name)
	if n == nil {
		return errNoEnt
	}
	c.fh, c.current = n, stateid{}
	return ok
}

func (c *compound) lookupParent(*xdr.Reader) uint32 {
	if status := c.dir(); status != ok {
		return status
	}
	if c.fh == c.srv.tree.root {
		return errNoEnt
	}
	c.fh, c.current = c.fh.parent, stateid{}
	return ok
}

func (c *compound) readlink(*xdr.Reader) uint32 {
	if c.fh == nil {
		return errNoFileHandle
	}
	if c.fh.kind != kindSymlink {
		return errWrongType
	}
	c.out = xdr.AppendString(c.out, c.fh.target)
	return ok
}

// secinfoNoName: AUTH_SYS and AUTH_NONE will do. It takes the file handle away.
func (c *compound) secinfoNoName(r *xdr.Reader) uint32 {
	r.Skip(4)
	if r.Err() != nil {
		return errBadXDR
	}
	if c.fh == nil {
		return errNoFileHandle
	}
	for _, v := range []uint32{2, authSys, authNone} {
		c.out = xdr.AppendUint32(c.out, v)
	}
	c.fh = nil
	return ok
}

func (c *compound) create(r *xdr.Reader) uint32 {
	kind, target := r.Uint32(), ""
	switch kind {
	case kindSymlink:
		target = r.String(4096)
	case 3, 4: // devices
		r.Skip(8)
	}
	name := r.String(4096)
	ch, set, status := readChanges(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if status == ok {
		status = c.dir()
	}
	if status == ok {
		status = badName(name)
	}
	switch {
	case status != ok:
		return status
	case kind != kindDir && kind != kindSymlink:
		return errBadType
	case c.fh.find(name) != nil:
		return errExist
	case ch.size != nil:
		return errInval
	}
	before := c.fh.change
	n := c.srv.tree.make(kind, 0o755)
	n.target = target
	n.apply(&ch)
	c.srv.tree.link(c.fh, name, n)
	c.changeInfo(before, c.fh)
	c.out = set.append(c.out)
	c.fh, c.current = n, stateid{}
	return ok
}

func (c *compound) remove(r *xdr.Reader) uint32 {
	name := r.String(4096)
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.dir(); status != ok {
		return status
	}
	if status := badName(name); status != ok {
		return status
	}
	n := c.fh.find(name)
	switch {
	case n == nil:
		return errNoEnt
	case len(n.entries) > 0:
		return errNotEmpty
	}
	before := c.fh.change
	c.srv.tree.unlink(c.fh, name)
	c.changeInfo(before, c.fh)
	return ok
}

// two checks the directories of RENAME.
func (c *compound) two() uint32 {
	switch {
	case c.fh == nil || c.saved == nil:
		return errNoFileHandle
	case c.fh.kind != kindDir || c.saved.kind != kindDir:
		return errNotDir
	}
	return ok
}

func (c *compound) rename(r *xdr.Reader) uint32 {
	old, name := r.String(4096), r.String(4096)
	if r.Err() != nil {
		return errBadXDR
	}
	for _, status := range []uint32{c.two(), badName(old), badName(name)} {
		if status != ok {
			return status
		}
	}
	source, target := c.saved.change, c.fh.change
	if status := c.srv.tree.rename(c.saved, old, c.fh, name); status != ok {
		return status
	}
	c.changeInfo(source, c.saved)
	c.changeInfo(target, c.fh)
	return ok
}

func (c *compound) link(r *xdr.Reader) uint32 {
	name := r.String(4096)
	if r.Err() != nil {
		return errBadXDR
	}
	if c.saved == nil {
		return errNoFileHandle
	}
	for _, status := range []uint32{c.dir(), badName(name)} {
		if status != ok {
			return status
		}
	}
	switch {
	case c.saved.kind == kindDir:
		return errIsDir
	case c.fh.find(name) != nil:
		return errExist
	}
	before := c.fh.change
	c.srv.tree.link(c.fh, name, c.saved)
	c.changeInfo(before, c.fh)
	return ok
}

func (c *compound) readdir(r *xdr.Reader) uint32 {
	cookie := r.Uint64()
	r.Skip(8) // cookies are good for ever, so the verifier is zero
	r.Skip(4) // dircount is a hint
	limit, want := r.Uint32(), readBitmap(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.dir(); status != ok {
		return status
	}
	if cookie == 1 || cookie == 2 {
		return errBadCookie
	}
	limit = min(limit, c.srv.limits.ReadSize)
	if c.session != nil {
		limit = min(limit, c.session.limits.MaxResponse-min(c.session.limits.MaxResponse, uint32(len(c.out))))
	}
	const tail = 8 // no more entries, and eof
	start, eof, entries := len(c.out), true, 0
	c.out = append(c.out, make([]byte, 8)...)
	for _, e := range c.fh.entries {
		if e.cookie <= cookie {
			continue
		}
		at := len(c.out)
		c.out = xdr.AppendString(xdr.AppendUint64(xdr.AppendBool(c.out, true), e.cookie), e.name)
		c.appendAttrs(e.node, want)
		if len(c.out)-start+tail > int(limit) {
			c.out, eof = c.out[:at], false
			break
		}
		entries++
	}
	if entries == 0 && !eof {
		c.out = c.out[:start]
		return errTooSmall
	}
	c.out = xdr.AppendBool(xdr.AppendBool(c.out, false), eof)
	return ok
}
