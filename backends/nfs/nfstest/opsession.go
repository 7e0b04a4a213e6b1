package nfstest

import (
	"encoding/binary"
	"slices"

	"sluice/backends/nfs/xdr"
)

// Flags of EXCHANGE_ID (RFC 8881 section 18.35) and CREATE_SESSION (section 18.36).
const (
	flagConfirmed  = 0x80000000
	flagUpdate     = 0x40000000
	flagNonPNFS    = 0x00010000
	flagsExchange  = flagUpdate | 0x70000 | 0x103
	flagBackChan   = 2
	flagsSession   = 7
	spNone         = 0
	seqRevoked     = 0x20  // SEQ4_STATUS_ADMIN_STATE_REVOKED
	seqBackDown    = 0x200 // SEQ4_STATUS_CB_PATH_DOWN_SESSION
	authNone       = 0
	authSys        = 1
	minMessage     = 512
	maxBackMessage = 4096
)

func (c *compound) exchangeID(r *xdr.Reader) uint32 {
	verifier := [8]byte(append(r.Fixed(8), make([]byte, 8)...))
	owner, flags, protect := r.String(1024), r.Uint32(), r.Uint32()
	if protect != spNone {
		return errNotSupp
	}
	if n := r.Uint32(); n > 1 {
		r.Fail()
	} else if n == 1 {
		r.Opaque(1024)
		r.Opaque(1024)
		r.Skip(12)
	}
	if r.Err() != nil {
		return errBadXDR
	}
	if flags&^flagsExchange != 0 {
		return errInval
	}
	cl, status := c.identify(owner, verifier, flags&flagUpdate != 0)
	if status != ok {
		return status
	}
	result := uint32(flagNonPNFS)
	if cl.confirmed {
		result |= flagConfirmed
	}
	c.out = xdr.AppendUint64(c.out, cl.id)
	for _, v := range []uint32{cl.sequence, result, spNone, 0, 1} { // and the minor id of the server's owner
		c.out = xdr.AppendUint32(c.out, v)
	}
	c.out = xdr.AppendString(c.out, "nfstest")
	c.out = xdr.AppendString(c.out, "nfstest scope")
	c.out = xdr.AppendUint32(c.out, 0)
	return ok
}

// identify finds or makes the client of an owner (the cases of section 18.35.5).
func (c *compound) identify(owner string, verifier [8]byte, update bool) (*client, uint32) {
	var confirmed *client
	for _, cl := range c.inst.clients {
		if cl.owner == owner && cl.confirmed {
			confirmed = cl
		}
	}
	switch {
	case update && confirmed == nil:
		return nil, errNoEnt
	case update && confirmed.verifier != verifier:
		return nil, errNotSame
	case confirmed != nil && confirmed.verifier == verifier:
		return confirmed, ok
	}
	for id, cl := range c.inst.clients {
		if cl.owner == owner && !cl.confirmed {
			delete(c.inst.clients, id)
		}
	}
	cl := &client{id: c.inst.next(), owner: owner, verifier: verifier, sequence: 1, renewed: c.srv.clock}
	c.inst.clients[cl.id] = cl
	return cl, ok
}

// channel is channel_attrs4.
type channel struct {
	request, response, cached, ops, requests uint32
}

func readChannel(r *xdr.Reader) (ch channel) {
	r.Skip(4) // header padding
	ch = channel{r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32()}
	if n := r.Uint32(); n > 1 {
		r.Fail()
	} else {
		r.Skip(4 * int(n))
	}
	return ch
}

