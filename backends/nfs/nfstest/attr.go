package nfstest

import (
	"encoding/binary"
	"strconv"
	"time"

	"sluice/backends/nfs/xdr"
)

// Attributes of NFSv4 by number (RFC 8881 section 5.6 and 5.7, RFC 7862 section 12.2).
const (
	attrSize     = 4
	attrMode     = 33
	attrOwner    = 36
	attrGroup    = 37
	attrSetAtime = 48
	attrSetMtime = 54
	attrExclSet  = 75
	fsid         = 0x6e667374
)

type bitmap [3]uint32

func readBitmap(r *xdr.Reader) (m bitmap) {
	n := r.Uint32()
	if n > 64 {
		r.Fail()
	}
	for i := uint32(0); i < n && r.Err() == nil; i++ {
		v := r.Uint32()
		switch {
		case i < uint32(len(m)):
			m[i] = v
		case v != 0:
			m[2] |= 1 << 31 // an attribute that is too new: never supported
		}
	}
	return m
}

func bits(numbers ...int) (m bitmap) {
	for _, n := range numbers {
		m[n/32] |= 1 << (n % 32)
	}
	return m
}

func (m bitmap) has(n int) bool { return m[n/32]&(1<<(n%32)) != 0 }

func (m bitmap) append(b []byte) []byte {
	b = xdr.AppendUint32(b, uint32(len(m)))
	for _, v := range m {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

// exclusive are the attributes that EXCLUSIVE4_1 may set.
var exclusive = bits(attrSize, attrMode, attrOwner, attrGroup)

// settable are those that SETATTR may set.
var settable = bits(attrSize, attrMode, attrOwner, attrGroup, attrSetAtime, attrSetMtime)

// attribute is one that can be read.
type attribute struct {
	number int
	append func(c *compound, n *inode, b []byte) []byte
}

func fixed32(v uint32) func(*compound, *inode, []byte) []byte {
	return func(_ *compound, _ *inode, b []byte) []byte { return xdr.AppendUint32(b, v) }
}

func fixed64(v uint64) func(*compound, *inode, []byte) []byte {
	return func(_ *compound, _ *inode, b []byte) []byte { return xdr.AppendUint64(b, v) }
}

func appendTime(b []byte, t time.Time) []byte {
	return xdr.AppendUint32(xdr.AppendUint64(b, uint64(t.Unix())), uint32(t.Nanosecond()))
}

// attributes are in the order in which they are encoded.
var attributes []attribute

func init() {
	attributes = []attribute{
		{0, func(c *compound, _ *inode, b []byte) []byte { return c.supported().append(b) }},
		{1, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint32(b, n.kind) }},
		{2, fixed32(0)}, // FH4_PERSISTENT
		{3, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint64(b, n.change) }},
		{attrSize, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint64(b, n.size()) }},
		{5, fixed32(1)}, {6, fixed32(1)}, {7, fixed32(0)},
		{8, func(_ *compound, _ *inode, b []byte) []byte { return xdr.AppendUint64(xdr.AppendUint64(b, fsid), 0) }},
		{9, fixed32(1)},
		{10, func(c *compound, _ *inode, b []byte) []byte {
			return xdr.AppendUint32(b, uint32(c.srv.options.Lease/time.Second))
		}},
		{11, fixed32(0)}, {13, fixed32(0)}, {15, fixed32(1)}, {16, fixed32(0)}, {17, fixed32(1)}, {18, fixed32(1)},
		{19, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendOpaque(b, n.handle()) }},
		{20, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint64(b, n.id) }},
		{21, fixed64(1 << 20)}, {22, fixed64(1 << 20)}, {23, fixed64(1 << 20)}, {26, fixed32(1)},
		{27, fixed64(maxSize)}, {28, fixed32(1000)}, {29, fixed32(maxName)},
		{30, func(c *compound, _ *inode, b []byte) []byte {
			return xdr.AppendUint64(b, uint64(c.srv.limits.ReadSize))
		}},
		{31, func(c *compound, _ *inode, b []byte) []byte {
			return xdr.AppendUint64(b, uint64(c.srv.limits.WriteSize))
		}},
		{attrMode, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint32(b, n.mode) }},
		{34, fixed32(1)},
		{35, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint32(b, n.links) }},
		{attrOwner, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendString(b, strconv.Itoa(int(n.uid))) }},
		{attrGroup, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendString(b, strconv.Itoa(int(n.gid))) }},
		{41, fixed64(0)}, {42, fixed64(freeSpace)}, {43, fixed64(freeSpace)}, {44, fixed64(freeSpace)},
		{45, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint64(b, n.used()) }},
		{47, func(_ *compound, n *inode, b []byte) []byte { return appendTime(b, n.atime) }},
		{51, func(_ *compound, _ *inode, b []byte) []byte { return xdr.AppendUint32(xdr.AppendUint64(b, 0), 1) }},
		{52, func(_ *compound, n *inode, b []byte) []byte { return appendTime(b, n.ctime) }},
		{53, func(_ *compound, n *inode, b []byte) []byte { return appendTime(b, n.mtime) }},
		{55, func(_ *compound, n *inode, b []byte) []byte { return xdr.AppendUint64(b, n.id) }},
		{attrExclSet, func(_ *compound, _ *inode, b []byte) []byte { return exclusive.append(b) }},
		{77, fixed32(pageSize)},
	}
}

