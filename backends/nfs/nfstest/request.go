package nfstest

import (
	"encoding/binary"
	"sync"

	"sluice/backends/nfs/xdr"
)

// The programs (RFC 5531, RFC 1813, RFC 1833).
const (
	programPortmap = 100000
	programNFS     = 100003
	programMount   = 100005
)

// accept_stat of RFC 5531 section 9.
const (
	progUnavail  = 1
	progMismatch = 2
	procUnavail  = 3
	garbageArgs  = 4
	systemErr    = 5
)

// headerSize is the length of the head of an accepted reply, from its xid on.
const headerSize = 24

// request is one call, from its record to its reply.
type request struct {
	srv  *Server
	inst *instance
	conn *conn
	msg  []byte
	xid  uint32
	args xdr.Reader
	act  Action
	turn chan struct{} // closed when the next call of the connection may begin
	once sync.Once

	out    []byte // the reply, from its xid on
	edits  []edit
	accept uint32
	low    uint32 // versions for progMismatch
	high   uint32
}

// edit is a part of a reply that a hook changes.
type edit struct {
	from, to int
	change   func([]byte) []byte
}

func newRequest(c *conn, msg []byte) *request {
	return &request{srv: c.srv, conn: c, msg: msg, turn: make(chan struct{})}
}

func (q *request) goOn() { q.once.Do(func() { close(q.turn) }) }

// serve is the life of a call: header, program, reply.
func (q *request) serve() {
	q.srv.mu.Lock()
	q.inst = q.srv.inst
	q.srv.mu.Unlock()
	r := xdr.NewReader(q.msg)
	q.xid = r.Uint32()
	r.Skip(4)
	version, program, programVersion, procedure := r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32()
	for range 2 { // credential and verifier
		r.Skip(4)
		r.Opaque(400)
	}
	if r.Err() != nil {
		q.conn.cut()
		return
	}
	q.args = r
	q.out = xdr.AppendUint32(make([]byte, 0, 512), q.xid)
	if version != 2 { // MSG_DENIED, RPC_MISMATCH
		for _, v := range []uint32{1, 1, 0, 2, 2} {
			q.out = xdr.AppendUint32(q.out, v)
		}
		q.conn.send(q.out)
		return
	}
	for _, v := range []uint32{1, 0, 0, 0, 0} { // REPLY, MSG_ACCEPTED, AUTH_NONE, SUCCESS
		q.out = xdr.AppendUint32(q.out, v)
	}
	switch {
	case q.dispatch(program, programVersion, procedure):
		q.reply()
	case q.act.CutBefore: // only now that the slot is free again
		q.conn.cut()
	}
}

// dispatch executes the call, and is false if there is to be no reply.
func (q *request) dispatch(program, version, procedure uint32) bool {
	o, v4 := &q.srv.options, q.srv.serves(0, true)
	switch {
	case program == programNFS && version == 4 && v4:
		return q.nfs4(procedure)
	case program == programNFS && version == 3 && !o.NoV3:
		return q.procedure(nfs3[:], "v3.", procedure)
	case program == programMount && version == 3 && !o.NoV3:
		return q.procedure(mount3[:], "mount.", procedure)
	case program == programPortmap && version == 2 && !o.NoV3:
		return q.procedure(portmap2[:], "portmap.", procedure)
	case program == programNFS:
		q.accept, q.low, q.high = progMismatch, 3, 4
		if o.NoV3 {
			q.low = 4
		}
		if !v4 {
			q.high = 3
		}
	case !o.NoV3 && (program == programMount || program == programPortmap):
		q.accept, q.low, q.high = progMismatch, 3, 3
		if program == programPortmap {
			q.low, q.high = 2, 2
		}
	default:
		q.accept = progUnavail
	}
	return true
}

// proc is a procedure of a program that is not NFSv4: it reads q.args and appends its
// results to q.out, behind the status that it returns.
type proc struct {
	name string
	// empty is how many optional values stand, absent, behind the status of an error;
	// noStatus says that results have no status.
	empty int
	do    func(q *request) uint32
}

const noStatus = -1

// procedure executes one of procs, and is false if there is to be no reply.
func (q *request) procedure(procs []proc, prefix string, n uint32) bool {
	if n >= uint32(len(procs)) || procs[n].do == nil {
		q.accept = procUnavail
		return true
	}
	p := &procs[n]
	act, alive := q.enter(prefix+p.name, q.args.Rest())
	if !alive {
		return false
	}
	q.srv.mu.Lock()
	defer q.srv.mu.Unlock()
	if q.srv.inst != q.inst {
		return false
	}
	if act.Accept == 0 {
		q.execute(p, act.Status)
		q.changed(headerSize, act.Result)
	}
	return true
}

