package nfstest

import (
	"time"

	"sluice/backends/nfs/xdr"
)

// nfs3 are the procedures of NFSv3 (RFC 1813 section 3.3).
var nfs3 = [...]proc{
	{name: "NULL", empty: noStatus, do: nothing},
	{name: "GETATTR", do: (*request).getattr3},
	{name: "SETATTR", empty: 2, do: (*request).setattr3},
	{name: "LOOKUP", empty: 1, do: (*request).lookup3},
	{name: "ACCESS", empty: 1, do: (*request).access3},
	{name: "READLINK", empty: 1, do: (*request).readlink3},
	{name: "READ", empty: 1, do: (*request).read3},
	{name: "WRITE", empty: 2, do: (*request).write3},
	{name: "CREATE", empty: 2, do: (*request).create3},
	{name: "MKDIR", empty: 2, do: (*request).mkdir3},
	{name: "SYMLINK", empty: 2, do: (*request).symlink3},
	{name: "MKNOD", empty: 2, do: func(*request) uint32 { return errNotSupp }},
	{name: "REMOVE", empty: 2, do: (*request).remove3},
	{name: "RMDIR", empty: 2, do: (*request).rmdir3},
	{name: "RENAME", empty: 4, do: (*request).rename3},
	{name: "LINK", empty: 3, do: (*request).link3},
	{name: "READDIR", empty: 1, do: (*request).readdir3},
	{name: "READDIRPLUS", empty: 1, do: (*request).readdirplus3},
	{name: "FSSTAT", empty: 1, do: (*request).fsstat3},
	{name: "FSINFO", empty: 1, do: (*request).fsinfo3},
	{name: "PATHCONF", empty: 1, do: (*request).pathconf3},
	{name: "COMMIT", empty: 2, do: (*request).commit3},
}

func (q *request) put32(vs ...uint32) {
	for _, v := range vs {
		q.out = xdr.AppendUint32(q.out, v)
	}
}

func (q *request) put64(vs ...uint64) {
	for _, v := range vs {
		q.out = xdr.AppendUint64(q.out, v)
	}
}

func (q *request) putTime(t time.Time) { q.put32(uint32(t.Unix()), uint32(t.Nanosecond())) }

// putAttrs appends fattr3.
func (q *request) putAttrs(n *inode) {
	q.put32(n.kind, n.mode, n.links, n.uid, n.gid)
	q.put64(n.size(), n.used())
	q.put32(0, 0)
	q.put64(fsid, n.id)
	q.putTime(n.atime)
	q.putTime(n.mtime)
	q.putTime(n.ctime)
}

// post appends post_op_attr.
func (q *request) post(n *inode) {
	q.put32(1)
	q.putAttrs(n)
}

// wcc appends wcc_data without what was before.
func (q *request) wcc(n *inode) {
	q.put32(0)
	q.post(n)
}

// node takes a file handle off the arguments.
func (q *request) node() (*inode, uint32) {
	handle := q.args.Opaque(64)
	if q.args.Err() != nil {
		return nil, errInval
	}
	return q.srv.tree.at(handle)
}

// regular takes the handle of a file.
func (q *request) regular() (*inode, uint32) {
	n, status := q.node()
	switch {
	case status != ok:
		return nil, status
	case n.kind == kindDir:
		return nil, errIsDir
	case n.kind != kindFile:
		return nil, errInval
	}
	return n, ok
}

// where takes diropargs3. A name that cannot be one is an error behind all arguments.
func (q *request) where() (dir *inode, name string, status uint32) {
	dir, status = q.node()
	name = q.args.String(4096)
	if status == ok && dir.kind != kindDir {
		status = errNotDir
	}
	if status != ok {
		return nil, "", status
	}
	switch status = badName(name); status {
	case ok, errNameTooLong:
		return dir, name, status
	}
	return dir, name, errInval
}

// changes3 takes sattr3.
func (q *request) changes3() (ch changes) {
	r := &q.args
	for _, f := range []**uint32{&ch.mode, &ch.uid, &ch.gid} {
		if r.Bool() {
			v := r.Uint32()
			*f = &v
		}
	}
	if r.Bool() {
		v := r.Uint64()
		ch.size = &v
	}
	for _, f := range []**time.Time{&ch.atime, &ch.mtime} {
		t := time.Now()
		switch r.Uint32() {
		case 0:
			continue
		case 1:
		case 2:
			seconds := int64(r.Uint32())
			t = time.Unix(seconds, int64(r.Uint32()))
		default:
			r.Fail()
		}
		*f = &t
	}
	return ch
}

