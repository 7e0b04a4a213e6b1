package v3

import (
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// attributes is a fattr3 (RFC 1813, section 2.6).
type attributes struct {
	remote.Attr
	known bool      // it was there
	times [2]uint32 // seconds of last access and change
}

// read takes a fattr3.
func (a *attributes) read(r *xdr.Reader) {
	kind := r.Uint32()
	if kind == 0 || kind > typeLast {
		r.Fail()
	}
	*a = attributes{known: true}
	a.Type = typeOf(kind)
	a.Mode, a.Links, a.UID, a.GID = r.Uint32()&0o7777, r.Uint32(), r.Uint32(), r.Uint32()
	a.Size, a.Used = length(r), length(r)
	r.Skip(8) // numbers of a device
	a.ID.FSID[0], a.ID.ID = r.Uint64(), r.Uint64()
	a.times[0] = r.Uint32()
	r.Skip(4)
	a.times[1] = r.Uint32()
	a.ModTime = time.Unix(int64(a.times[1]), int64(r.Uint32()))
	a.Change = r.Uint64() // seconds and nanoseconds of the ctime
	if r.Err() != nil {
		a.known = false
	}
}

// readPost takes a post_op_attr, which a server may leave out.
func (a *attributes) readPost(r *xdr.Reader) {
	*a = attributes{}
	if r.More() {
		a.read(r)
	}
}

// length takes a size that has to be a file's.
func length(r *xdr.Reader) int64 {
	v := int64(r.Uint64())
	if v < 0 {
		r.Fail()
		return 0
	}
	return v
}

func typeOf(t uint32) remote.Type {
	switch t {
	case typeRegular:
		return remote.Regular
	case typeDirectory:
		return remote.Directory
	case typeSymlink:
		return remote.Symlink
	}
	return remote.Other
}

// skipPost takes a post_op_attr that nobody needs.
func skipPost(r *xdr.Reader) {
	if r.More() {
		r.Skip(attrSize)
	}
}

// skipWCC takes a wcc_data.
func skipWCC(r *xdr.Reader) {
	if r.More() {
		r.Skip(preAttrSize)
	}
	skipPost(r)
}

// readHandle takes a handle, which must not be empty.
func readHandle(r *xdr.Reader) handle {
	fh := r.Opaque(maxHandle)
	if len(fh) == 0 {
		r.Fail()
	}
	return append(handle(nil), fh...)
}

// readPostHandle takes a post_op_fh3; nil where it was left out.
func readPostHandle(r *xdr.Reader) handle {
	if r.More() {
		return readHandle(r)
	}
	return nil
}

// appendSet appends a sattr3. With times, those of access and change become the
// server's present.
func appendSet(b []byte, set remote.SetAttr, times bool) []byte {
	for _, v := range []*uint32{set.Mode, set.UID, set.GID} {
		b = xdr.AppendBool(b, v != nil)
		if v != nil {
			b = xdr.AppendUint32(b, *v)
		}
	}
	b = xdr.AppendBool(b, set.Size != nil)
	if set.Size != nil {
		b = xdr.AppendUint64(b, uint64(*set.Size))
	}
	how := uint32(timeKeep)
	if times {
		how = timeServer
	}
	return xdr.AppendUint32(xdr.AppendUint32(b, how), how)
}

// appendSetAttr appends the arguments of SETATTR, without a guard.
func appendSetAttr(b []byte, fh handle, set remote.SetAttr, times bool) []byte {
	return xdr.AppendBool(appendSet(xdr.AppendOpaque(b, fh), set, times), false)
}
