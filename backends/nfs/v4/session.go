package v4

import (
	"sync/atomic"

	"sluice/backends/nfs/xdr"
)

// session is one that the server granted.
type session struct {
	id     [16]byte
	fore   channel
	number uint64 // counts the sessions of a Client
	// spoiled: a sequence number of it is not known any more, or calls that were
	// given up may yet be carried out.
	spoiled atomic.Bool
	target  atomic.Uint32 // highest slot that the server wants us to use
	// revoked: the server has said that it revoked state; looked is the second in
	// which that was last looked into, since it goes on saying so.
	revoked atomic.Bool
	looked  atomic.Int64
	reclaim atomic.Bool // the server wants all opened again
	proven  atomic.Bool // a call went well after recovery
}

// channel are a session's limits in one direction (RFC 8881, section 18.36,
// channel_attrs4).
type channel struct {
	maxRequest, maxResponse, maxCached uint32 // bytes
	maxOps, maxSlots                   uint32
}

func (c channel) append(b []byte) []byte {
	b = xdr.AppendUint32(b, 0) // no header padding
	for _, v := range []uint32{c.maxRequest, c.maxResponse, c.maxCached, c.maxOps, c.maxSlots, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

func readChannel(r *results) (c channel) {
	r.Uint32()
	c = channel{maxRequest: r.Uint32(), maxResponse: r.Uint32(), maxCached: r.Uint32(), maxOps: r.Uint32(), maxSlots: r.Uint32()}
	if n := r.Uint32(); n > 1 {
		r.Fail()
	} else if n == 1 {
		r.Uint32()
	}
	return c
}

// Sizes of what surrounds a payload in calls and replies, with room for the longest
// credential, handle and path.
const (
	overhead  = 4 << 10
	smallest  = 8 << 10 // requests and responses of a session that can be used at all
	backBytes = 4 << 10
	wantedOps = 32
)

// forward is what we ask for: maxIO is the longest payload.
func forward(maxIO int) channel {
	n := uint32(maxIO) + overhead
	return channel{maxRequest: n, maxResponse: n, maxCached: overhead, maxOps: wantedOps, maxSlots: maxSlots}
}

// backward is the channel for the server's calls.
var backward = channel{maxRequest: backBytes, maxResponse: backBytes, maxCached: backBytes, maxOps: 8, maxSlots: 1}

// sequenceArgs appends SEQUENCE.
func appendSequence(b []byte, s *session, sl *slot, highest uint32, cache bool) []byte {
	b = xdr.AppendUint32(b, opSequence)
	b = append(b, s.id[:]...)
	b = xdr.AppendUint32(b, sl.seq)
	b = xdr.AppendUint32(b, sl.id)
	b = xdr.AppendUint32(b, highest)
	return xdr.AppendBool(b, cache)
}

// sequenced is a result of SEQUENCE.
type sequenced struct {
	id              [16]byte
	seq, slot       uint32
	highest, target uint32
	flags           uint32
}

func readSequence(r *results) (s sequenced) {
	copy(s.id[:], r.Fixed(len(s.id)))
	s.seq, s.slot, s.highest, s.target, s.flags = r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32()
	return s
}
