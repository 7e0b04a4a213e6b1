package nfstest

import (
	"encoding/binary"
	"hash/fnv"

	"sluice/backends/nfs/xdr"
)

// compound is a COMPOUND under way.
type compound struct {
	*request
	minor   uint32
	tag     string
	ops     int // in the call
	index   int // of the operation
	results uint32
	start   int // of the results in out
	status  uint32

	session   *session
	slot      *slot
	cacheThis bool
	replayed  bool

	fh, saved           *inode
	current, savedState stateid
}

// operation is one of NFSv4: it reads its arguments from r, and appends the body of its
// result to out. With a status other than ok it appends what the RFC wants there.
type operation struct {
	name  string
	minor uint32 // that it came with
	alone bool   // may begin a compound without SEQUENCE
	do    func(c *compound, r *xdr.Reader) uint32
}

// nfs4 executes a procedure of NFSv4, and is false if there is to be no reply.
func (q *request) nfs4(procedure uint32) bool {
	name := "COMPOUND"
	if procedure == 0 {
		name = "v4.NULL"
	} else if procedure != 1 {
		q.accept = procUnavail
		return true
	}
	act, alive := q.enter(name, q.args.Rest())
	if !alive || procedure == 0 || act.Accept != 0 {
		return alive
	}
	c := &compound{request: q}
	c.tag = q.args.String(1024)
	c.minor = q.args.Uint32()
	c.ops = int(q.args.Uint32())
	if q.args.Err() != nil {
		q.accept = garbageArgs
		return true
	}
	q.out = xdr.AppendString(xdr.AppendUint32(q.out, ok), c.tag)
	q.out = xdr.AppendUint32(q.out, 0)
	c.start = len(q.out)
	switch {
	case act.Status != ok:
		c.status = act.Status
	case !q.srv.serves(c.minor, false):
		c.status = errMinorVersMismatch
	default:
		alive = c.execute()
	}
	binary.BigEndian.PutUint32(q.out[headerSize:], c.status)
	binary.BigEndian.PutUint32(q.out[c.start-4:], c.results)
	if act.Result != nil {
		q.edits = nil
		q.changed(headerSize, act.Result)
	}
	return alive
}

// execute runs the operations until one fails.
func (c *compound) execute() bool {
	for c.index = 0; c.index < c.ops && c.status == ok && !c.replayed; c.index++ {
		number := c.args.Uint32()
		if c.args.Err() != nil {
			c.status = errBadXDR
			break
		}
		op := operations[number]
		if op == nil || op.minor > c.minor {
			number, op = illegal, operations[illegal]
		}
		act, alive := c.enter(op.name, c.args.Rest())
		if !alive {
			c.undo()
			return false
		}
		if act.Accept != 0 {
			break
		}
		if !c.one(number, op, &act) {
			return false
		}
	}
	c.leave()
	return true
}

// one runs an operation; it is false if this instance of the server is gone.
func (c *compound) one(number uint32, op *operation, act *Action) bool {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if c.srv.inst != c.inst {
		return false
	}
	at := len(c.out)
	c.out = xdr.AppendUint32(xdr.AppendUint32(c.out, number), ok)
	c.results++
	switch {
	case act.Status != ok:
		c.status = act.Status
		if op.name == "SETATTR" {
			c.out = xdr.AppendUint32(c.out, 0)
		}
	default:
		if c.status = c.placed(op); c.status == ok {
			c.status = op.do(c, &c.args)
		}
		if c.args.Err() != nil {
			c.out, c.status = c.out[:at+8], errBadXDR
		}
	}
	if c.replayed {
		return true
	}
	if status := c.tooBig(); status != ok {
		c.out, c.status = c.out[:at+8], status
	}
	binary.BigEndian.PutUint32(c.out[at+4:], c.status)
	if number == opSequence && c.slot != nil {
		c.slot.first = append([]byte(nil), c.out[at:]...)
	}
	c.changed(at, act.Result)
	return true
}

