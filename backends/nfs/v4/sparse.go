package v4

import (
	"context"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// Holes and copies within the server: NFSv4.2 (RFC 7862).

// Seek implements remote.Seeker.
func (f *File) Seek(ctx context.Context, off int64, hole bool) (at int64, end bool, err error) {
	what := uint32(seekData)
	if hole {
		what = seekHole
	}
	err = f.do(ctx, &chain{steps: []step{putFH(f.fh), {
		op: opSeek,
		args: func(b []byte) []byte {
			b = appendStateID(b, f.stateID())
			return xdr.AppendUint32(xdr.AppendUint64(b, uint64(off)), what)
		},
		result: func(r *results) { end, at = r.Bool(), int64(r.Uint64()) },
	}}})
	if statusOf(err) == nfsstat.NXIO { // off is at the end, or there is nothing after it
		return 0, true, nil
	}
	if err == nil && !end && at < off {
		err = breach("SEEK from %d gave %d", off, at)
	}
	return at, end, err
}

func (f *File) allocation(op uint32, off, n int64) *chain {
	return &chain{changes: true, steps: []step{putFH(f.fh), {
		op: op,
		args: func(b []byte) []byte {
			b = appendStateID(b, f.stateID())
			return xdr.AppendUint64(xdr.AppendUint64(b, uint64(off)), uint64(n))
		},
	}}}
}

// Allocate implements remote.Allocator.
func (f *File) Allocate(ctx context.Context, off, n int64) error {
	return f.do(ctx, f.allocation(opAllocate, off, n))
}

// Deallocate implements remote.Allocator.
func (f *File) Deallocate(ctx context.Context, off, n int64) error {
	return f.do(ctx, f.allocation(opDeallocate, off, n))
}

// Clone implements remote.Copier.
func (f *File) Clone(ctx context.Context, from remote.File, fromOff, off, n int64) error {
	src, err := f.sibling(from)
	if err != nil {
		return err
	}
	return f.do(ctx, &chain{changes: true, steps: []step{putFH(src.fh), saveFH(), putFH(f.fh), {
		op: opClone,
		args: func(b []byte) []byte {
			b = appendStateID(appendStateID(b, src.stateID()), f.stateID())
			for _, v := range []int64{fromOff, off, n} {
				b = xdr.AppendUint64(b, uint64(v))
			}
			return b
		},
	}}})
}

// Copy implements remote.Copier.
func (f *File) Copy(ctx context.Context, from remote.File, fromOff, off, n int64) (int64, remote.Written, error) {
	src, err := f.sibling(from)
	if err != nil {
		return 0, remote.Written{}, err
	}
	var done uint64
	var async bool
	var written remote.Written
	err = f.do(ctx, &chain{changes: true, steps: []step{putFH(src.fh), saveFH(), putFH(f.fh), {
		op: opCopy,
		args: func(b []byte) []byte {
			b = appendStateID(appendStateID(b, src.stateID()), f.stateID())
			for _, v := range []int64{fromOff, off, n} {
				b = xdr.AppendUint64(b, uint64(v))
			}
			b = xdr.AppendBool(b, true)   // in order
			b = xdr.AppendBool(b, true)   // and not in the background
			return xdr.AppendUint32(b, 0) // on this server
		},
		result: func(r *results) {
			if ids := r.Uint32(); ids == 1 {
				async = true
				readStateID(r)
			} else if ids > 1 {
				r.Fail()
			}
			done = r.Uint64()
			written = remote.Written{Durable: r.Uint32() == fileSync, Verifier: readVerifier(r)}
			r.Bool()
			r.Bool()
		},
	}}})
	switch {
	case err != nil:
		return 0, written, err
	case async:
		return 0, written, breach("COPY in the background, which was not asked for")
	case done > uint64(n) || done == 0 && n > 0:
		return 0, written, breach("COPY of %d bytes of %d", done, n)
	}
	return int64(done), written, nil
}

// sibling is a file of the same client.
func (f *File) sibling(from remote.File) (*File, error) {
	src, ok := from.(*File)
	if !ok || src.c != f.c {
		return nil, &nfsstat.Error{Op: "COPY", Status: nfsstat.XDev}
	}
	return src, nil
}
