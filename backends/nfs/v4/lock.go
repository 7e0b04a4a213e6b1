package v4

import (
	"context"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/xdr"
)

// Byte-range locks (RFC 8881, sections 18.10 and 18.12) and questions about stateids
// (18.38, 18.48).

// Lock is a byte-range lock that a File holds.
type Lock struct {
	f      *File
	state  stateID
	off, n int64
}

// Lock takes a byte-range lock. It fails with Busy where another holds one that is
// against it. n = -1: to the end, wherever that moves.
func (f *File) Lock(ctx context.Context, off, n int64, exclusive bool) (*Lock, error) {
	l := &Lock{f: f, off: off, n: n}
	kind := uint32(lockRead)
	if exclusive {
		kind = lockWrite
	}
	err := f.do(ctx, &chain{keep: true, steps: []step{putFH(f.fh), {
		op: opLock,
		args: func(b []byte) []byte {
			b = xdr.AppendUint32(b, kind)
			b = xdr.AppendBool(b, false) // no reclaim
			b = xdr.AppendUint64(xdr.AppendUint64(b, uint64(off)), uint64(n))
			b = xdr.AppendBool(b, true) // a new lock owner, that of the open
			b = xdr.AppendUint32(b, 0)
			b = appendStateID(b, f.stateID())
			b = xdr.AppendUint32(b, 0)
			return xdr.AppendString(xdr.AppendUint64(b, 0), f.owner)
		},
		result: func(r *results) { l.state = readStateID(r) },
	}}})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Unlock gives the lock back.
func (l *Lock) Unlock(ctx context.Context) error {
	err := l.f.do(ctx, &chain{keep: true, steps: []step{putFH(l.f.fh), {
		op: opLockU,
		args: func(b []byte) []byte {
			b = xdr.AppendUint32(xdr.AppendUint32(b, lockWrite), 0)
			b = appendStateID(b, l.state)
			return xdr.AppendUint64(xdr.AppendUint64(b, uint64(l.off)), uint64(l.n))
		},
		result: func(r *results) { l.state = readStateID(r) },
	}}})
	if err != nil {
		return err
	}
	err = l.f.c.do(ctx, freeStateID(l.state))
	if statusOf(err) == nfsstat.LocksHeld { // another range of this file's
		err = nil
	}
	return err
}

func freeStateID(id stateID) *chain {
	return &chain{keep: true, steps: []step{{op: opFreeStateID, args: func(b []byte) []byte { return appendStateID(b, id) }}}}
}

// testStateID asks for the status of one stateid.
func testStateID(id stateID, status *uint32) *chain {
	return &chain{steps: []step{{
		op:   opTestStateID,
		args: func(b []byte) []byte { return appendStateID(xdr.AppendUint32(b, 1), id) },
		result: func(r *results) {
			if r.Uint32() != 1 {
				r.Fail()
			}
			*status = r.Uint32()
		},
	}}}
}
