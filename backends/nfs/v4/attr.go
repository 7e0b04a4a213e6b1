package v4

import (
	"strconv"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
)

// Attributes by number (RFC 8881, section 5).
const (
	attrType       = 1
	attrChange     = 3
	attrSize       = 4
	attrFSID       = 8
	attrLeaseTime  = 10
	attrError      = 11
	attrFileID     = 20
	attrMaxRead    = 30
	attrMaxWrite   = 31
	attrMode       = 33
	attrNumLinks   = 35
	attrOwner      = 36
	attrOwnerGroup = 37
	attrSpaceAvail = 42
	attrSpaceTotal = 44
	attrSpaceUsed  = 45
	attrTimeModify = 53

	attrTimeAccessSet = 48
	attrTimeModifySet = 54
)

// bitmap is a set of attributes: those that are used here have numbers below 64.
type bitmap uint64

func attrs(numbers ...uint) (b bitmap) {
	for _, n := range numbers {
		b |= 1 << n
	}
	return b
}

func (b bitmap) has(n uint) bool { return b>>n&1 != 0 }

func (b bitmap) append(p []byte) []byte {
	p = xdr.AppendUint32(p, 2)
	p = xdr.AppendUint32(p, uint32(b))
	return xdr.AppendUint32(p, uint32(b>>32))
}

// readBitmap takes a bitmap; more tells that it names attributes beyond the 64.
func readBitmap(r *xdr.Reader) (b bitmap, more bool) {
	words := r.Uint32()
	if words > maxBitmapWords {
		r.Fail()
		return 0, false
	}
	for i := range words {
		w := r.Uint32()
		switch {
		case i < 2:
			b |= bitmap(w) << (32 * i)
		case w != 0:
			more = true
		}
	}
	return b, more
}

var (
	// fileAttrs describe a file.
	fileAttrs = attrs(attrType, attrChange, attrSize, attrFSID, attrFileID, attrMode, attrNumLinks, attrOwner, attrOwnerGroup,
		attrSpaceUsed, attrTimeModify)
	// openAttrs are those with the limits of a file that is opened.
	openAttrs = fileAttrs | attrs(attrMaxRead, attrMaxWrite)
	// listAttrs are those of a folder's entries; one that has none tells why instead.
	listAttrs  = fileAttrs | attrs(attrError)
	leaseAttrs = attrs(attrLeaseTime)
	spaceAttrs = attrs(attrSpaceAvail, attrSpaceTotal)
)

// attributes is what a GETATTR gave.
type attributes struct {
	remote.Attr
	has               bitmap
	lease             uint32 // seconds
	maxRead, maxWrite uint64
	avail, total      uint64
}

// read takes a fattr4. Attributes that were not asked for make it malformed, since
// their length is not known.
func (a *attributes) read(r *xdr.Reader) {
	has, more := readBitmap(r)
	body := xdr.NewReader(r.Opaque(maxAttrs))
	*a = attributes{has: has, Attr: remote.Attr{Used: -1, UID: ^uint32(0), GID: ^uint32(0)}}
	if more || has&^(openAttrs|listAttrs|leaseAttrs|spaceAttrs) != 0 {
		r.Fail()
		return
	}
	for n := uint(0); n < 64; n++ {
		if has.has(n) {
			a.readOne(n, &body)
		}
	}
	if body.Err() != nil || body.Len() != 0 {
		r.Fail()
	}
}

func (a *attributes) readOne(n uint, r *xdr.Reader) {
	switch n {
	case attrType:
		a.Type = typeOf(r.Uint32())
	case attrChange:
		a.Change = r.Uint64()
	case attrSize:
		a.Size = length(r)
	case attrFSID:
		a.ID.FSID = [2]uint64{r.Uint64(), r.Uint64()}
	case attrLeaseTime:
		a.lease = r.Uint32()
	case attrError:
		r.Uint32()
	case attrFileID:
		a.ID.ID = r.Uint64()
	case attrMaxRead:
		a.maxRead = r.Uint64()
	case attrMaxWrite:
		a.maxWrite = r.Uint64()
	case attrMode:
		a.Mode = r.Uint32()
	case attrNumLinks:
		a.Links = r.Uint32()
	case attrOwner:
		a.UID = number(r.Opaque(maxName))
	case attrOwnerGroup:
		a.GID = number(r.Opaque(maxName))
	case attrSpaceAvail:
		a.avail = r.Uint64()
	case attrSpaceTotal:
		a.total = r.Uint64()
	case attrSpaceUsed:
		a.Used = length(r)
	case attrTimeModify:
		seconds, nanos := int64(r.Uint64()), r.Uint32()
		a.ModTime = time.Unix(seconds, int64(nanos))
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

// number reads an owner that is given as a number (RFC 8881, section 5.9).
func number(p []byte) uint32 {
	v, err := strconv.ParseUint(string(p), 10, 32)
	if err != nil {
		return ^uint32(0)
	}
	return uint32(v)
}

// appendSet appends the fattr4 of attributes to be set.
func appendSet(b []byte, set remote.SetAttr) []byte { return appendAttrs(b, set, false) }

// appendAttrs is appendSet; with times, those of access and change become the server's
// present.
func appendAttrs(b []byte, set remote.SetAttr, times bool) []byte {
	var which bitmap
	var body []byte
	if set.Size != nil {
		which |= attrs(attrSize)
		body = xdr.AppendUint64(body, uint64(*set.Size))
	}
	if set.Mode != nil {
		which |= attrs(attrMode)
		body = xdr.AppendUint32(body, *set.Mode)
	}
	if set.UID != nil {
		which |= attrs(attrOwner)
		body = xdr.AppendString(body, strconv.FormatUint(uint64(*set.UID), 10))
	}
	if set.GID != nil {
		which |= attrs(attrOwnerGroup)
		body = xdr.AppendString(body, strconv.FormatUint(uint64(*set.GID), 10))
	}
	if times {
		which |= attrs(attrTimeAccessSet, attrTimeModifySet)
		body = xdr.AppendUint32(xdr.AppendUint32(body, 0), 0) // SET_TO_SERVER_TIME4
	}
	return xdr.AppendOpaque(which.append(b), body)
}
