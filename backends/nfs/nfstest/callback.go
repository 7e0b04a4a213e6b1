package nfstest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/backends/nfs/xdr"
)

const (
	cbSequence   = 11
	cbRecall     = 4
	cbRecallSlot = 10
)

var errNoBackChannel = errors.New("no session has a back channel")

// answered hands a reply to the callback that waits for it.
func (c *conn) answered(msg []byte) {
	xid := binary.BigEndian.Uint32(msg)
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if wait := c.callbacks[xid]; wait != nil {
		delete(c.callbacks, xid)
		wait <- msg // capacity 1, one reply
	}
}

// CallbackNull calls CB_NULL on the back channel of the newest session that has one,
// and returns when the client has answered or the connection is gone.
func (s *Server) CallbackNull() error {
	_, err := s.callback(0, func(*session) []byte { return nil })
	return err
}

// Recall recalls the delegation of the file at path (CB_RECALL) and returns the status
// of the client's reply; OK says only that it will return it.
func (s *Server) Recall(path string) (status uint32, err error) {
	return s.CallbackOp(cbRecall, func() []byte {
		n := s.tree.walk(path)
		if n == nil {
			return nil
		}
		for _, st := range n.states {
			if st.kind == stateDelegation {
				args := s.inst.appendStateid(nil, st, st.seq)
				return xdr.AppendOpaque(xdr.AppendBool(args, false), n.handle())
			}
		}
		return nil
	})
}

// RecallSlot asks the client to use no slot above target (CB_RECALL_SLOT).
func (s *Server) RecallSlot(target uint32) (status uint32, err error) {
	return s.CallbackOp(cbRecallSlot, func() []byte { return xdr.AppendUint32(nil, target) })
}

// CallbackOp calls CB_COMPOUND with CB_SEQUENCE and one operation, whose arguments args
// makes, and returns the status of the client's reply. A nil args is an error.
func (s *Server) CallbackOp(op uint32, args func() []byte) (status uint32, err error) {
	missing := false
	body, err := s.callback(1, func(ses *session) []byte {
		body := args()
		if missing = body == nil; missing {
			return nil
		}
		ses.backSeq++
		b := xdr.AppendString(nil, "")
		for _, v := range []uint32{ses.minor, 0, 2, cbSequence} {
			b = xdr.AppendUint32(b, v)
		}
		b = append(b, ses.id[:]...)
		// Sequence, slot 0, highest slot 0, cachethis false, no referring calls.
		for _, v := range []uint32{ses.backSeq, 0, 0, 0, 0, op} {
			b = xdr.AppendUint32(b, v)
		}
		return append(b, body...)
	})
	if missing {
		return 0, errors.New("nothing to call back about")
	}
	if err != nil {
		return 0, err
	}
	r := xdr.NewReader(body)
	status = r.Uint32()
	if r.Err() != nil {
		return 0, fmt.Errorf("reply to a callback: %w", r.Err())
	}
	return status, nil
}

// callback sends a call over a back channel and returns the results in its reply.
// args is asked with s.mu held.
func (s *Server) callback(procedure uint32, args func(*session) []byte) ([]byte, error) {
	s.mu.Lock()
	ses, c := s.inst.backChannel()
	if ses == nil {
		s.mu.Unlock()
		return nil, errNoBackChannel
	}
	ses.backXID++
	xid := ses.backXID
	msg := xdr.AppendUint32(nil, xid)
	for _, v := range []uint32{0, 2, ses.program, 1, procedure} {
		msg = xdr.AppendUint32(msg, v)
	}
	msg = append(append(msg, ses.cred...), make([]byte, 8)...)
	body := args(ses)
	if procedure != 0 && body == nil {
		s.mu.Unlock()
		return nil, nil
	}
	wait := make(chan []byte, 1)
	c.callbacks[xid] = wait
	s.mu.Unlock()
	c.send(append(msg, body...))
	select {
	case reply := <-wait:
		return accepted(reply)
	case <-c.gone:
		return nil, errors.New("the connection went away before the reply to a callback")
	case <-s.stop:
		return nil, errors.New("server closed")
	}
}

// accepted are the results in a reply of the client.
func accepted(reply []byte) ([]byte, error) {
	r := xdr.NewReader(reply)
	r.Skip(8)
	denied := r.Uint32()
	r.Skip(4)
	r.Opaque(400)
	status := r.Uint32()
	if r.Err() != nil || denied != 0 || status != 0 {
		return nil, fmt.Errorf("callback refused: reply_stat %d, accept_stat %d, %v", denied, status, r.Err())
	}
	return r.Rest(), nil
}
