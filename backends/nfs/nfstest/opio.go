package nfstest

import (
	"sluice/backends/nfs/xdr"
)

const (
	accessRead  = 1
	accessWrite = 2
)

func (c *compound) getattr(r *xdr.Reader) uint32 {
	want := readBitmap(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if c.fh == nil {
		return errNoFileHandle
	}
	if want.has(attrSetAtime) || want.has(attrSetMtime) {
		return errInval
	}
	c.appendAttrs(c.fh, want)
	return ok
}

// setattr says which attributes were set, also when none were.
func (c *compound) setattr(r *xdr.Reader) uint32 {
	id := readStateid(r)
	ch, set, status := readChanges(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if status == ok && c.fh == nil {
		status = errNoFileHandle
	}
	if status == ok && ch.size != nil {
		if status = c.file(); status == ok {
			status = c.mayDo(id, accessWrite)
		}
	}
	if status == ok {
		status = c.fh.apply(&ch)
	}
	if status != ok {
		set = bitmap{}
	}
	c.out = set.append(c.out)
	return status
}

// mayDo checks the stateid of an access to the data of the current file (RFC 8881
// section 9.1.2 and 9.7).
func (c *compound) mayDo(id stateid, access uint32) uint32 {
	st, status := c.lookup(id)
	if status != ok {
		return status
	}
	if st == nil {
		if c.inst.grace {
			return errGrace
		}
		for _, other := range c.fh.states {
			if other.kind == stateOpen && other.deny&access != 0 && id.other != allOnes {
				return errLocked
			}
		}
		return ok
	}
	if st.file != c.fh {
		return errBadStateID
	}
	granted := st.access
	if st.kind == stateLock {
		granted = st.open.access
	}
	// A file that may be written may be read: servers read to fill blocks.
	if granted&access == 0 && access == accessWrite {
		return errOpenMode
	}
	return ok
}

func (c *compound) read(r *xdr.Reader) uint32 {
	id, offset, count := readStateid(r), r.Uint64(), r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	if status := c.mayDo(id, accessRead); status != ok {
		return status
	}
	if c.tooLong(count) {
		return errRepTooBig
	}
	p, eof := c.fh.read(offset, min(count, c.srv.limits.ReadSize))
	c.out = xdr.AppendOpaque(xdr.AppendBool(c.out, eof), p)
	return ok
}

// tooLong reports whether a reply with that many bytes would be larger than the
// session allows.
func (c *compound) tooLong(count uint32) bool {
	count = min(count, c.srv.limits.ReadSize)
	return c.session != nil && uint64(len(c.out))+uint64(count) > uint64(c.session.limits.MaxResponse)
}

// read reads at most count bytes; eof says whether the file ends with them.
func (n *inode) read(offset uint64, count uint32) (p []byte, eof bool) {
	if offset >= n.size() {
		return nil, true
	}
	p = n.data.now.bytes(int64(offset), int64(count))
	return p, offset+uint64(len(p)) >= n.size()
}

// store is what WRITE of both versions does. It returns what was taken of p, and its
// stability, or a status.
func (s *Server) store(n *inode, offset uint64, stable uint32, p []byte) (count, committed, status uint32) {
	p = p[:min(len(p), int(s.limits.WriteSize))]
	if offset > maxSize || offset+uint64(len(p)) > maxSize {
		return 0, 0, errFBig
	}
	if stable != 0 {
		stable = 2
	}
	s.writes = append(s.writes, Write{File: n.id, Offset: offset, Length: len(p), Stable: stable})
	if len(p) > 0 {
		n.data.write(p, int64(offset), stable != 0)
		n.touch(true)
	}
	return uint32(len(p)), stable, ok
}

func (c *compound) write(r *xdr.Reader) uint32 {
	id, offset, stable, p := readStateid(r), r.Uint64(), r.Uint32(), r.Opaque(maxRecord)
	if r.Err() != nil || stable > 2 {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	if status := c.mayDo(id, accessWrite); status != ok {
		return status
	}
	count, committed, status := c.srv.store(c.fh, offset, stable, p)
	if status != ok {
		return status
	}
	c.out = xdr.AppendUint32(xdr.AppendUint32(c.out, count), committed)
	c.out = append(c.out, c.srv.verifier[:]...)
	return ok
}

func (c *compound) commit(r *xdr.Reader) uint32 {
	offset, count := r.Uint64(), r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	if offset > maxSize {
		return errInval
	}
	c.fh.data.commit(int64(offset), int64(count))
	c.out = append(c.out, c.srv.verifier[:]...)
	return ok
}

func (c *compound) access(r *xdr.Reader) uint32 {
	want := r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	if c.fh == nil {
		return errNoFileHandle
	}
	can := want & c.fh.accessible()
	c.out = xdr.AppendUint32(xdr.AppendUint32(c.out, can), can)
	return ok
}

// accessible are the ACCESS bits that make sense for a node: everything is allowed.
func (n *inode) accessible() uint32 {
	const read, lookup, modify, extend, remove, execute = 1, 2, 4, 8, 16, 32
	if n.kind == kindDir {
		return read | lookup | modify | extend | remove
	}
	return read | modify | extend | execute
}