func (q *request) getattr3() uint32 {
	n, status := q.node()
	if status == ok {
		q.putAttrs(n)
	}
	return status
}

func (q *request) setattr3() uint32 {
	n, status := q.node()
	ch := q.changes3()
	if q.args.Bool() { // only if the ctime is this
		seconds, nano := q.args.Uint32(), q.args.Uint32()
		if n != nil && (seconds != uint32(n.ctime.Unix()) || nano != uint32(n.ctime.Nanosecond())) {
			status = errNotSync
		}
	}
	if status != ok || q.args.Err() != nil {
		return status
	}
	if status = n.apply(&ch); status == ok {
		q.wcc(n)
	}
	return status
}

func (q *request) lookup3() uint32 {
	dir, name, status := q.where()
	n := dir
	switch {
	case dir != nil && name == ".":
	case dir != nil && name == "..":
		n = dir.parent
	case status != ok:
		return status
	default:
		if n = dir.find(name); n == nil {
			return errNoEnt
		}
	}
	q.out = xdr.AppendOpaque(q.out, n.handle())
	q.post(n)
	q.post(dir)
	return ok
}

func (q *request) access3() uint32 {
	n, status := q.node()
	want := q.args.Uint32()
	if status != ok {
		return status
	}
	q.post(n)
	q.put32(want & n.accessible())
	return ok
}

func (q *request) readlink3() uint32 {
	n, status := q.node()
	switch {
	case status != ok:
		return status
	case n.kind != kindSymlink:
		return errInval
	}
	q.post(n)
	q.out = xdr.AppendString(q.out, n.target)
	return ok
}

func (q *request) read3() uint32 {
	n, status := q.regular()
	offset, count := q.args.Uint64(), q.args.Uint32()
	if status != ok {
		return status
	}
	p, eof := n.read(offset, min(count, q.srv.limits.ReadSize))
	q.post(n)
	q.put32(uint32(len(p)))
	q.out = xdr.AppendOpaque(xdr.AppendBool(q.out, eof), p)
	return ok
}

func (q *request) write3() uint32 {
	n, status := q.regular()
	offset, count, stable, p := q.args.Uint64(), q.args.Uint32(), q.args.Uint32(), q.args.Opaque(maxRecord)
	switch {
	case status != ok || q.args.Err() != nil:
		return status
	case stable > 2 || count > uint32(len(p)):
		return errInval
	}
	count, committed, status := q.srv.store(n, offset, stable, p[:count])
	if status != ok {
		return status
	}
	q.wcc(n)
	q.put32(count, committed)
	q.out = append(q.out, q.srv.verifier[:]...)
	return ok
}

func (q *request) commit3() uint32 {
	n, status := q.regular()
	offset, count := q.args.Uint64(), q.args.Uint32()
	switch {
	case status != ok || q.args.Err() != nil:
		return status
	case offset > maxSize:
		return errInval
	}
	n.data.commit(int64(offset), int64(count))
	q.wcc(n)
	q.out = append(q.out, q.srv.verifier[:]...)
	return ok
}

func (q *request) fsstat3() uint32 {
	n, status := q.node()
	if status != ok {
		return status
	}
	q.post(n)
	q.put64(freeSpace, freeSpace, freeSpace, 1<<20, 1<<20, 1<<20)
	q.put32(0)
	return ok
}

func (q *request) fsinfo3() uint32 {
	const linksAndTimes = 1 | 2 | 8 | 16
	n, status := q.node()
	if status != ok {
		return status
	}
	q.post(n)
	l := &q.srv.limits
	q.put32(l.ReadSize, l.ReadSize, 1, l.WriteSize, l.WriteSize, 1, 4096)
	q.put64(maxSize)
	q.put32(0, 1, linksAndTimes)
	return ok
}

func (q *request) pathconf3() uint32 {
	n, status := q.node()
	if status != ok {
		return status
	}
	q.post(n)
	q.put32(1000, maxName, 1, 1, 0, 1)
	return ok
}

func (q *request) readdir3() uint32     { return q.list(false) }
func (q *request) readdirplus3() uint32 { return q.list(true) }