// placed says whether an operation may stand where it does (RFC 8881 section 2.10.6.1
// and 18.46.3).
func (c *compound) placed(op *operation) uint32 {
	switch {
	case c.index > 0 && op.name == "SEQUENCE":
		return errSequencePos
	case c.session != nil || op.name == "SEQUENCE" || op.name == "ILLEGAL":
		return ok
	case !op.alone:
		return errOpNotInSession
	case c.ops > 1:
		return errNotOnlyOp
	}
	return ok
}

// tooBig says whether the reply is larger than the session allows.
func (c *compound) tooBig() uint32 {
	if c.session == nil {
		return ok
	}
	// The reply so far, and its record mark does not count.
	n := uint32(len(c.out))
	switch {
	case n > c.session.limits.MaxResponse:
		return errRepTooBig
	case c.cacheThis && n > c.session.limits.MaxCached:
		return errRepTooBigToCache
	}
	return ok
}

// leave frees the slot and keeps the reply.
func (c *compound) leave() {
	if c.slot == nil || c.replayed {
		return
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.slot.busy = false
	c.slot.reply = nil
	if c.cacheThis || c.results == 1 {
		c.slot.reply = xdr.AppendUint32(xdr.AppendUint32(nil, c.status), c.results)
		c.slot.reply = append(c.slot.reply, c.out[c.start:]...)
	}
}

// undo makes the slot as if the call had never come, so that it is executed when it is
// sent again.
func (c *compound) undo() {
	if c.slot == nil {
		return
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.slot.busy = false
	c.slot.sequence--
}

// replay answers from the reply cache. out ends with the head of SEQUENCE's result.
func (c *compound) replay(s *slot) uint32 {
	c.replayed = true
	if s.reply != nil {
		r := xdr.NewReader(s.reply)
		c.status, c.results = r.Uint32(), r.Uint32()
		c.out = append(c.out[:c.start], r.Rest()...)
		return c.status
	}
	// SEQUENCE as it was, and an operation that says that the rest was not kept.
	c.out = append(c.out[:c.start], s.first...)
	c.out = xdr.AppendUint32(c.out, c.args.Uint32())
	c.out = xdr.AppendUint32(c.out, errRetryUncachedRep)
	c.results = 2
	c.status = errRetryUncachedRep
	return c.status
}

// sum tells two calls apart.
func sum(p []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(p)
	return h.Sum64()
}

func (c *compound) file() uint32 {
	switch {
	case c.fh == nil:
		return errNoFileHandle
	case c.fh.kind == kindDir:
		return errIsDir
	case c.fh.kind == kindSymlink:
		return errSymlink
	}
	return ok
}

func (c *compound) dir() uint32 {
	switch {
	case c.fh == nil:
		return errNoFileHandle
	case c.fh.kind == kindSymlink:
		return errSymlink
	case c.fh.kind != kindDir:
		return errNotDir
	}
	return ok
}

// setCurrent makes st the current stateid, and appends it.
func (c *compound) setCurrent(st *state) {
	at := len(c.out)
	c.out = c.inst.appendStateid(c.out, st, st.seq)
	c.current.seq = st.seq
	copy(c.current.other[:], c.out[at+4:])
}

// lookup finds the state of a stateid that the client sent; nil and ok for a special one.
func (c *compound) lookup(id stateid) (*state, uint32) {
	if id == currentStateid {
		if c.current == (stateid{}) {
			return nil, errBadStateID
		}
		id = c.current
	}
	if id.special() {
		return nil, ok
	}
	st, status := c.inst.find(id)
	if status == ok && st.client != c.session.client {
		return nil, errBadStateID
	}
	return st, status
}

// held is lookup of a stateid that has to be of the current file and of a kind.
func (c *compound) held(id stateid, kind int) (*state, uint32) {
	st, status := c.lookup(id)
	switch {
	case status != ok:
		return nil, status
	case st == nil || st.kind != kind || c.fh != nil && st.file != c.fh:
		return nil, errBadStateID
	}
	return st, ok
}

// renew is called for each SEQUENCE.
func (c *compound) renew() { c.session.client.renewed = c.srv.clock }

// changeInfo appends a change_info4.
func (c *compound) changeInfo(before uint64, dir *inode) {
	c.out = xdr.AppendUint64(xdr.AppendUint64(xdr.AppendBool(c.out, true), before), dir.change)
}