// execute runs p, or makes it fail with status.
func (q *request) execute(p *proc, status uint32) {
	if p.empty == noStatus {
		if status != ok {
			q.accept = systemErr
			return
		}
		p.do(q)
	} else {
		q.out = xdr.AppendUint32(q.out, ok)
		if status == ok {
			status = p.do(q)
		}
		if status != ok {
			q.out = append(q.out[:headerSize], make([]byte, 4+4*p.empty)...)
			binary.BigEndian.PutUint32(q.out[headerSize:], status)
		}
	}
	if q.args.Err() != nil {
		q.accept = garbageArgs
	}
}

// changed notes that a hook wants to change what was appended from at on.
func (q *request) changed(at int, change func([]byte) []byte) {
	if change != nil {
		q.edits = append(q.edits, edit{at, len(q.out), change})
	}
}

// enter is asked before each operation: it counts, asks the hook, and waits. It is
// false if the call has to end here.
func (q *request) enter(op string, args []byte) (Action, bool) {
	s := q.srv
	s.mu.Lock()
	s.seen.note(op)
	hook, waits, status := s.faults.hook, s.faults.waiting(op), uint32(ok)
	if op != "COMPOUND" {
		status = s.faults.failing(op)
	}
	s.mu.Unlock()
	act := Action{}
	if hook != nil {
		act = hook(op, args)
	}
	if act.Status == ok {
		act.Status = status
	}
	if act.Wait != nil {
		waits = append(waits[:len(waits):len(waits)], act.Wait)
	}
	for _, until := range waits {
		if !q.wait(until) {
			return act, false
		}
	}
	q.act.merge(&act)
	return act, !act.CutBefore
}

// wait lets the connection's next call begin and waits; it is false if this server
// instance ends before. The end of the connection does not matter: the call has
// arrived and will be executed.
func (q *request) wait(until <-chan struct{}) bool {
	select {
	case <-until:
		return true
	default:
	}
	q.goOn()
	select {
	case <-until:
		return true
	case <-q.inst.gone:
	case <-q.srv.stop:
	}
	return false
}

// reply sends what was made, as the hooks want it.
func (q *request) reply() {
	act := &q.act
	if act.After != nil && !q.wait(act.After) {
		return
	}
	if act.CutAfter {
		q.conn.cut()
		return
	}
	if act.Drop {
		return
	}
	msg := q.message()
	switch {
	case act.Wire != nil:
		q.conn.sending.Lock()
		q.conn.put(act.Wire)
		q.conn.sending.Unlock()
	case act.CutAt != 0:
		record := append(binary.BigEndian.AppendUint32(nil, lastMark|uint32(len(msg))), msg...)
		q.conn.sending.Lock()
		q.conn.put(record[:min(act.CutAt, len(record))])
		q.conn.finish()
		q.conn.sending.Unlock()
	case act.Frame != FrameWhole:
		q.conn.sendAs(msg, act.Frame)
	case act.Behind > 0:
		q.conn.hold(msg, act.Behind)
	default:
		q.conn.send(msg)
		if act.Twice {
			q.conn.send(msg)
		}
	}
}

// message is the RPC message of the reply, changed as the hooks want it.
func (q *request) message() []byte {
	act, msg := &q.act, q.out
	if act.Accept != 0 {
		q.accept = act.Accept
	}
	if q.accept != 0 {
		msg = xdr.AppendUint32(msg[:headerSize-4], q.accept)
		if q.accept == progMismatch {
			msg = xdr.AppendUint32(xdr.AppendUint32(msg, q.low), q.high)
		}
	} else if len(q.edits) > 0 {
		msg = applied(msg, q.edits)
	}
	if act.WrongXID {
		msg = append(binary.BigEndian.AppendUint32(nil, q.xid^0x5a5a5a5a), msg[4:]...)
	}
	if act.Edit != nil {
		msg = act.Edit(append([]byte(nil), msg...))
	}
	if act.Raw != nil {
		msg = act.Raw
	}
	return msg
}

// applied is a copy of msg with its edits, which are in order and do not overlap.
func applied(msg []byte, edits []edit) []byte {
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(out, msg[at:e.from]...)
		out = append(out, e.change(append([]byte(nil), msg[e.from:e.to]...))...)
		at = e.to
	}
	return append(out, msg[at:]...)
}