// list is READDIR, and with plus READDIRPLUS. Cookies are good for ever.
func (q *request) list(plus bool) uint32 {
	dir, status := q.node()
	cookie := q.args.Uint64()
	q.args.Skip(8)
	limit := q.args.Uint32()
	if plus {
		limit = q.args.Uint32()
	}
	switch {
	case status != ok || q.args.Err() != nil:
		return status
	case dir.kind != kindDir:
		return errNotDir
	}
	limit = min(limit, q.srv.limits.ReadSize)
	const tail = 8 // no more entries, and eof
	start, eof, entries := len(q.out), true, 0
	q.post(dir)
	q.put64(0)
	for _, e := range dir.entries {
		if e.cookie <= cookie {
			continue
		}
		at := len(q.out)
		q.put32(1)
		q.put64(e.node.id)
		q.out = xdr.AppendString(q.out, e.name)
		q.put64(e.cookie)
		if plus {
			q.post(e.node)
			q.put32(1)
			q.out = xdr.AppendOpaque(q.out, e.node.handle())
		}
		if len(q.out)-start+tail > int(limit) {
			q.out, eof = q.out[:at], false
			break
		}
		entries++
	}
	if entries == 0 && !eof {
		return errTooSmall
	}
	q.put32(0)
	q.out = xdr.AppendBool(q.out, eof)
	return ok
}

// made ends CREATE, MKDIR and SYMLINK.
func (q *request) made(n, dir *inode) uint32 {
	q.put32(1)
	q.out = xdr.AppendOpaque(q.out, n.handle())
	q.post(n)
	q.wcc(dir)
	return ok
}

// fresh makes a node with a name that is not there yet.
func (q *request) fresh(dir *inode, name string, kind uint32, ch *changes) (*inode, uint32) {
	if dir.find(name) != nil {
		return nil, errExist
	}
	n := q.srv.tree.make(kind, 0o644)
	if status := n.apply(ch); status != ok {
		delete(q.srv.tree.nodes, n.id)
		return nil, status
	}
	q.srv.tree.link(dir, name, n)
	return n, ok
}

func (q *request) create3() uint32 {
	dir, name, status := q.where()
	how, ch, verifier := q.args.Uint32(), changes{}, [8]byte{}
	switch how {
	case createUnchecked, createGuarded:
		ch = q.changes3()
	case createExclusive:
		copy(verifier[:], q.args.Fixed(8))
	default:
		q.args.Fail()
	}
	if status != ok || q.args.Err() != nil {
		return status
	}
	n := dir.find(name)
	switch {
	case n == nil:
		if n, status = q.fresh(dir, name, kindFile, &ch); status == ok {
			n.created = verifier
		}
	case how == createGuarded || n.kind != kindFile || how == createExclusive && n.created != verifier:
		status = errExist
	case how == createUnchecked && ch.size != nil && *ch.size == 0:
		status = n.apply(&changes{size: ch.size})
	}
	if status != ok {
		return status
	}
	return q.made(n, dir)
}

func (q *request) mkdir3() uint32 {
	dir, name, status := q.where()
	ch := q.changes3()
	if status != ok || q.args.Err() != nil {
		return status
	}
	ch.size = nil
	n, status := q.fresh(dir, name, kindDir, &ch)
	if status != ok {
		return status
	}
	return q.made(n, dir)
}

func (q *request) symlink3() uint32 {
	dir, name, status := q.where()
	ch := q.changes3()
	target := q.args.String(4096)
	if status != ok || q.args.Err() != nil {
		return status
	}
	ch.size = nil
	n, status := q.fresh(dir, name, kindSymlink, &ch)
	if status != ok {
		return status
	}
	n.target = target
	return q.made(n, dir)
}

func (q *request) remove3() uint32 { return q.unlink3(false) }
func (q *request) rmdir3() uint32  { return q.unlink3(true) }

func (q *request) unlink3(isDir bool) uint32 {
	dir, name, status := q.where()
	if status != ok {
		return status
	}
	n := dir.find(name)
	switch {
	case n == nil:
		return errNoEnt
	case isDir && n.kind != kindDir:
		return errNotDir
	case !isDir && n.kind == kindDir:
		return errIsDir
	case len(n.entries) > 0:
		return errNotEmpty
	}
	q.srv.tree.unlink(dir, name)
	q.wcc(dir)
	return ok
}

func (q *request) rename3() uint32 {
	from, old, status := q.where()
	to, name, second := q.where()
	if status == ok {
		status = second
	}
	if status != ok || q.args.Err() != nil {
		return status
	}
	if status = q.srv.tree.rename(from, old, to, name); status == ok {
		q.wcc(from)
		q.wcc(to)
	}
	return status
}

func (q *request) link3() uint32 {
	n, status := q.node()
	dir, name, second := q.where()
	if status == ok {
		status = second
	}
	switch {
	case status != ok || q.args.Err() != nil:
		return status
	case n.kind == kindDir:
		return errIsDir
	case dir.find(name) != nil:
		return errExist
	}
	q.srv.tree.link(dir, name, n)
	q.post(n)
	q.wcc(dir)
	return ok
}
