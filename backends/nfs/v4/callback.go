package v4

import (
	"context"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/rpc"
	"sluice/backends/nfs/xdr"
)

// The server's calls (RFC 8881, section 20). It has nothing to recall, since no
// delegation or layout is asked for and one that comes unasked is returned at once;
// but a server whose calls are not answered counts the path as down.

const (
	cbNull     = 0
	cbCompound = 1

	cbRecall      = 4
	cbRecallAny   = 8
	cbRecallSlot  = 10
	cbSequence    = 11
	cbOffload     = 15
	cbIllegal     = 10044
	maxCBOps      = 16
	acceptSuccess = 0
	acceptNoProc  = 3
	acceptGarbage = 4
)

// answer makes the reply to a call of the server's: see rpc.Config.Answer.
func (c *Client) answer(call []byte) []byte {
	r := xdr.NewReader(call)
	r.Uint32() // CALL
	if r.Uint32() != 2 {
		return nil
	}
	prog, vers, proc := r.Uint32(), r.Uint32(), r.Uint32()
	for range 2 { // credential, verifier
		r.Uint32()
		r.Opaque(maxCBAuth)
	}
	if r.Err() != nil || prog != callbackProgram || vers != 1 {
		return nil
	}
	switch proc {
	case cbNull:
		return accepted(acceptSuccess)
	case cbCompound:
		return c.callback(&r)
	}
	return accepted(acceptNoProc)
}

const maxCBAuth = 400

// accepted is the head of a reply, from the word after the xid.
func accepted(code uint32) []byte {
	b := make([]byte, 0, 128)
	for _, v := range []uint32{1, 0, 0, 0, code} {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

// callback answers a CB_COMPOUND.
func (c *Client) callback(r *xdr.Reader) []byte {
	tag := r.Opaque(maxName)
	r.Uint32() // minor version
	r.Uint32() // callback_ident, of 4.0
	n := r.Uint32()
	if r.Err() != nil || n > maxCBOps {
		return accepted(acceptGarbage)
	}
	var results []byte
	status, count := nfsstat.OK, uint32(0)
	for i := uint32(0); i < n && status == nfsstat.OK; i++ {
		op := r.Uint32()
		var body []byte
		status, body = c.callbackOp(op, i, r)
		if r.Err() != nil {
			return accepted(acceptGarbage)
		}
		results = xdr.AppendUint32(xdr.AppendUint32(results, op), uint32(status))
		results = append(results, body...)
		count++
	}
	b := xdr.AppendUint32(accepted(acceptSuccess), uint32(status))
	b = xdr.AppendUint32(xdr.AppendOpaque(b, tag), count)
	return append(b, results...)
}

// callbackOp carries out the i-th operation of a callback.
func (c *Client) callbackOp(op, i uint32, r *xdr.Reader) (nfsstat.Status, []byte) {
	if (op == cbSequence) != (i == 0) {
		if op == cbSequence {
			return nfsstat.SequencePos, nil
		}
		return nfsstat.OpNotInSession, nil
	}
	switch op {
	case cbSequence:
		return c.callbackSequence(r)
	case cbRecall:
		r.Skip(16)
		r.Bool()
		r.Opaque(maxHandle)
		return nfsstat.BadStateID, nil // none that we still have
	case cbRecallAny:
		r.Uint32()
		readBitmap(r)
		return nfsstat.OK, nil
	case cbRecallSlot:
		target := r.Uint32()
		if s := c.current.Load(); s != nil && r.Err() == nil {
			c.attend(s, sequenced{target: target})
		}
		return nfsstat.OK, nil
	}
	if op >= 3 && op <= cbOffload {
		return nfsstat.NotSupp, nil
	}
	return nfsstat.OpIllegal, nil
}

// callbackSequence checks that the call is for our session. Replays are not told apart:
// nothing that is carried out here minds being repeated.
func (c *Client) callbackSequence(r *xdr.Reader) (nfsstat.Status, []byte) {
	var id [16]byte
	copy(id[:], r.Fixed(len(id)))
	seq, slot := r.Uint32(), r.Uint32()
	r.Uint32()
	r.Bool()
	for lists := r.Uint32(); lists > 0 && r.Err() == nil; lists-- {
		r.Skip(16)
		calls := r.Uint32()
		if uint64(calls)*8 > uint64(r.Len()) {
			r.Fail()
			break
		}
		r.Skip(int(calls) * 8)
	}
	s := c.current.Load()
	switch {
	case r.Err() != nil:
		return nfsstat.BadXDR, nil
	case s == nil || s.id != id:
		return nfsstat.BadSession, nil
	case slot >= backward.maxSlots:
		return nfsstat.BadSlot, nil
	}
	b := append([]byte(nil), id[:]...)
	for _, v := range []uint32{seq, slot, backward.maxSlots - 1, backward.maxSlots - 1} {
		b = xdr.AppendUint32(b, v)
	}
	return nfsstat.OK, b
}

// bind makes a new connection of the first transport the session's back channel again:
// see rpc.Config.Revive. Where the session is gone, the calls that follow find out.
func (c *Client) bind(ctx context.Context, link *rpc.Link) error {
	s := c.current.Load()
	if s == nil {
		return nil
	}
	op := &chain{steps: []step{{op: opBindConn, args: func(b []byte) []byte {
		b = append(b, s.id[:]...)
		return xdr.AppendBool(xdr.AppendUint32(b, bindForeOrBoth), false)
	}}}}
	_, err := link.Call(ctx, procCompound, op.encode(appendCompound(nil, c.minor, 1)), nil)
	return err
}