func (ch *channel) append(b []byte) []byte {
	for _, v := range []uint32{0, ch.request, ch.response, ch.cached, ch.ops, ch.requests, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

// readSecurity reads callback_sec_parms4 and returns the first credential of it that
// can be sent: flavor and body.
func readSecurity(r *xdr.Reader) (cred []byte) {
	none := make([]byte, 8)
	for n := r.Uint32(); n > 0 && r.Err() == nil; n-- {
		var this []byte
		switch r.Uint32() {
		case authNone:
			this = none
		case authSys:
			body := r.Rest()
			r.Skip(4)
			r.Opaque(255)
			r.Skip(8)
			r.Skip(4 * int(min(r.Uint32(), 17)))
			this = xdr.AppendOpaque(xdr.AppendUint32(nil, authSys), body[:len(body)-r.Len()])
		case 6: // RPCSEC_GSS
			r.Skip(4)
			r.Opaque(1024)
			r.Opaque(1024)
		default:
			r.Fail()
		}
		if cred == nil {
			cred = this
		}
	}
	if cred == nil {
		return none
	}
	return cred
}

func (c *compound) createSession(r *xdr.Reader) uint32 {
	id, sequence, flags := r.Uint64(), r.Uint32(), r.Uint32()
	fore, back, program := readChannel(r), readChannel(r), r.Uint32()
	cred := readSecurity(r)
	if r.Err() != nil {
		return errBadXDR
	}
	cl := c.inst.clients[id]
	switch {
	case cl == nil:
		return errStaleClientID
	case cl.created != nil && sequence == cl.sequence-1:
		c.out = append(c.out, cl.created...)
		return ok
	case sequence != cl.sequence:
		return errSeqMisordered
	case flags&^flagsSession != 0:
		return errInval
	case fore.request < minMessage || fore.response < minMessage || fore.requests == 0 || fore.ops < 2:
		return errTooSmall
	}
	c.confirm(cl)
	ses := c.newSession(cl, &fore)
	flags &= flagBackChan
	ses.program, ses.cred, ses.wants = program, cred, flags != 0
	ses.conns[c.conn] = ses.wants
	back = channel{min(back.request, maxBackMessage), min(back.response, maxBackMessage), 0, min(back.ops, 8), min(back.requests, 1)}
	at := len(c.out)
	c.out = append(c.out, ses.id[:]...)
	c.out = xdr.AppendUint32(xdr.AppendUint32(c.out, sequence), flags)
	c.out = back.append(fore.append(c.out))
	cl.sequence++
	cl.created = append([]byte(nil), c.out[at:]...)
	return ok
}

// confirm makes a client a confirmed one: whoever had its owner name before is gone.
func (c *compound) confirm(cl *client) {
	cl.renewed = c.srv.clock
	if cl.confirmed {
		return
	}
	for _, other := range c.inst.clients {
		if other != cl && other.owner == cl.owner {
			c.srv.endClient(other)
		}
	}
	cl.confirmed = true
}

// newSession makes a session and cuts what was asked for down to what is granted.
func (c *compound) newSession(cl *client, ask *channel) *session {
	l := c.srv.limits
	ask.request, ask.response = min(ask.request, l.MaxRequest), min(ask.response, l.MaxResponse)
	ask.cached = min(ask.cached, l.MaxCached, ask.response)
	ask.ops, ask.requests = min(ask.ops, l.MaxOps), min(ask.requests, l.Slots)
	l.MaxRequest, l.MaxResponse, l.MaxCached, l.MaxOps, l.Slots = ask.request, ask.response, ask.cached, ask.ops, ask.requests
	ses := &session{client: cl, minor: c.minor, limits: l, slots: make([]slot, l.Slots), conns: map[*conn]bool{}}
	binary.BigEndian.PutUint64(ses.id[:], cl.id)
	binary.BigEndian.PutUint64(ses.id[8:], c.inst.next())
	c.inst.sessions[ses.id] = ses
	c.inst.newest = append(c.inst.newest, ses)
	return ses
}

func readSession(r *xdr.Reader) (id [16]byte) {
	copy(id[:], r.Fixed(16))
	return id
}

func (c *compound) destroySession(r *xdr.Reader) uint32 {
	ses := c.inst.sessions[readSession(r)]
	if r.Err() != nil {
		return errBadXDR
	}
	if ses == nil {
		return errBadSession
	}
	if _, bound := ses.conns[c.conn]; !bound {
		return errConnNotBound
	}
	if ses == c.session && c.index != c.ops-1 {
		return errNotOnlyOp
	}
	for i := range ses.slots {
		if ses.slots[i].busy && &ses.slots[i] != c.slot {
			return errDelay
		}
	}
	c.inst.endSession(ses)
	return ok
}

func (c *compound) destroyClientID(r *xdr.Reader) uint32 {
	cl := c.inst.clients[r.Uint64()]
	if r.Err() != nil {
		return errBadXDR
	}
	if cl == nil {
		return errStaleClientID
	}
	if cl.states > 0 {
		return errClientIDBusy
	}
	for _, ses := range c.inst.sessions {
		if ses.client == cl {
			return errClientIDBusy
		}
	}
	c.srv.endClient(cl)
	return ok
}

func (c *compound) bindConn(r *xdr.Reader) uint32 {
	id, dir := readSession(r), r.Uint32()
	r.Bool()
	if r.Err() != nil {
		return errBadXDR
	}
	ses := c.inst.sessions[id]
	switch {
	case c.ops > 1:
		return errNotOnlyOp
	case ses == nil:
		return errBadSession
	case !slices.Contains([]uint32{1, 2, 3, 7}, dir):
		return errInval
	}
	// The fore channel is always bound; what "or both" allows is done.
	back := dir != 1
	ses.conns[c.conn] = back
	result := uint32(1)
	if back {
		result = 3
	}
	if dir == 2 {
		result = 2
	}
	c.out = append(c.out, id[:]...)
	c.out = xdr.AppendBool(xdr.AppendUint32(c.out, result), false)
	return ok
}

func (c *compound) sequence(r *xdr.Reader) uint32 {
	id, sequence, number, highest, cacheThis := readSession(r), r.Uint32(), r.Uint32(), r.Uint32(), r.Bool()
	if r.Err() != nil {
		return errBadXDR
	}
	ses := c.inst.sessions[id]
	if ses == nil {
		return errBadSession
	}
	if _, bound := ses.conns[c.conn]; !bound {
		ses.conns[c.conn] = false // with SP4_NONE the first SEQUENCE binds
	}
	switch {
	case number >= ses.limits.Slots:
		return errBadSlot
	case highest >= ses.limits.Slots:
		return errBadHighSlot
	case uint32(len(c.msg)) > ses.limits.MaxRequest:
		return errReqTooBig
	case uint32(c.ops) > ses.limits.MaxOps:
		return errTooManyOps
	}
	s, seen := &ses.slots[number], sum(r.Rest())
	switch {
	case sequence == s.sequence && s.busy:
		return errDelay
	case sequence == s.sequence && sequence != 0 && seen != s.sum:
		return errSeqFalseRetry
	case sequence == s.sequence && sequence != 0:
		ses.client.renewed = c.srv.clock
		return c.replay(s)
	case sequence != s.sequence+1 || s.busy:
		return errSeqMisordered
	}
	s.sequence, s.sum, s.busy, s.reply = sequence, seen, true, nil
	c.session, c.slot, c.cacheThis = ses, s, cacheThis
	c.renew()
	c.srv.seen.maxSlot = max(c.srv.seen.maxSlot, number)
	c.out = append(c.out, id[:]...)
	for _, v := range []uint32{
		sequence, number, ses.limits.Slots - 1, min(ses.limits.Slots, max(1, c.srv.limits.Slots)) - 1, c.statusFlags(),
	} {
		c.out = xdr.AppendUint32(c.out, v)
	}
	return ok
}

// statusFlags are the sr_status_flags.
func (c *compound) statusFlags() uint32 {
	flags := c.srv.flags
	back := !c.session.wants
	for _, is := range c.session.conns {
		back = back || is
	}
	if !back {
		flags |= seqBackDown
	}
	for _, st := range c.inst.states {
		if st.revoked && st.client == c.session.client {
			flags |= seqRevoked
		}
	}
	return flags
}

func (c *compound) reclaimComplete(r *xdr.Reader) uint32 {
	oneFS, cl := r.Bool(), c.session.client
	if r.Err() != nil {
		return errBadXDR
	}
	if oneFS {
		if c.fh == nil {
			return errNoFileHandle
		}
		return ok
	}
	if cl.reclaimed {
		return errCompleteAlready
	}
	cl.reclaimed = true
	if _, had := c.inst.reclaimers[cl.owner]; had {
		c.inst.reclaimers[cl.owner] = true
	}
	c.inst.settleGrace()
	return ok
}
