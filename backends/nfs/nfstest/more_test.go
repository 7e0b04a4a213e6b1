package nfstest

import (
	"bytes"
	"testing"

	"sluice/backends/nfs/xdr"
)

// TestRenameDirectories: over others, and not into themselves.
func TestRenameDirectories(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	s.Create("/export/a/b/file", []byte("x"))
	s.Mkdir("/export/empty")
	s.Symlink("a", "/export/link")
	rename := func(from []string, old string, to []string, name string) uint32 {
		var ops [][]byte
		walk := func(path []string) {
			ops = append(ops, op(24), op(15, str("export")))
			for _, p := range path {
				ops = append(ops, op(15, str(p)))
			}
		}
		walk(from)
		ops = append(ops, op(32))
		walk(to)
		return c.do(append(ops, op(29, str(old), str(name)))...).status
	}
	if status := rename(nil, "a", []string{"a", "b"}, "a"); status != errInval {
		t.Errorf("into itself: status %d", status)
	}
	if status := rename([]string{"a"}, "b", nil, "empty"); status != ok {
		t.Errorf("over an empty directory: status %d", status)
	}
	if status := rename(nil, "a", nil, "empty"); status != errExist {
		t.Errorf("over a full directory: status %d", status)
	}
	if status := rename(nil, "link", nil, "empty"); status != errExist {
		t.Errorf("a link over a directory: status %d", status)
	}
	if status := rename([]string{"empty"}, "file", nil, "link"); status != ok {
		t.Errorf("a file over a link: status %d", status)
	}
	if !bytes.Equal(s.File("/export/link").Bytes(), []byte("x")) || s.Exists("/export/empty/file") || !s.Exists("/export/a") {
		t.Error("another tree")
	}
	p := c.do(op(24), op(15, str("export")), op(9, u32(2, 0, 1<<3)), op(15, str("empty")), op(16), op(10)).ok(24).ok(15).ok(9)
	readBitmap(&p.r)
	if links := p.r.Opaque(4); !bytes.Equal(links, u32(4)) {
		t.Errorf("links %x", links)
	}
	p.ok(15).ok(16).ok(10)
}

// TestCreate: the ways of OPEN to create.
func TestCreate(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	create := func(owner string, how ...[]byte) (uint32, bitmap) {
		p := c.do(op(24), op(15, str("export")), op(18, u32(0, 3, 0), u64(0), str(owner), u32(1), bytes.Join(how, nil), u32(0), str("f")))
		p.ok(24).ok(15)
		status := p.next(18)
		p.r.Skip(16 + 20 + 4)
		return status, readBitmap(&p.r)
	}
	size := append(u32(1, 1<<4), xdr.AppendOpaque(nil, u64(100))...)
	if status, set := create("a", u32(createExclusive41), []byte("12345678"), size); status != ok || set != bits(attrSize) {
		t.Errorf("exclusive: status %d, set %x", status, set)
	}
	if status, _ := create("a", u32(createExclusive41), []byte("12345678"), size); status != ok {
		t.Errorf("repeated: status %d", status)
	}
	if status, _ := create("a", u32(createExclusive41), []byte("another1"), size); status != errExist {
		t.Errorf("another one: status %d", status)
	}
	if status, _ := create("a", u32(createGuarded), u32(0, 0)); status != errExist {
		t.Errorf("guarded: status %d", status)
	}
	times := append(u32(2, 0, 1<<(attrSetMtime-32)), xdr.AppendOpaque(nil, u32(0))...)
	if status, _ := create("a", u32(createExclusive41), []byte("12345678"), times); status != errInval {
		t.Errorf("exclusive, with times: status %d", status)
	}
	if status, set := create("b", u32(createUnchecked), size); status != ok || set != (bitmap{}) {
		t.Errorf("unchecked: status %d, set %x", status, set)
	}
	if n, _ := s.File("/export/f").Size(); n != 100 {
		t.Errorf("size %d", n)
	}
	empty := append(u32(1, 1<<4), xdr.AppendOpaque(nil, u64(0))...)
	if status, _ := create("b", u32(createUnchecked), empty); status != ok {
		t.Errorf("emptied: status %d", status)
	}
	if n, _ := s.File("/export/f").Size(); n != 0 {
		t.Errorf("size %d", n)
	}
}

