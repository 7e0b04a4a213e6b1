package nfstest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sluice/backends/nfs/xdr"
)

// TestSparse: SEEK, ALLOCATE, DEALLOCATE and READ_PLUS agree on where data is.
func TestSparse(t *testing.T) {
	s := Start(t, Options{Limits: Limits{MaxCached: 1 << 20}})
	f := s.Create("/export/disk", nil).Truncate(10 * pageSize)
	f.WriteAt([]byte("data"), 4*pageSize+10)
	c := join(t, s)
	id, fh := c.open("disk", false)
	seek := func(offset uint64, what uint32) (status uint32, eof bool, at uint64) {
		p := c.do(c.put(fh), op(69, id, u64(offset), u32(what))).ok(22)
		status = p.next(69)
		return status, p.r.Bool(), p.r.Uint64()
	}
	check := func(offset uint64, what uint32, eof bool, at uint64) {
		t.Helper()
		if status, gotEOF, got := seek(offset, what); status != ok || gotEOF != eof || got != at {
			t.Errorf("seek %d from %d: status %d, %d, eof %v", what, offset, status, got, gotEOF)
		}
	}
	check(0, 0, false, 4*pageSize)
	check(4*pageSize+7, 0, false, 4*pageSize+7)
	check(4*pageSize, 1, false, 5*pageSize)
	check(5*pageSize, 0, true, 10*pageSize)
	check(6*pageSize, 1, false, 6*pageSize)
	if status, _, _ := seek(10*pageSize, 0); status != 6 {
		t.Errorf("behind the end: status %d", status)
	}
	c.do(c.put(fh), op(59, id, u64(9*pageSize, 2*pageSize))).ok(22).ok(59)
	check(5*pageSize, 0, false, 9*pageSize)
	check(9*pageSize, 1, true, 11*pageSize)

	p := c.do(c.put(fh), op(68, id, u64(pageSize), u32(20*pageSize))).ok(22).ok(68)
	if eof, n := p.r.Bool(), p.r.Uint32(); !eof || n != 4 {
		t.Fatalf("READ_PLUS: eof %v, %d parts", eof, n)
	}
	want := u32(1)
	want = append(want, u64(pageSize, 3*pageSize)...)
	want = append(append(want, u32(0)...), u64(4*pageSize)...)
	got := p.r.Rest()
	if !bytes.HasPrefix(got, want) || binary.BigEndian.Uint32(got[len(want):]) != pageSize {
		t.Errorf("READ_PLUS: %x", got[:64])
	}
	c.do(c.put(fh), op(62, id, u64(4*pageSize, pageSize))).ok(22).ok(62)
	if now, durable := f.Read(4*pageSize+10, 4); string(now) != "\x00\x00\x00\x00" || string(durable) != "data" {
		t.Errorf("%q, durable %q", now, durable)
	}
	if status := c.do(c.put(fh), op(63, id, u64(0, 0), u32(1, 0))).ok(22).next(63); status != errNotSupp {
		t.Errorf("IO_ADVISE: status %d", status)
	}
}

// TestCopies: COPY and CLONE, and what they refuse.
func TestCopies(t *testing.T) {
	s := Start(t, Options{})
	content := bytes.Repeat([]byte("pages of "), 3000)
	s.Create("/export/from", content)
	c := join(t, s)
	from, source := c.open("from", false)
	to, target := c.open("to", true)
	size := uint64(len(content))
	pair := func(number uint32, a, b, n uint64, more ...byte) *reply {
		return c.do(c.put(source), op(32), c.put(target), op(number, from, to, u64(a, b, n), more)).ok(22).ok(32).ok(22)
	}
	p := pair(60, 0, 0, 0, u32(1, 1, 0)...).ok(60)
	if p.r.Uint32() != 0 || p.r.Uint64() != size || p.r.Uint32() != 0 {
		t.Error("COPY: another result")
	}
	p.r.Skip(8)
	if consecutive, synchronous := p.r.Bool(), p.r.Bool(); !consecutive || !synchronous || p.r.Len() != 0 {
		t.Error("COPY: neither consecutive nor synchronous")
	}
	f := s.File("/export/to")
	if !bytes.Equal(f.Bytes(), content) || len(f.Durable()) != 0 {
		t.Error("COPY: another content")
	}
	pair(71, pageSize, 10*pageSize, 0).ok(71)
	if now, _ := f.Read(10*pageSize, 100); !bytes.Equal(now, content[pageSize:pageSize+100]) {
		t.Error("CLONE: another content")
	}
	for _, bad := range [][3]uint64{{1, 0, pageSize}, {0, 0, 7}, {0, 0, 1 << 30}, {1 << 63, 0, 1 << 63}} {
		if status := pair(71, bad[0], bad[1], bad[2]).next(71); status != errInval {
			t.Errorf("CLONE of %v: status %d", bad, status)
		}
	}
}

