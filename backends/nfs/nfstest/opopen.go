package nfstest

import (
	"slices"

	"sluice/backends/nfs/xdr"
)

// Claims of OPEN (RFC 8881 section 18.16.1).
const (
	claimNull     = 0
	claimPrevious = 1
	claimFH       = 4
)

// Ways to create.
const (
	createUnchecked   = 0
	createGuarded     = 1
	createExclusive   = 2
	createExclusive41 = 3
)

const (
	resultPOSIXLocks              = 4
	resultPreserveUnlinked        = 8
	delegationNone                = 0
	delegationRead                = 1
	delegationWrite               = 2
	accessAll              uint32 = 3
)

type openArgs struct {
	access, deny uint32
	owner        string
	create       bool
	how          uint32
	verifier     [8]byte
	changes      changes
	set          bitmap
	claim        uint32
	name         string
	delegation   uint32 // that is reclaimed
}

func readOpen(r *xdr.Reader) (a openArgs, status uint32) {
	r.Skip(4) // seqid is of 4.0
	a.access, a.deny = r.Uint32()&0xff, r.Uint32()
	r.Skip(8) // so is the client id
	a.owner = r.String(1024)
	switch r.Uint32() {
	case 0:
	case 1:
		a.create = true
		if a.how = r.Uint32(); a.how > createExclusive41 {
			r.Fail()
		}
		if a.how >= createExclusive {
			copy(a.verifier[:], r.Fixed(8))
		}
		if a.how != createExclusive {
			a.changes, a.set, status = readChanges(r)
		}
	default:
		r.Fail()
	}
	switch a.claim = r.Uint32(); a.claim {
	case claimNull:
		a.name = r.String(4096)
	case claimPrevious:
		a.delegation = r.Uint32()
	case claimFH:
	default:
		status = errNotSupp
	}
	for i := range a.set {
		if a.how == createExclusive41 && a.set[i]&^exclusive[i] != 0 {
			status = errInval
		}
	}
	if r.Err() != nil {
		status = errBadXDR
	}
	return a, status
}

func (c *compound) open(r *xdr.Reader) uint32 {
	a, status := readOpen(r)
	if status != ok {
		return status
	}
	if a.access == 0 || a.access > 3 || a.deny > 3 {
		return errInval
	}
	if status := c.inGrace(a.claim); status != ok {
		return status
	}
	file, dir, before := c.fh, c.fh, uint64(0)
	if a.claim == claimNull {
		if status := c.dir(); status != ok {
			return status
		}
		before = dir.change
		if file, status = c.named(&a); status != ok {
			return status
		}
	} else if status := c.file(); status != ok {
		return status
	} else if a.create {
		return errInval
	} else {
		before = dir.change
	}
	st, status := c.openFile(file, &a)
	if status != ok {
		return status
	}
	c.fh = file
	c.setCurrent(st)
	c.changeInfo(before, dir)
	c.out = xdr.AppendUint32(c.out, resultPOSIXLocks|resultPreserveUnlinked)
	c.out = a.set.append(c.out)
	c.delegation(&a, st)
	return ok
}

// inGrace says whether an open with that claim may happen now (section 8.4.2.1 and
// 18.51.3).
func (c *compound) inGrace(claim uint32) uint32 {
	cl := c.session.client
	if claim == claimPrevious {
		done, had := c.inst.reclaimers[cl.owner]
		if !c.inst.grace || cl.reclaimed || !had || done {
			return errNoGrace
		}
		return ok
	}
	if c.inst.grace || !cl.reclaimed {
		return errGrace
	}
	return ok
}

// named finds or creates the file of a CLAIM_NULL.
func (c *compound) named(a *openArgs) (*inode, uint32) {
	if status := badName(a.name); status != ok {
		return nil, status
	}
	n := c.fh.find(a.name)
	if n != nil {
		return n, c.existing(n, a)
	}
	if !a.create {
		return nil, errNoEnt
	}
	n = c.srv.tree.make(kindFile, 0o644)
	n.created = a.verifier
	if status := n.apply(&a.changes); status != ok {
		delete(c.srv.tree.nodes, n.id)
		return nil, status
	}
	c.srv.tree.link(c.fh, a.name, n)
	return n, ok
}

// existing is what an open finds at a name that is there.
func (c *compound) existing(n *inode, a *openArgs) uint32 {
	switch {
	case a.create && a.how == createGuarded:
		return errExist
	case a.create && a.how >= createExclusive && n.created != a.verifier:
		return errExist
	case n.kind == kindDir:
		return errIsDir
	case n.kind != kindFile:
		return errSymlink
	case a.create && a.how == createUnchecked:
		// Only a size of zero means something for a file that is there.
		size := a.changes.size
		a.set = bitmap{}
		if size != nil && *size == 0 {
			if status := c.conflicts(n, &openArgs{access: accessWrite, owner: a.owner}); status != ok {
				return status
			}
			a.set = bits(attrSize)
			return n.apply(&changes{size: size})
		}
	}
	return ok
}