// TestSetTimesAndOwner: what SETATTR sets beside the size.
func TestSetTimesAndOwner(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	_, fh := c.open("f", true)
	values := append(append(str("36"), str("37")...), u32(1, 0, 1000, 5)...)
	c.do(c.put(fh), op(34, make([]byte, 16), u32(2, 0, 1<<4|1<<5|1<<(attrSetMtime-32)), xdr.AppendOpaque(nil, values))).ok(22).ok(34)
	p := c.do(c.put(fh), op(9, u32(2, 0, 1<<4|1<<5|1<<(53-32)))).ok(22).ok(9)
	readBitmap(&p.r)
	want := append(append(str("36"), str("37")...), u32(0, 1000, 5)...)
	if got := p.r.Opaque(100); !bytes.Equal(got, want) {
		t.Errorf("%x, not %x", got, want)
	}
	p = c.do(c.put(fh), op(34, make([]byte, 16), u32(2, 0, 1<<4), xdr.AppendOpaque(nil, str("root")))).ok(22)
	if status := p.next(34); status != errBadOwner {
		t.Errorf("a name: status %d", status)
	}
}

// TestBackChannelMoves: BIND_CONN_TO_SESSION, and sessions that are dropped.
func TestBackChannelMoves(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	s.Kill()
	c.gone()
	if err := s.CallbackNull(); err == nil {
		t.Error("a callback without a connection")
	}
	c.wire = dial(t, s)
	flags := func() uint32 {
		t.Helper()
		c.start(0)
		p := c.reply(c.results(c.receive())).ok(53)
		p.r.Skip(32)
		return p.r.Uint32()
	}
	if flags() != seqBackDown {
		t.Error("the back channel is not down")
	}
	p := c.reply(c.call(100003, 4, 1, compoundArgs(2, op(41, c.id, u32(7, 0))))).ok(41)
	if p.r.Skip(16); p.r.Uint32() != 3 || p.r.Bool() {
		t.Error("bound in another way")
	}
	s.SetStatusFlags(1 << 8)
	if got := flags(); got != 1<<8 {
		t.Errorf("flags %#x", got)
	}
	s.DropSessions()
	p = c.reply(c.call(100003, 4, 1, compoundArgs(2, op(41, c.id, u32(7, 0)))))
	if status := p.next(41); status != errBadSession {
		t.Errorf("status %d", status)
	}
	p = c.reply(c.call(100003, 4, 1, compoundArgs(2, createSessionOp(c.client, 2))))
	p.ok(43)
}

// TestGraceOnDemand: opens wait for its end.
func TestGraceOnDemand(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	s.StartGrace()
	open := func() uint32 {
		return c.do(c.put(fh), op(18, u32(0, 3, 0), u64(0), str("x"), u32(0, claimFH))).ok(22).next(18)
	}
	if status := open(); status != errGrace {
		t.Errorf("status %d", status)
	}
	c.do(c.put(fh), readOp(id, 0, 1)).ok(22).ok(25)
	s.EndGrace()
	c.do(c.put(fh), op(4, u32(0), id)).ok(22).ok(4)
	if status := open(); status != ok {
		t.Errorf("status %d", status)
	}
}

// TestOutside: what a test does and sees without a protocol.
func TestOutside(t *testing.T) {
	s := Start(t, Options{Export: "/srv"})
	c := join(t, s)
	f := s.Create("/export/disk", []byte("0123"))
	id, fh := c.open("disk", false)
	if !bytes.Equal(f.Handle(), fh) || f.ID() == 0 || s.Export() != "/srv" || s.URL("/x") != "nfs://"+s.Addr()+"/x" {
		t.Error("names differ")
	}
	s.SetVerifier([8]byte{1})
	p := c.do(c.put(fh), writeOp(id, 0, 0, []byte("ab"))).ok(22).ok(38)
	if p.r.Skip(8); !bytes.Equal(p.r.Fixed(8), append([]byte{1}, make([]byte, 7)...)) {
		t.Error("another verifier")
	}
	s.Sync()
	s.Restart()
	if string(f.Bytes()) != "ab23" {
		t.Errorf("%q after Sync and Restart", f.Bytes())
	}
	s.ForgetWrites()
	if len(s.Writes()) != 0 || s.Counts()["WRITE"] != 1 {
		t.Errorf("%v", s.Counts())
	}
}
