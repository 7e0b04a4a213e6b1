package nfstest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"sluice/backends/nfs/xdr"
)

// listed reads a directory of the export in replies of at most limit bytes.
func (c *sessioned) listed(limit uint32) (names []string, calls int) {
	c.t.Helper()
	for cookie, eof := uint64(0), false; !eof; calls++ {
		p := c.do(op(24), op(15, str("export")), op(26, u64(cookie, 0), u32(1, limit, 1, 1<<20))).ok(24).ok(15).ok(26)
		p.r.Skip(8)
		for p.r.More() {
			cookie = p.r.Uint64()
			names = append(names, p.r.String(255))
			readBitmap(&p.r)
			if id := p.r.Opaque(100); len(id) != 8 {
				c.t.Fatalf("attributes %x", id)
			}
		}
		eof = p.r.Bool()
		if p.r.Err() != nil {
			c.t.Fatal(p.r.Err())
		}
	}
	return names, calls
}

// TestNames: directories, renames, links and removals.
func TestNames(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	export := [][]byte{op(24), op(15, str("export"))}
	in := func(ops ...[]byte) *reply { return c.do(append(slices.Clone(export), ops...)...).ok(24).ok(15) }
	none := u32(0, 0)

	in(op(6, u32(kindDir), str("dir"), none)).ok(6)
	in(op(6, u32(kindSymlink), str("../x"), str("link"), none), op(27)).ok(6)
	if status := in(op(6, u32(kindDir), str("dir"), none)).next(6); status != errExist {
		t.Errorf("a second directory: status %d", status)
	}
	p := in(op(15, str("link")), op(27)).ok(15).ok(27)
	if target := p.r.String(100); target != "../x" {
		t.Errorf("target %q", target)
	}
	c.open("a", true)
	in(op(32), op(15, str("dir")), op(29, str("a"), str("b"))).ok(32).ok(15).ok(29)
	if s.Exists("/export/a") || !s.Exists("/export/dir/b") {
		t.Error("not renamed")
	}
	if status := in(op(28, str("dir"))).next(28); status != errNotEmpty {
		t.Errorf("a full directory: status %d", status)
	}
	in(op(15, str("dir")), op(15, str("b")), op(32), op(16), op(16), op(11, str("c"))).ok(15).ok(15).ok(32).next(16)
	in(op(15, str("dir")), op(15, str("b")), op(32), op(24), op(15, str("export")), op(11, str("c"))).
		ok(15).ok(15).ok(32).ok(24).ok(15).ok(11)
	in(op(15, str("dir")), op(28, str("b"))).ok(15).ok(28)
	in(op(15, str("dir")), op(16), op(10)).ok(15).ok(16).ok(10)
	in(op(28, str("dir"))).ok(28)
	in(op(28, str("link"))).ok(28)
	if names, _ := c.listed(4096); !slices.Equal(names, []string{"c"}) {
		t.Errorf("names %q", names)
	}
	for name, want := range map[string]uint32{"": errInval, ".": errBadName, "a/b": errBadChar, "no": errNoEnt} {
		if status := in(op(15, str(name))).next(15); status != want {
			t.Errorf("%q: status %d", name, status)
		}
	}
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("file %d", i))
		s.Create("/export/"+want[i], nil)
	}
	names, calls := c.listed(512)
	if !slices.Equal(names[1:], want) || calls < 10 {
		t.Errorf("%d names in %d calls", len(names), calls)
	}
	if status := in(op(26, u64(0, 0), u32(1, 20, 0))).next(26); status != errTooSmall {
		t.Errorf("a small READDIR: status %d", status)
	}
}

// TestAttributes: what GETATTR gives and SETATTR sets.
func TestAttributes(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	all := c.do(c.put(fh), op(9, u32(1, 1))).ok(22).ok(9)
	supported := func() bitmap {
		readBitmap(&all.r)
		all.r.Skip(4)
		return readBitmap(&all.r)
	}()
	for n := range 96 {
		if supported.has(n) != (settable.has(n) || slices.ContainsFunc(attributes, func(a attribute) bool { return a.number == n })) {
			t.Errorf("attribute %d", n)
		}
	}
	p := c.do(c.put(fh), op(9, append(u32(3), u32(supported[0], supported[1]&^settable[1]|2|16|32, supported[2])...))).ok(22).ok(9)
	readBitmap(&p.r)
	if p.r.Opaque(4096); p.r.Err() != nil || p.r.Len() != 0 {
		t.Errorf("all attributes: %v", p.r.Err())
	}
	size := append(u32(1, 1<<4), xdr.AppendOpaque(nil, u64(8192))...)
	c.do(c.put(fh), op(34, id, size)).ok(22).ok(34)
	if size, used := s.File("/export/disk").Size(); size != 8192 || used != 0 {
		t.Errorf("size %d, %d used", size, used)
	}
	p = c.do(c.put(fh), op(34, id, u32(1, 1<<3), xdr.AppendOpaque(nil, u64(1)))).ok(22)
	if status := p.next(34); status != errAttrNotSupp || len(readBitmapBytes(p)) != 3 {
		t.Errorf("change attribute: status %d", status)
	}
	mode := c.do(c.put(fh), op(34, make([]byte, 16), u32(2, 0, 2), xdr.AppendOpaque(nil, u32(0o600))), op(9, u32(2, 1<<4, 2)))
	mode.ok(22).ok(34)
	readBitmap(&mode.r)
	mode.ok(9)
	readBitmap(&mode.r)
	if got := mode.r.Opaque(12); !bytes.Equal(got, append(u64(8192), u32(0o600)...)) {
		t.Errorf("size and mode %x", got)
	}
}

