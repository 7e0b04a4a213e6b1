package nfstest

import (
	"sluice/backends/nfs/xdr"
)

// readRange reads the type, then offset and length after what between reads.
func byteRangeOf(offset, length uint64, write bool) (byteRange, uint32) {
	switch {
	case length == 0 || length != 1<<64-1 && offset+length < offset:
		return byteRange{}, errInval
	case length == 1<<64-1:
		return byteRange{offset, 1<<64 - 1, write}, ok
	}
	return byteRange{offset, offset + length, write}, ok
}

func isWriteLock(kind uint32) bool { return kind == 2 || kind == 4 }

// blocks is a lock of somebody else that forbids r.
func (c *compound) blocks(r byteRange, cl *client, owner string) (*state, byteRange) {
	for _, st := range c.fh.states {
		if st.kind != stateLock || st.client == cl && st.owner == owner {
			continue
		}
		for _, other := range st.ranges {
			if other.from < r.to && r.from < other.to && (other.write || r.write) {
				return st, other
			}
		}
	}
	return nil, byteRange{}
}

// denied appends LOCK4denied.
func (c *compound) denied(st *state, r byteRange) uint32 {
	length, kind := r.to-r.from, uint32(1)
	if r.to == 1<<64-1 {
		length = r.to
	}
	if r.write {
		kind = 2
	}
	c.out = xdr.AppendUint32(xdr.AppendUint64(xdr.AppendUint64(c.out, r.from), length), kind)
	c.out = xdr.AppendString(xdr.AppendUint64(c.out, st.client.id), st.owner)
	return errDenied
}

// without takes a range away from ranges.
func without(ranges []byteRange, r byteRange) (rest []byteRange) {
	for _, other := range ranges {
		if other.to <= r.from || r.to <= other.from {
			rest = append(rest, other)
			continue
		}
		if other.from < r.from {
			rest = append(rest, byteRange{other.from, r.from, other.write})
		}
		if r.to < other.to {
			rest = append(rest, byteRange{r.to, other.to, other.write})
		}
	}
	return rest
}

func (c *compound) lock(r *xdr.Reader) uint32 {
	kind, reclaim, offset, length := r.Uint32(), r.Bool(), r.Uint64(), r.Uint64()
	fresh, owner, id := r.Bool(), "", stateid{}
	if fresh {
		r.Skip(4)
		id = readStateid(r)
		r.Skip(4 + 8)
		owner = r.String(1024)
	} else {
		id = readStateid(r)
		r.Skip(4)
	}
	if r.Err() != nil || kind < 1 || kind > 4 {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	switch {
	case c.inst.grace && !reclaim:
		return errGrace
	case !c.inst.grace && reclaim:
		return errNoGrace
	}
	want, status := byteRangeOf(offset, length, isWriteLock(kind))
	if status != ok {
		return status
	}
	st, open, status := c.locker(id, fresh, owner)
	if status != ok {
		return status
	}
	if want.write && open.access&accessWrite == 0 || !want.write && open.access&accessRead == 0 {
		return errOpenMode
	}
	if st != nil {
		owner = st.owner
	}
	if other, r := c.blocks(want, c.session.client, owner); other != nil {
		return c.denied(other, r)
	}
	if st == nil {
		st = c.srv.newState(stateLock, c.session.client, owner, c.fh)
		st.open = open
	} else {
		st.seq++
	}
	st.ranges = append(without(st.ranges, want), want)
	c.setCurrent(st)
	return ok
}

// locker finds the lock state and the open that a LOCK names; st is nil if the owner
// has no state yet.
func (c *compound) locker(id stateid, fresh bool, owner string) (st, open *state, status uint32) {
	if !fresh {
		if st, status = c.held(id, stateLock); status != ok {
			return nil, nil, status
		}
		return st, st.open, ok
	}
	if open, status = c.held(id, stateOpen); status != ok {
		return nil, nil, status
	}
	for _, other := range c.fh.states {
		if other.kind == stateLock && other.open == open && other.owner == owner {
			return other, open, ok
		}
	}
	return nil, open, ok
}

func (c *compound) lockt(r *xdr.Reader) uint32 {
	kind, offset, length := r.Uint32(), r.Uint64(), r.Uint64()
	r.Skip(8)
	owner := r.String(1024)
	if r.Err() != nil || kind < 1 || kind > 4 {
		return errBadXDR
	}
	if status := c.file(); status != ok {
		return status
	}
	if c.inst.grace {
		return errGrace
	}
	want, status := byteRangeOf(offset, length, isWriteLock(kind))
	if status != ok {
		return status
	}
	if other, r := c.blocks(want, c.session.client, owner); other != nil {
		return c.denied(other, r)
	}
	return ok
}

func (c *compound) locku(r *xdr.Reader) uint32 {
	r.Skip(4 + 4)
	id, offset, length := readStateid(r), r.Uint64(), r.Uint64()
	if r.Err() != nil {
		return errBadXDR
	}
	st, status := c.held(id, stateLock)
	if status != ok {
		return status
	}
	gone, status := byteRangeOf(offset, length, false)
	if status != ok {
		return status
	}
	st.ranges = without(st.ranges, gone)
	st.seq++
	c.setCurrent(st)
	return ok
}
