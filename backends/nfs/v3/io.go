package v3

import (
	"context"
	"encoding/binary"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// The data path. Stages of each call, all in the caller's goroutine:
//
//  1. the file's gate, and a slot;
//  2. the call is encoded into the slot's head, and made;
//  3. the results are decoded, and the slot is given back;
//  4. "later" and a stale handle are dealt with (File.again), and it begins anew.

// Read implements remote.File.
func (f *File) Read(ctx context.Context, p []byte, off int64) (int, error) {
	p = p[:min(len(p), f.limits.Read)]
	if !f.gate.Enter() {
		return 0, block.Closed
	}
	defer f.gate.Leave()
	if len(p) == 0 {
		return 0, nil
	}
	wait := f.patience()
	for {
		fh := f.handle.Load()
		n, err := f.readOnce(ctx, *fh, p, off)
		if err == nil {
			return n, nil
		}
		if err = f.again(ctx, &wait, fh, err); err != nil {
			return 0, err
		}
	}
}

func (f *File) readOnce(ctx context.Context, fh handle, p []byte, off int64) (int, error) {
	sl, err := f.c.slots.take(ctx, f.closing)
	if err != nil {
		return 0, err
	}
	call := sl.call
	b := xdr.AppendOpaque(sl.t.Start(call.Head, procRead), fh)
	call.Head = xdr.AppendUint32(xdr.AppendUint64(b, uint64(off)), uint32(len(p)))
	call.Data, call.Into, call.Find, call.Changes = nil, p, readPayload{}, false
	if err := sl.do(ctx, procRead); err != nil {
		return 0, err
	}
	n, err := readResult(call.Reply, call.N, p)
	sl.release()
	return n, err
}

// readResult decodes the results of READ, of whose payload moved bytes are in p
// already: then they end before it.
func readResult(results []byte, moved int, p []byte) (int, error) {
	r, err := open(procRead, results)
	if err != nil {
		return 0, err
	}
	skipPost(&r.Reader)
	count, eof := r.Uint32(), r.Bool()
	n := moved
	if moved > 0 {
		if r.Uint32() != uint32(moved) {
			r.Fail()
		}
	} else {
		n = copy(p, r.Opaque(len(p)))
	}
	if err := r.check(); err != nil {
		return 0, err
	}
	switch {
	case int64(count) != int64(n):
		return 0, breach("READ", "a count of %d with %d bytes of data", count, n)
	case n == 0 && !eof:
		return 0, breach("READ", "no bytes, and not the end of the file")
	}
	return n, nil
}

// readPayload finds the data in the results of READ: status, attributes if there are
// any, count, eof, and the data.
type readPayload struct{}

// Payload implements rpc.Finder.
func (readPayload) Payload(results []byte) (at, n int) {
	if len(results) < 8 || nfsstat.Status(binary.BigEndian.Uint32(results)) != nfsstat.OK {
		return 0, 0
	}
	at = 8 + 12
	switch binary.BigEndian.Uint32(results[4:]) {
	case 0:
	case 1:
		at += attrSize
	default:
		return 0, 0
	}
	if len(results) < at {
		return 0, 0
	}
	return at, int(binary.BigEndian.Uint32(results[at-4:]))
}

// Write implements remote.File.
func (f *File) Write(ctx context.Context, p []byte, off int64, stable bool) (remote.Written, error) {
	p = p[:min(len(p), f.limits.Write)]
	if !f.gate.Enter() {
		return remote.Written{}, block.Closed
	}
	defer f.gate.Leave()
	if len(p) == 0 {
		return remote.Written{Durable: true}, nil
	}
	wait := f.patience()
	for {
		fh := f.handle.Load()
		w, err := f.writeOnce(ctx, *fh, write{p, off, stable})
		if err == nil {
			f.see(w.Verifier)
			return w, nil
		}
		if err = f.again(ctx, &wait, fh, err); err != nil {
			return remote.Written{}, err
		}
	}
}

// write is what one WRITE is to do.
type write struct {
	p      []byte
	off    int64
	stable bool
}

func (f *File) writeOnce(ctx context.Context, fh handle, w write) (remote.Written, error) {
	sl, err := f.c.slots.take(ctx, f.closing)
	if err != nil {
		return remote.Written{}, err
	}
	call := sl.call
	call.Head = w.append(sl.t.Start(call.Head, procWrite), fh)
	call.Data, call.Into, call.Find, call.Changes = w.p, nil, nil, true
	if err := sl.do(ctx, procWrite); err != nil {
		return remote.Written{}, err
	}
	written, err := w.result(call.Reply)
	sl.release()
	return written, err
}

// append appends the arguments up to the data.
func (w write) append(b []byte, fh handle) []byte {
	b = xdr.AppendUint64(xdr.AppendOpaque(b, fh), uint64(w.off))
	how := uint32(unstable)
	if w.stable {
		how = fileSync
	}
	b = xdr.AppendUint32(xdr.AppendUint32(b, uint32(len(w.p))), how)
	return xdr.AppendUint32(b, uint32(len(w.p)))
}

// result decodes the results, with their status.
func (w write) result(results []byte) (remote.Written, error) {
	r, err := open(procWrite, results)
	if err != nil {
		return remote.Written{}, err
	}
	return w.decode(&r)
}

// decode decodes what follows the status.
func (w write) decode(r *result) (remote.Written, error) {
	skipWCC(&r.Reader)
	n, how, verifier := r.Uint32(), r.Uint32(), r.Uint64()
	if how > fileSync {
		r.Fail()
	}
	if err := r.check(); err != nil {
		return remote.Written{}, err
	}
	switch {
	case n == 0 || int64(n) > int64(len(w.p)):
		return remote.Written{}, breach("WRITE", "%d bytes written of %d", n, len(w.p))
	case w.stable && how != fileSync:
		return remote.Written{}, breach("WRITE", "a stable write that is not durable")
	}
	return remote.Written{N: int(n), Durable: how == fileSync, Verifier: remote.Verifier(verifier)}, nil
}

// Commit implements remote.File.
func (f *File) Commit(ctx context.Context) (remote.Verifier, error) {
	if !f.gate.Enter() {
		return 0, block.Closed
	}
	defer f.gate.Leave()
	wait := f.patience()
	for {
		fh := f.handle.Load()
		v, err := f.commitOnce(ctx, *fh)
		if err == nil {
			f.see(v)
			return v, nil
		}
		if err = f.again(ctx, &wait, fh, err); err != nil {
			return 0, err
		}
	}
}

func (f *File) commitOnce(ctx context.Context, fh handle) (remote.Verifier, error) {
	sl, err := f.c.slots.take(ctx, f.closing)
	if err != nil {
		return 0, err
	}
	call := sl.call
	call.Head = appendCommit(sl.t.Start(call.Head, procCommit), fh)
	call.Data, call.Into, call.Find, call.Changes = nil, nil, nil, false
	if err := sl.do(ctx, procCommit); err != nil {
		return 0, err
	}
	v, err := commitResult(call.Reply)
	sl.release()
	return v, err
}

// appendCommit appends the arguments of a COMMIT of the whole file.
func appendCommit(b []byte, fh handle) []byte {
	return xdr.AppendUint32(xdr.AppendUint64(xdr.AppendOpaque(b, fh), 0), 0)
}

func commitResult(results []byte) (remote.Verifier, error) {
	r, err := open(procCommit, results)
	if err != nil {
		return 0, err
	}
	return readCommit(&r)
}

func readCommit(r *result) (remote.Verifier, error) {
	skipWCC(&r.Reader)
	v := remote.Verifier(r.Uint64())
	return v, r.check()
}