// conflicts says whether the shares of others forbid an open (section 9.7), or a
// delegation has to come back first.
func (c *compound) conflicts(n *inode, a *openArgs) uint32 {
	for _, st := range n.states {
		mine := st.client == c.session.client
		switch {
		case st.kind == stateOpen && !(mine && st.owner == a.owner) && (st.access&a.deny != 0 || st.deny&a.access != 0):
			return errShareDenied
		case st.kind == stateDelegation && !mine && (st.access&accessWrite != 0 || a.access&accessWrite != 0):
			return errDelay
		}
	}
	return ok
}

// openFile makes an open, or adds to the one that its owner has.
func (c *compound) openFile(n *inode, a *openArgs) (*state, uint32) {
	if status := c.conflicts(n, a); status != ok {
		return nil, status
	}
	for _, st := range n.states {
		if st.kind == stateOpen && st.client == c.session.client && st.owner == a.owner && !st.revoked {
			st.access |= a.access
			st.deny |= a.deny
			st.seq++
			return st, ok
		}
	}
	st := c.srv.newState(stateOpen, c.session.client, a.owner, n)
	st.access, st.deny = a.access, a.deny
	return st, ok
}

// delegation appends open_delegation4.
func (c *compound) delegation(a *openArgs, st *state) {
	kind := uint32(delegationNone)
	switch {
	case a.claim == claimPrevious:
		kind = a.delegation
	case c.srv.delegate && a.access&accessWrite != 0:
		kind = delegationWrite
	case c.srv.delegate:
		kind = delegationRead
	}
	for _, other := range st.file.states {
		if other != st && (other.kind == stateDelegation || other.client != st.client) {
			kind = delegationNone
		}
	}
	if kind != delegationRead && kind != delegationWrite {
		c.out = xdr.AppendUint32(c.out, delegationNone)
		return
	}
	d := c.srv.newState(stateDelegation, st.client, "", st.file)
	d.access = accessRead
	c.out = c.inst.appendStateid(xdr.AppendUint32(c.out, kind), d, d.seq)
	c.out = xdr.AppendBool(c.out, false) // not recalled at once
	if kind == delegationWrite {
		d.access = accessAll
		c.out = xdr.AppendUint64(xdr.AppendUint32(c.out, 1), 1<<63) // NFS_LIMIT_SIZE
	}
	for range 3 { // an ACE that allows nothing
		c.out = xdr.AppendUint32(c.out, 0)
	}
	c.out = xdr.AppendString(c.out, "")
}

func (c *compound) openDowngrade(r *xdr.Reader) uint32 {
	id := readStateid(r)
	r.Skip(4)
	access, deny := r.Uint32()&0xff, r.Uint32()
	if r.Err() != nil {
		return errBadXDR
	}
	st, status := c.held(id, stateOpen)
	if status != ok {
		return status
	}
	if access == 0 || access&^st.access != 0 || deny&^st.deny != 0 {
		return errInval
	}
	st.access, st.deny = access, deny
	st.seq++
	c.setCurrent(st)
	return ok
}

func (c *compound) closeFile(r *xdr.Reader) uint32 {
	r.Skip(4)
	id := readStateid(r)
	if r.Err() != nil {
		return errBadXDR
	}
	if c.fh == nil {
		return errNoFileHandle
	}
	st, status := c.held(id, stateOpen)
	if status != ok {
		return status
	}
	for _, lock := range slices.Clone(st.file.states) {
		if lock.kind != stateLock || lock.open != st {
			continue
		}
		if len(lock.ranges) > 0 {
			return errLocksHeld
		}
		c.srv.endState(lock)
	}
	c.srv.endState(st)
	// The special invalid stateid, section 8.2.3.
	c.out = append(xdr.AppendUint32(c.out, 1<<32-1), make([]byte, 12)...)
	c.current = stateid{}
	return ok
}

func (c *compound) delegReturn(r *xdr.Reader) uint32 {
	id := readStateid(r)
	if r.Err() != nil {
		return errBadXDR
	}
	st, status := c.held(id, stateDelegation)
	if status != ok {
		return status
	}
	c.srv.endState(st)
	return ok
}

func (c *compound) freeStateid(r *xdr.Reader) uint32 {
	id := readStateid(r)
	if r.Err() != nil {
		return errBadXDR
	}
	st, status := c.lookup(id)
	switch {
	case st == nil && status == ok:
		return errBadStateID
	case status == errAdminRevoked:
		c.srv.endState(st)
		return ok
	case status != ok:
		return status
	case st.kind != stateLock || len(st.ranges) > 0:
		return errLocksHeld
	}
	c.srv.endState(st)
	return ok
}

func (c *compound) testStateid(r *xdr.Reader) uint32 {
	n := r.Uint32()
	if n > uint32(r.Len()/16) {
		return errBadXDR
	}
	c.out = xdr.AppendUint32(c.out, n)
	for range n {
		st, status := c.lookup(readStateid(r))
		if st == nil && status == ok {
			status = errBadStateID
		}
		c.out = xdr.AppendUint32(c.out, status)
	}
	return ok
}
