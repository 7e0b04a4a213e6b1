package rpc

import (
	"encoding/binary"
	"fmt"

	"sluice/backends/nfs/xdr"
)

// The layout of messages (RFC 5531, sections 9 and 11): offsets count from the
// record mark.
const (
	lastFragment = 1 << 31
	markSize     = 4
	xidAt        = 4

	msgCall    = 0
	msgReply   = 1
	rpcVersion = 2

	// replyHead is a reply's part before the results, without the record mark and
	// with an empty verifier.
	replyHead = 24
	// maxVerifier is the longest verifier that a reply can have.
	maxVerifier = 400
)

// header is the beginning of all calls of a procedure, with nothing in place of the
// record mark and the xid.
func header(program, version uint32, cred *Cred) []byte {
	b := make([]byte, markSize+4, 64)
	for _, v := range []uint32{msgCall, rpcVersion, program, version, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return cred.append(b)
}

// procedureAt is where the procedure's number stands in a header.
const procedureAt = 24

// seal writes record mark and xid into a call of which head is all but the payload.
func seal(head []byte, xid uint32, payload int) {
	n := len(head) - markSize + payload + xdr.Pad(payload)
	binary.BigEndian.PutUint32(head, lastFragment|uint32(n))
	binary.BigEndian.PutUint32(head[xidAt:], xid)
}

// ReplyError is a reply that says that the call was not carried out.
type ReplyError struct {
	Denied bool   // MSG_DENIED; else it was accepted, but not with SUCCESS
	Code   uint32 // reject_stat, auth_stat with Auth, or accept_stat
	Auth   bool   // AUTH_ERROR
	Low    uint32 // with a mismatch: the versions that the server has
	High   uint32
}

var acceptTexts = []string{"", "the server has no such program", "the server does not have this version of the program",
	"the server has no such procedure", "the server could not decode the arguments", "the server ran out of memory or the like"}

var authTexts = []string{"", "bad credential", "rejected credential", "bad verifier", "rejected verifier", "credential too weak",
	"bad response verifier", "unknown reason"}

// Mismatch reports whether the server lacks the version or the program.
func (e *ReplyError) Mismatch() bool {
	return !e.Denied && (e.Code == acceptNoProgram || e.Code == acceptNoVersion)
}

// Error says what the server said.
func (e *ReplyError) Error() string {
	switch {
	case e.Auth && int(e.Code) < len(authTexts):
		return "RPC authentication refused: " + authTexts[e.Code]
	case e.Auth:
		return fmt.Sprintf("RPC authentication refused: auth_stat %d", e.Code)
	case e.Denied:
		return fmt.Sprintf("RPC refused: version mismatch (server has %d to %d)", e.Low, e.High)
	case e.Code == acceptNoVersion:
		return fmt.Sprintf("%s (it has %d to %d)", acceptTexts[e.Code], e.Low, e.High)
	case int(e.Code) < len(acceptTexts):
		return acceptTexts[e.Code]
	}
	return fmt.Sprintf("RPC accept_stat %d", e.Code)
}

const (
	acceptNoProgram = 1
	acceptNoVersion = 2
)

// parseReply takes the header off a reply, from the word after the xid on, and
// gives what is left, the results. p may end before the reply does.
func parseReply(p []byte) (results []byte, refused *ReplyError, err error) {
	r := xdr.NewReader(p)
	if r.Uint32() != msgReply {
		return nil, nil, protocolError("neither call nor reply")
	}
	denied := r.Uint32()
	switch denied {
	case 0:
		r.Uint32() // a verifier of whatever flavor: nobody asked for one
		r.Opaque(maxVerifier)
		code := r.Uint32()
		if code == 0 {
			break
		}
		refused = &ReplyError{Code: code}
		if code == acceptNoVersion {
			refused.Low, refused.High = r.Uint32(), r.Uint32()
		}
	case 1:
		refused = &ReplyError{Denied: true, Code: r.Uint32()}
		if refused.Code == 1 {
			refused.Auth, refused.Code = true, r.Uint32()
		} else {
			refused.Low, refused.High = r.Uint32(), r.Uint32()
		}
	default:
		return nil, nil, protocolError("reply_stat %d", denied)
	}
	if r.Err() != nil {
		return nil, nil, protocolError("a reply that is too short")
	}
	return r.Rest(), refused, nil
}

// ProtocolError is a breach of the rules by the server, after which nothing on the
// connection can be trusted.
type ProtocolError struct{ what string }

// Error says what the server did.
func (e *ProtocolError) Error() string { return "the server breaks the RPC protocol: " + e.what }

func protocolError(format string, args ...any) error {
	return &ProtocolError{what: fmt.Sprintf(format, args...)}
}
