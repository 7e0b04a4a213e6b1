package nfstest

import (
	"bytes"
	"testing"

	"sluice/backends/nfs/xdr"
)

// TestReadWriteCommit: what is written is read, and durable when committed.
func TestReadWriteCommit(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	p := c.do(c.put(fh), writeOp(id, 3, 0, []byte("hello"))).ok(22).ok(38)
	if n, stable := p.r.Uint32(), p.r.Uint32(); n != 5 || stable != 0 {
		t.Errorf("wrote %d, stable %d", n, stable)
	}
	verifier := s.Verifier()
	if !bytes.Equal(p.r.Fixed(8), verifier[:]) {
		t.Error("another verifier")
	}
	p = c.do(c.put(fh), readOp(id, 0, 100)).ok(22).ok(25)
	if eof, b := p.r.Bool(), p.r.Opaque(100); !eof || string(b) != "\x00\x00\x00hello" {
		t.Errorf("read %q, eof %v", b, eof)
	}
	f := s.File("/export/disk")
	if len(f.Durable()) != 0 || string(f.Bytes()) != "\x00\x00\x00hello" {
		t.Errorf("durable %q of %q", f.Durable(), f.Bytes())
	}
	c.do(c.put(fh), op(5, u64(0), u32(0))).ok(22).ok(5)
	if string(f.Durable()) != "\x00\x00\x00hello" {
		t.Errorf("durable %q after COMMIT", f.Durable())
	}
	c.do(c.put(fh), writeOp(id, 0, 2, []byte("abc"))).ok(22).ok(38)
	c.do(c.put(fh), writeOp(id, 4, 0, []byte("EL"))).ok(22).ok(38)
	if string(f.Durable()) != "abchello" || string(f.Bytes()) != "abchELlo" {
		t.Errorf("durable %q of %q", f.Durable(), f.Bytes())
	}
	if w := s.Writes(); len(w) != 3 || w[1].Offset != 0 || w[1].Stable != 2 || w[2].Length != 2 {
		t.Errorf("writes %v", w)
	}
	s.Lose()
	if string(f.Bytes()) != "abchello" || s.Verifier() == verifier {
		t.Errorf("%q after the loss", f.Bytes())
	}
}

// TestRestart: a restart loses what is not durable and all state, but no file.
func TestRestart(t *testing.T) {
	s := Start(t, Options{Grace: true})
	c := join(t, s)
	id, fh := c.open("disk", true)
	c.do(c.put(fh), writeOp(id, 0, 2, []byte("safe"))).ok(22).ok(38)
	c.do(c.put(fh), writeOp(id, 4, 0, []byte("lost"))).ok(22).ok(38)
	s.Restart()
	c.gone()

	w := dial(t, s)
	p := w.reply(w.call(100003, 4, 1, compoundArgs(2, c.seqOp(0, 9, false))))
	if p.next(53) != errBadSession || p.n != 1 {
		t.Errorf("status %d", p.status)
	}
	p = w.reply(w.call(100003, 4, 1, compoundArgs(2, createSessionOp(c.client, 2))))
	if p.status != errStaleClientID {
		t.Errorf("status %d", p.status)
	}
	c = sessionOn(w, "owner", 2)
	p = c.do(c.put(fh), readOp(id, 0, 10)).ok(22)
	if status := p.next(25); status != errStaleStateID {
		t.Errorf("old stateid: %d", status)
	}
	open := func(claim ...byte) []byte {
		return op(18, u32(0, 3, 0), u64(0), str("opener"), u32(0), claim)
	}
	if status := c.do(c.put(fh), open(u32(claimFH)...)).ok(22).next(18); status != errGrace {
		t.Errorf("open in grace: %d", status)
	}
	p = c.do(c.put(fh), open(u32(claimPrevious, 0)...)).ok(22).ok(18)
	id = append([]byte(nil), p.r.Fixed(16)...)
	c.do(op(58, u32(0))).ok(58)
	c.do(c.put(fh), open(u32(claimFH)...)).ok(22).ok(18)
	id[3] = 2
	p = c.do(c.put(fh), readOp(id, 0, 10)).ok(22).ok(25)
	if eof, b := p.r.Bool(), p.r.Opaque(10); !eof || string(b) != "safe" {
		t.Errorf("read %q", b)
	}
	if status := c.do(op(58, u32(0))).next(58); status != errCompleteAlready {
		t.Errorf("second RECLAIM_COMPLETE: %d", status)
	}
}