func readBitmapBytes(p *reply) []uint32 {
	m := readBitmap(&p.r)
	return m[:]
}

// TestLocks: ranges that conflict and that do not.
func TestLocks(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	other := sessionOn(dial(t, s), "other", 1)
	other.do(op(58, u32(0))).ok(58)
	lock := func(kind uint32, offset, length uint64, owner string) []byte {
		return op(12, u32(kind, 0), u64(offset, length), u32(1, 0), id, u32(0), u64(0), str(owner))
	}
	p := c.do(c.put(fh), lock(2, 100, 100, "a")).ok(22).ok(12)
	held := append([]byte(nil), p.r.Fixed(16)...)
	p = c.do(c.put(fh), lock(1, 150, 1, "b")).ok(22)
	if status := p.next(12); status != errDenied || p.r.Uint64() != 100 || p.r.Uint64() != 100 || p.r.Uint32() != 2 {
		t.Errorf("status %d", status)
	}
	c.do(c.put(fh), lock(2, 200, 1<<64-1, "b")).ok(22).ok(12)
	lockt := func(offset, length uint64) uint32 {
		return other.do(other.put(fh), op(13, u32(1), u64(offset, length), u64(0), str("c"))).ok(22).next(13)
	}
	if a, b := lockt(0, 100), lockt(0, 101); a != ok || b != errDenied {
		t.Errorf("LOCKT: status %d, %d", a, b)
	}
	if status := c.do(c.put(fh), op(4, u32(0), id)).ok(22).next(4); status != errLocksHeld {
		t.Errorf("CLOSE: status %d", status)
	}
	p = c.do(c.put(fh), op(14, u32(2, 0), held, u64(0, 150))).ok(22).ok(14)
	held = append([]byte(nil), p.r.Fixed(16)...)
	if a, b := lockt(100, 50), lockt(150, 50); a != ok || b != errDenied {
		t.Errorf("after LOCKU: status %d, %d", a, b)
	}
	if status := c.do(op(45, held)).next(45); status != errLocksHeld {
		t.Errorf("FREE_STATEID: status %d", status)
	}
	p = c.do(op(55, u32(2), held, make([]byte, 16))).ok(55)
	if p.r.Uint32() != 2 || p.r.Uint32() != ok || p.r.Uint32() != errBadStateID {
		t.Error("TEST_STATEID")
	}
	s.Revoke("/export/disk")
	if status := c.do(c.put(fh), readOp(id, 0, 1)).ok(22).next(25); status != errAdminRevoked {
		t.Errorf("revoked: status %d", status)
	}
	c.do(op(45, id)).ok(45)
}

// TestDowngrade: an open gives up writing; the current stateid is followed.
func TestDowngrade(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	current := u32(1, 0, 0, 0)
	p := c.do(c.put(fh), op(21, id, u32(0, 1, 0)), readOp(current, 0, 1), writeOp(current, 0, 0, []byte("x"))).ok(22).ok(21)
	p.r.Skip(16)
	p.ok(25)
	p.r.Skip(8)
	if status := p.next(38); status != errOpenMode {
		t.Errorf("WRITE: status %d", status)
	}
	if status := c.do(c.put(fh), readOp(id, 0, 1)).ok(22).next(25); status != errOldStateID {
		t.Errorf("the stateid before: status %d", status)
	}
	// An open that is there already grows.
	c.open("disk", false)
	id[3] = 3
	c.do(c.put(fh), writeOp(id, 0, 0, []byte("x"))).ok(22).ok(38)
	c.do(c.put(fh), op(4, u32(0), id)).ok(22).ok(4)
	if _, _, states := s.Clients(); states != 0 {
		t.Errorf("%d states", states)
	}
	p = c.reply(c.call(100003, 4, 1, compoundArgs(2, op(57, u64(c.client)))))
	if status := p.next(57); status != errClientIDBusy {
		t.Errorf("DESTROY_CLIENTID: status %d", status)
	}
	c.reply(c.call(100003, 4, 1, compoundArgs(2, op(44, c.id)))).ok(44)
	c.reply(c.call(100003, 4, 1, compoundArgs(2, op(57, u64(c.client))))).ok(57)
}