// freeSpace is what the file system claims to have.
const freeSpace = 1 << 40

// supported are all attributes of the minor version of the compound.
func (c *compound) supported() (m bitmap) {
	for _, a := range attributes {
		m[a.number/32] |= 1 << (a.number % 32)
	}
	m[1] |= settable[1]
	if c.minor < 2 {
		m[2] &^= 1 << (77 % 32)
	}
	return m
}

// appendAttrs appends a fattr4 with what of want is supported.
func (c *compound) appendAttrs(n *inode, want bitmap) {
	can := c.supported()
	for i := range want {
		want[i] &= can[i] &^ (bits(attrSetAtime, attrSetMtime)[i])
	}
	c.out = want.append(c.out)
	at := len(c.out)
	c.out = xdr.AppendUint32(c.out, 0)
	for _, a := range attributes {
		if want.has(a.number) {
			c.out = a.append(c, n, c.out)
		}
	}
	binary.BigEndian.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
}

// changes are attributes to set; those that are nil stay.
type changes struct {
	size           *uint64
	mode, uid, gid *uint32
	atime, mtime   *time.Time
}

// readChanges reads a fattr4 to set, and returns which attributes it has.
func readChanges(r *xdr.Reader) (ch changes, set bitmap, status uint32) {
	set = readBitmap(r)
	v := xdr.NewReader(r.Opaque(4096))
	for i := range set {
		if set[i]&^settable[i] != 0 {
			return ch, set, errAttrNotSupp
		}
	}
	if set.has(attrSize) {
		size := v.Uint64()
		ch.size = &size
	}
	if set.has(attrMode) {
		mode := v.Uint32()
		ch.mode = &mode
	}
	if set.has(attrOwner) {
		ch.uid, status = readOwner(&v)
	}
	if set.has(attrGroup) && status == ok {
		ch.gid, status = readOwner(&v)
	}
	if set.has(attrSetAtime) {
		ch.atime = readTime(&v)
	}
	if set.has(attrSetMtime) {
		ch.mtime = readTime(&v)
	}
	if v.Err() != nil || v.Len() != 0 {
		return ch, set, errBadXDR
	}
	return ch, set, status
}

func readOwner(r *xdr.Reader) (*uint32, uint32) {
	n, err := strconv.ParseUint(r.String(1024), 10, 32)
	if err != nil {
		return nil, errBadOwner
	}
	id := uint32(n)
	return &id, ok
}

func readTime(r *xdr.Reader) *time.Time {
	t := time.Now()
	switch r.Uint32() {
	case 0: // SET_TO_SERVER_TIME4
	case 1:
		seconds := int64(r.Uint64())
		t = time.Unix(seconds, int64(r.Uint32()))
	default:
		r.Fail()
	}
	return &t
}

// apply sets attributes; they are durable at once.
func (n *inode) apply(ch *changes) uint32 {
	if ch.size != nil {
		switch {
		case n.kind == kindDir:
			return errIsDir
		case n.kind != kindFile:
			return errInval
		case *ch.size > maxSize:
			return errFBig
		}
		n.data.resize(int64(*ch.size))
	}
	for _, f := range []struct{ to, from *uint32 }{{&n.mode, ch.mode}, {&n.uid, ch.uid}, {&n.gid, ch.gid}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	n.mode &= 0o7777
	n.touch(ch.size != nil)
	if ch.atime != nil {
		n.atime = *ch.atime
	}
	if ch.mtime != nil {
		n.mtime = *ch.mtime
	}
	return ok
}