// TestSlots: the reply cache of RFC 8881 section 2.10.6.1.
func TestSlots(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	try := func(slot, sequence uint32, cache bool, ops ...[]byte) []byte {
		t.Helper()
		ops = append([][]byte{c.seqOp(slot, sequence, cache)}, ops...)
		c.send(c.message(100003, 4, 1, compoundArgs(2, ops...)))
		return c.receive()
	}
	status := func(msg []byte) (uint32, uint32) {
		t.Helper()
		r := xdr.NewReader(msg)
		r.Skip(24)
		p := c.reply(r)
		return p.status, p.n
	}
	write := writeOp(id, 0, 0, []byte("once"))
	first := try(1, 1, true, c.put(fh), write)
	again := try(1, 1, true, c.put(fh), write)
	if !bytes.Equal(first[4:], again[4:]) || s.Count("WRITE") != 1 {
		t.Errorf("replay: %x, then %x", first, again)
	}
	for name, try := range map[string]struct {
		msg  []byte
		want uint32
	}{
		"a false retry":       {try(1, 1, true, c.put(fh), writeOp(id, 1, 0, []byte("once"))), errSeqFalseRetry},
		"a sequence left out": {try(1, 3, true, c.put(fh)), errSeqMisordered},
		"an old sequence":     {try(1, 0, true, c.put(fh)), errSeqMisordered},
		"a slot too high":     {try(8, 1, true), errBadSlot},
		"in the middle":       {try(2, 1, true, c.seqOp(3, 1, true)), errSequencePos},
	} {
		if got, _ := status(try.msg); got != try.want {
			t.Errorf("%s: status %d, not %d", name, got, try.want)
		}
	}
	if got, n := status(try(4, 1, false, c.put(fh), op(10))); got != ok || n != 3 {
		t.Errorf("status %d, %d results", got, n)
	}
	if got, n := status(try(4, 1, false, c.put(fh), op(10))); got != errRetryUncachedRep || n != 2 {
		t.Errorf("a retry of what was not kept: status %d, %d results", got, n)
	}
	for range 2 {
		if got, n := status(try(5, 1, false)); got != ok || n != 1 {
			t.Errorf("SEQUENCE alone: status %d, %d results", got, n)
		}
	}
	if s.HighestSlot() != 5 {
		t.Error("the highest slot is another one")
	}
	p := c.reply(c.call(100003, 4, 1, compoundArgs(2, c.put(fh))))
	if p.status != errOpNotInSession {
		t.Errorf("without SEQUENCE: status %d", p.status)
	}
	p = c.reply(c.call(100003, 4, 1, compoundArgs(0, c.put(fh))))
	if p.status != errMinorVersMismatch || p.n != 0 {
		t.Errorf("minor version 0: status %d", p.status)
	}
}

// TestSessionReplay: CREATE_SESSION has a reply cache of its own, and a client that
// comes back with another verifier has lost its opens only when its session is made.
func TestSessionReplay(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	id, sequence, _ := w.exchange("a", "verifier", 1)
	create := func(id uint64, sequence uint32) *reply {
		return w.reply(w.call(100003, 4, 1, compoundArgs(1, createSessionOp(id, sequence))))
	}
	first := append([]byte(nil), create(id, sequence).ok(43).r.Rest()...)
	if !bytes.Equal(first, create(id, sequence).ok(43).r.Rest()) {
		t.Error("the retry made another session")
	}
	if status := create(id, sequence+2).next(43); status != errSeqMisordered {
		t.Errorf("status %d", status)
	}
	if again, sequence, flags := w.exchange("a", "verifier", 1); again != id || flags&flagConfirmed == 0 {
		t.Errorf("client %d, sequence %d, flags %#x", again, sequence, flags)
	}
	fresh, sequence, flags := w.exchange("a", "VERIFIER", 1)
	if fresh == id || flags&flagConfirmed != 0 {
		t.Errorf("client %d, flags %#x", fresh, flags)
	}
	if clients, sessions, _ := s.Clients(); clients != 1 || sessions != 1 {
		t.Errorf("%d clients, %d sessions", clients, sessions)
	}
	create(fresh, sequence).ok(43)
	if clients, sessions, _ := s.Clients(); clients != 1 || sessions != 1 {
		t.Errorf("%d clients, %d sessions", clients, sessions)
	}
	if status := create(id, 2).next(43); status != errStaleClientID {
		t.Errorf("the old client: status %d", status)
	}
	s.ExpireLeases()
	if clients, sessions, _ := s.Clients(); clients != 0 || sessions != 0 {
		t.Errorf("%d clients, %d sessions", clients, sessions)
	}
}

// TestShares: an open that denies keeps others out.
func TestShares(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	other := sessionOn(dial(t, s), "other", 1)
	other.do(op(58, u32(0))).ok(58)
	open := func(access uint32) uint32 {
		return other.do(other.put(fh), op(18, u32(0, access, 0), u64(0), str("o"), u32(0, claimFH))).ok(22).next(18)
	}
	if status := open(3); status != errShareDenied {
		t.Errorf("status %d", status)
	}
	if status := open(1); status != ok {
		t.Errorf("for reading: status %d", status)
	}
	if status := other.do(other.put(fh), writeOp(make([]byte, 16), 0, 0, []byte("x"))).ok(22).next(38); status != errLocked {
		t.Errorf("a write without open: status %d", status)
	}
	if status := other.do(other.put(fh), op(69, id, u64(0), u32(0))).ok(22).next(illegal); status != errOpIllegal {
		t.Errorf("SEEK in 4.1: status %d", status)
	}
	c.do(c.put(fh), op(4, u32(0), id)).ok(22).ok(4)
	if status := open(3); status != ok {
		t.Errorf("after CLOSE: status %d", status)
	}
}
