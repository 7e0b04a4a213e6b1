package nfstest

import (
	"encoding/binary"

	"sluice/backends/nfs/xdr"
)

// whole is the range that ALLOCATE and DEALLOCATE read, checked.
func (c *compound) whole(r *xdr.Reader) (from, length int64, status uint32) {
	id, offset, count := readStateid(r), r.Uint64(), r.Uint64()
	if r.Err() != nil {
		return 0, 0, errBadXDR
	}
	if status := c.file(); status != ok {
		return 0, 0, status
	}
	if status := c.mayDo(id, accessWrite); status != ok {
		return 0, 0, status
	}
	switch {
	case offset+count < offset:
		return 0, 0, errInval
	case offset > maxSize || count > maxSize || offset+count > maxSize:
		return 0, 0, errFBig
	}
	return int64(offset), int64(count), ok
}

func (c *compound) allocate(r *xdr.Reader) uint32 {
	offset, length, status := c.whole(r)
	if status != ok {
		return status
	}
	if length > maxReserve {
		return errNoSpace
	}
	c.fh.data.reserve(offset, length)
	c.fh.touch(true)
	return ok
}

func (c *compound) deallocate(r *xdr.Reader) uint32 {
	offset, length, status := c.whole(r)
	if status != ok {
		return status
	}
	c.fh.data.punch(offset, length)
	c.fh.touch(true)
	return ok
}

func (c *compound) seek(r *xdr.Reader) uint32 {
	id, offset, what := readStateid(r), r.Uint64(), r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	if status := c.mayDo(id, accessRead); status != ok {
		return status
	}
	const nxio, unionNotSupp = 6, 10090
	switch {
	case what > 1:
		return unionNotSupp
	case offset >= c.fh.size():
		return nxio
	}
	at := uint64(c.fh.data.seek(int64(offset), what == 0))
	if at >= c.fh.size() && what == 0 {
		c.out = xdr.AppendUint64(xdr.AppendBool(c.out, true), c.fh.size())
		return ok
	}
	c.out = xdr.AppendUint64(xdr.AppendBool(c.out, at >= c.fh.size()), at)
	return ok
}

func (c *compound) readPlus(r *xdr.Reader) uint32 {
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
	size := c.fh.size()
	end := min(size, offset+uint64(min(count, c.srv.limits.ReadSize)))
	head := len(c.out)
	c.out = xdr.AppendUint32(xdr.AppendBool(c.out, end >= size || offset >= size), 0)
	n := uint32(0)
	for at := offset; at < end; n++ {
		data, hole := uint64(c.fh.data.seek(int64(at), true)), uint64(0)
		if data > at {
			hole = min(data, end) - at
			c.out = xdr.AppendUint64(xdr.AppendUint64(xdr.AppendUint32(c.out, 1), at), hole)
			at += hole
			continue
		}
		next := min(end, uint64(c.fh.data.seek(int64(at), false)))
		c.out = xdr.AppendUint64(xdr.AppendUint32(c.out, 0), at)
		c.out = xdr.AppendOpaque(c.out, c.fh.data.now.bytes(int64(at), int64(next-at)))
		at = next
	}
	binary.BigEndian.PutUint32(c.out[head+4:], n)
	return ok
}

// pair is what COPY and CLONE have in common: from the saved file into the current one.
type pair struct {
	from, to      stateid
	source, start uint64
	count         uint64
}

func readPair(r *xdr.Reader) (p pair) {
	p.from, p.to = readStateid(r), readStateid(r)
	p.source, p.start, p.count = r.Uint64(), r.Uint64(), r.Uint64()
	return p
}

// checkPair checks files, stateids and range, and makes a count of 0 what is left of
// the source.
func (c *compound) checkPair(p *pair) uint32 {
	if status := c.file(); status != ok {
		return status
	}
	switch {
	case c.saved == nil:
		return errNoFileHandle
	case c.saved.kind != kindFile:
		return errWrongType
	}
	if status := c.mayDo(p.to, accessWrite); status != ok {
		return status
	}
	c.fh, c.saved = c.saved, c.fh
	c.current, c.savedState = c.savedState, c.current
	status := c.mayDo(p.from, accessRead)
	c.fh, c.saved = c.saved, c.fh
	c.current, c.savedState = c.savedState, c.current
	if status != ok {
		return status
	}
	size := c.saved.size()
	if p.count == 0 && p.source <= size {
		p.count = size - p.source
	}
	switch {
	case p.source+p.count < p.source || p.source+p.count > size:
		return errInval
	case p.start > maxSize || p.start+p.count > maxSize:
		return errFBig
	case c.fh == c.saved && p.source < p.start+p.count && p.start < p.source+p.count:
		return errInval
	}
	return ok
}

// transfer copies; what is a hole in the source becomes one.
func (c *compound) transfer(p *pair, count uint64) {
	from, to := c.saved.data, c.fh.data
	for done := uint64(0); done < count; {
		at := int64(p.source + done)
		data := from.seek(at, true)
		if data > at {
			n := min(data-at, int64(count-done))
			to.punch(int64(p.start+done), n)
			done += uint64(n)
			continue
		}
		n := min(from.seek(at, false)-at, int64(count-done), 1<<20)
		to.write(from.now.bytes(at, n), int64(p.start+done), false)
		done += uint64(n)
	}
	to.now.size = max(to.now.size, int64(p.start+count))
	c.fh.touch(true)
}

// maxCopy is what one COPY does at most, so that clients see short ones.
const maxCopy = 64 << 20

// copy is synchronous, whatever was asked for, and unstable.
func (c *compound) copy(r *xdr.Reader) uint32 {
	p := readPair(r)
	r.Bool() // consecutive: always
	r.Bool() // synchronous: always
	servers := r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	if servers != 0 {
		return errNotSupp
	}
	if status := c.checkPair(&p); status != ok {
		return status
	}
	count := min(p.count, maxCopy)
	c.transfer(&p, count)
	c.out = xdr.AppendUint32(c.out, 0) // no stateid of a callback
	c.out = xdr.AppendUint32(xdr.AppendUint64(c.out, count), 0)
	c.out = append(c.out, c.srv.verifier[:]...)
	c.out = xdr.AppendBool(xdr.AppendBool(c.out, true), true)
	return ok
}

// clone is all or nothing, in units of clone_blksize but at the end of the source.
func (c *compound) clone(r *xdr.Reader) uint32 {
	p := readPair(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if status := c.checkPair(&p); status != ok {
		return status
	}
	if p.source%pageSize != 0 || p.start%pageSize != 0 || p.count%pageSize != 0 && p.source+p.count != c.saved.size() {
		return errInval
	}
	c.transfer(&p, p.count)
	return ok
}