// TestContent: random changes against a slice of bytes.
func TestContent(t *testing.T) {
	const size = 20 * pageSize
	random := rand.New(rand.NewPCG(1, 2))
	c, now, safe := newContent(), make([]byte, size), make([]byte, size)
	c.resize(size)
	for range 2000 {
		offset := random.IntN(size)
		n := 1 + random.IntN(min(3*pageSize, size-offset))
		switch random.IntN(7) {
		case 0, 1, 2:
			p := bytes.Repeat([]byte{byte(1 + random.IntN(255))}, n)
			stable := random.IntN(4) == 0
			c.write(p, int64(offset), stable)
			copy(now[offset:], p)
			if stable {
				copy(safe[offset:], p)
			}
		case 3:
			c.punch(int64(offset), int64(n))
			clear(now[offset : offset+n])
		case 4:
			c.reserve(int64(offset), int64(n))
		case 5:
			first, last := offset/pageSize*pageSize, min(size, (offset+n+pageSize-1)/pageSize*pageSize)
			c.commit(int64(offset), int64(n))
			copy(safe[first:last], now[first:last])
		case 6:
			if random.IntN(10) == 0 {
				c.lose()
				copy(now, safe)
			}
			c.resize(int64(offset))
			clear(now[offset:])
			clear(safe[offset:])
			c.resize(size)
		}
		if !bytes.Equal(c.now.bytes(0, size), now) || !bytes.Equal(c.safe.bytes(0, size), safe) {
			t.Fatal("the content differs")
		}
	}
}

// TestLimits: small sessions, and replies and calls that do not fit.
func TestLimits(t *testing.T) {
	s := Start(t, Options{Limits: Limits{Slots: 2, MaxRequest: 1024, MaxResponse: 1024, MaxOps: 5, ReadSize: 600}})
	c := join(t, s)
	id, fh := c.open("disk", true)
	f := s.File("/export/disk").Truncate(1 << 20)
	p := c.do(c.put(fh), readOp(id, 0, 1<<30)).ok(22).ok(25)
	if eof, b := p.r.Bool(), p.r.Opaque(1<<20); eof || len(b) != 600 {
		t.Errorf("READ gave %d bytes", len(b))
	}
	try := func(ops ...[]byte) uint32 {
		ops = append([][]byte{c.seqOp(1, 1, false)}, ops...)
		return c.reply(c.call(100003, 4, 1, compoundArgs(2, ops...))).status
	}
	if status := try(c.put(fh), writeOp(id, 0, 0, make([]byte, 1000))); status != errReqTooBig {
		t.Errorf("a large call: status %d", status)
	}
	if status := try(op(24), op(24), op(24), op(24), op(24)); status != errTooManyOps {
		t.Errorf("many operations: status %d", status)
	}
	if status := try(c.put(fh), readOp(id, 0, 600), readOp(id, 0, 600)); status != errRepTooBig {
		t.Errorf("a large reply: status %d", status)
	}
	if len(s.Writes()) != 0 || len(f.Durable()) != 1<<20 {
		t.Error("something was written")
	}
	s.SetLimits(func(l *Limits) { l.Slots = 1 })
	c.sequence[1] = 1
	c.start(1, op(24))
	r := c.reply(c.results(c.receive())).ok(53)
	r.r.Skip(16 + 8)
	if highest, target := r.r.Uint32(), r.r.Uint32(); highest != 1 || target != 0 {
		t.Errorf("highest slot %d, target %d", highest, target)
	}
}

// TestCallbacks: the server calls the client over the back channel.
func TestCallbacks(t *testing.T) {
	s := Start(t, Options{})
	if err := s.CallbackNull(); err == nil {
		t.Error("a back channel without a session")
	}
	s.Delegate(true)
	c := join(t, s)
	c.open("disk", true)
	answer := func(want uint32, status uint32) {
		call := c.receive()
		r := xdr.NewReader(call)
		xid := r.Uint32()
		r.Skip(4 * 3)
		version, procedure := r.Uint32(), r.Uint32()
		r.Skip(16)
		reply := append(u32(xid, 1, 0, 0, 0, 0), u32(status)...)
		if procedure == 1 {
			r.Opaque(10)
			r.Skip(8)
			count, sequence := r.Uint32(), r.Uint32()
			id := r.Fixed(16)
			r.Skip(20)
			if got := r.Uint32(); version != 1 || count != 2 || sequence != 11 || !bytes.Equal(id, c.id) || got != want {
				t.Errorf("callback %x", call)
			}
		}
		c.send(reply)
	}
	done := make(chan uint32)
	go func() {
		if err := s.CallbackNull(); err != nil {
			t.Error(err)
		}
		for _, call := range []func() (uint32, error){
			func() (uint32, error) { return s.Recall("/export/disk") },
			func() (uint32, error) { return s.RecallSlot(3) },
		} {
			status, err := call()
			if err != nil {
				t.Error(err)
			}
			done <- status
		}
		close(done)
	}()
	answer(0, 0)
	answer(cbRecall, errDelay)
	if status := <-done; status != errDelay {
		t.Errorf("status %d", status)
	}
	answer(cbRecallSlot, 0)
	if status := <-done; status != ok {
		t.Errorf("status %d", status)
	}
	<-done
	if _, err := s.Recall("/export"); err == nil {
		t.Error("a recall of nothing")
	}
}
