package v4

import (
	"context"
	"encoding/binary"
	"sync"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// The data path. A read, write or commit is an operation out of a pool; see the
// package's comment for its way.

// readOp is PUTFH, READ.
type readOp struct {
	f   *File
	p   []byte
	off int64
	n   int
	eof bool
}

var readOps = sync.Pool{New: func() any { return new(readOp) }}

// Read implements remote.File.
func (f *File) Read(ctx context.Context, p []byte, off int64) (int, error) {
	op := readOps.Get().(*readOp)
	op.f, op.p, op.off, op.n, op.eof = f, p[:min(len(p), f.limits.Read)], off, 0, false
	err := f.do(ctx, op)
	n := op.n
	if err == nil && n == 0 && !op.eof && len(p) > 0 {
		err = breach("a READ of no bytes before the end of the file")
	}
	op.f, op.p = nil, nil
	readOps.Put(op)
	return n, err
}

func (op *readOp) encode(b []byte) []byte {
	b = appendPutFH(b, op.f.fh)
	b = xdr.AppendUint32(b, opRead)
	b = appendStateID(b, *op.f.state.Load())
	b = xdr.AppendUint64(b, uint64(op.off))
	return xdr.AppendUint32(b, uint32(len(op.p)))
}

func appendPutFH(b []byte, fh handle) []byte {
	return xdr.AppendOpaque(xdr.AppendUint32(b, opPutFH), fh)
}

func (op *readOp) traits() traits { return traits{ops: 2, into: op.p, find: readPayload{}} }

func (op *readOp) decode(r *results) error {
	if err := r.next(opPutFH); err != nil {
		return err
	}
	if err := r.next(opRead); err != nil {
		return err
	}
	op.eof = r.Bool()
	if r.moved > 0 {
		if n := r.Uint32(); int(n) != r.moved {
			return breach("a malformed result of READ")
		}
		op.n = r.moved
		return r.check("READ")
	}
	data := r.Opaque(len(op.p))
	op.n = copy(op.p, data)
	return r.check("READ")
}

// readPayload finds the data in the reply to a readOp without a tag.
type readPayload struct{}

// Offsets in such a reply: the head of the compound, SEQUENCE, PUTFH, and READ's number,
// status and eof.
const (
	readAt     = 12 + 44 + 8
	readStatus = readAt + 4
	readLength = readAt + 12
	readData   = readAt + 16
)

func (readPayload) Payload(results []byte) (at, n int) {
	if len(results) < readData || binary.BigEndian.Uint64(results) != 0 || binary.BigEndian.Uint32(results[8:]) != 3 ||
		binary.BigEndian.Uint32(results[readAt:]) != opRead || nfsstat.Status(binary.BigEndian.Uint32(results[readStatus:])) != nfsstat.OK {
		return 0, 0
	}
	return readData, int(binary.BigEndian.Uint32(results[readLength:]))
}

// writeOp is PUTFH, WRITE.
type writeOp struct {
	f       *File
	p       []byte
	off     int64
	stable  bool
	written remote.Written
}

var writeOps = sync.Pool{New: func() any { return new(writeOp) }}

func getWrite(f *File, p []byte, off int64, stable bool) *writeOp {
	op := writeOps.Get().(*writeOp)
	*op = writeOp{f: f, p: p, off: off, stable: stable}
	return op
}

func putWrite(op *writeOp) {
	op.f, op.p = nil, nil
	writeOps.Put(op)
}

// Write implements remote.File.
func (f *File) Write(ctx context.Context, p []byte, off int64, stable bool) (remote.Written, error) {
	op := getWrite(f, p[:min(len(p), f.limits.Write)], off, stable)
	err := f.do(ctx, op)
	written := op.written
	putWrite(op)
	return written, err
}

func (op *writeOp) encode(b []byte) []byte {
	b = appendPutFH(b, op.f.fh)
	b = xdr.AppendUint32(b, opWrite)
	b = appendStateID(b, *op.f.state.Load())
	b = xdr.AppendUint64(b, uint64(op.off))
	how := uint32(unstable)
	if op.stable {
		how = fileSync
	}
	b = xdr.AppendUint32(b, how)
	return xdr.AppendUint32(b, uint32(len(op.p))) // the payload follows
}

func (op *writeOp) traits() traits { return traits{ops: 2, changes: true, data: op.p} }

func (op *writeOp) decode(r *results) error {
	if err := r.next(opPutFH); err != nil {
		return err
	}
	if err := r.next(opWrite); err != nil {
		return err
	}
	n, how := r.Uint32(), r.Uint32()
	op.written = remote.Written{N: int(n), Durable: how == fileSync, Verifier: readVerifier(r)}
	switch {
	case r.Err() != nil || how > fileSync:
		return breach("a malformed result of WRITE")
	case n == 0 || int64(n) > int64(len(op.p)):
		return breach("%d bytes written of %d", n, len(op.p))
	case op.stable && !op.written.Durable:
		return breach("a stable WRITE that the server has not made durable")
	}
	return nil
}

func readVerifier(r *results) remote.Verifier { return remote.Verifier(r.Uint64()) }

// commitOp is PUTFH, COMMIT of all.
type commitOp struct {
	f        *File
	verifier remote.Verifier
}

var commitOps = sync.Pool{New: func() any { return new(commitOp) }}

func getCommit(f *File) *commitOp {
	op := commitOps.Get().(*commitOp)
	op.f = f
	return op
}

func putCommit(op *commitOp) {
	op.f = nil
	commitOps.Put(op)
}

// Commit implements remote.File.
func (f *File) Commit(ctx context.Context) (remote.Verifier, error) {
	op := getCommit(f)
	err := f.do(ctx, op)
	v := op.verifier
	putCommit(op)
	return v, err
}

func (op *commitOp) encode(b []byte) []byte {
	b = appendPutFH(b, op.f.fh)
	b = xdr.AppendUint32(b, opCommit)
	b = xdr.AppendUint64(b, 0)
	return xdr.AppendUint32(b, 0)
}

func (op *commitOp) traits() traits { return traits{ops: 2} }

func (op *commitOp) decode(r *results) error {
	if err := r.next(opPutFH); err != nil {
		return err
	}
	if err := r.next(opCommit); err != nil {
		return err
	}
	op.verifier = readVerifier(r)
	return r.check("COMMIT")
}
