package nfstest

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"strings"
	"testing"

	"sluice/backends/nfs/xdr"
)

// once is a hook that acts on the first call of an operation.
func once(op string, act Action) func(string, []byte) Action {
	done := false
	return func(got string, _ []byte) Action {
		if got != op || done {
			return Action{}
		}
		done = true
		return act
	}
}

func getfh() []byte { return op(10) }

// replyCase is something that a hook does to a reply, and what the client sees then.
type replyCase struct {
	act   Action
	check func(t *testing.T, c *sessioned)
}

// recordCases are about records, messageCases about what is in them.
var recordCases = map[string]replyCase{
	"twice": {Action{Twice: true}, func(t *testing.T, c *sessioned) {
		if a, b := c.receive(), c.receive(); !bytes.Equal(a, b) {
			t.Error("two replies that differ")
		}
	}},
	"another xid": {Action{WrongXID: true}, func(t *testing.T, c *sessioned) {
		if binary.BigEndian.Uint32(c.receive()) == c.xid {
			t.Error("the right xid")
		}
	}},
	"raw": {Action{Raw: []byte("raw bytes")}, func(t *testing.T, c *sessioned) {
		if got := c.receive(); string(got) != "raw bytes" {
			t.Errorf("%q", got)
		}
	}},
	"without a record": {Action{Wire: []byte("0123456")}, func(t *testing.T, c *sessioned) {
		got := make([]byte, 7)
		if _, err := io.ReadFull(c.in, got); err != nil || string(got) != "0123456" {
			t.Errorf("%q, %v", got, err)
		}
	}},
	"fragments of a byte": {Action{Frame: FrameBytes}, func(t *testing.T, c *sessioned) {
		var mark [5]byte
		if _, err := io.ReadFull(c.in, mark[:]); err != nil || binary.BigEndian.Uint32(mark[:]) != 1 {
			t.Errorf("%x, %v", mark, err)
		}
		c.receive()
	}},
	"a huge record": {Action{Frame: FrameHuge}, func(t *testing.T, c *sessioned) {
		got, err := io.ReadAll(c.in)
		if err != nil || !bytes.HasPrefix(got, []byte{255, 255, 255, 255}) {
			t.Errorf("%x, %v", got, err)
		}
	}},
	"half a record": {Action{Frame: FrameTruncated}, func(t *testing.T, c *sessioned) {
		got, err := io.ReadAll(c.in)
		if n := int(binary.BigEndian.Uint32(got) &^ lastMark); err != nil || len(got) != 4+n/2 {
			t.Errorf("%x, %v", got, err)
		}
	}},
	"cut at a byte": {Action{CutAt: 9}, func(t *testing.T, c *sessioned) {
		if got, err := io.ReadAll(c.in); len(got) != 9 || err != nil {
			t.Errorf("%x, %v", got, err)
		}
	}},
	"empty fragments": {Action{Frame: FrameEmpty}, func(t *testing.T, c *sessioned) {
		got := make([]byte, 1<<20)
		if _, err := io.ReadFull(c.in, got); err != nil || !bytes.Equal(got, make([]byte, 1<<20)) {
			t.Error("something else came")
		}
	}},
}

var messageCases = map[string]replyCase{
	"accept_stat": {Action{Accept: systemErr}, func(t *testing.T, c *sessioned) {
		if got := c.receive(); len(got) != headerSize || got[headerSize-1] != systemErr {
			t.Errorf("%x", got)
		}
	}},
	"a status": {Action{Status: errDelay}, func(t *testing.T, c *sessioned) {
		if status := c.finish().ok(24).next(10); status != errDelay {
			t.Errorf("status %d", status)
		}
	}},
	"another operation": {Action{Result: func(p []byte) []byte { return append(u32(9), p[4:]...) }},
		func(t *testing.T, c *sessioned) { c.finish().ok(24).ok(9) }},
	"a longer result": {Action{Result: func(p []byte) []byte { return append(p, 0, 0, 0, 1) }},
		func(t *testing.T, c *sessioned) {
			p := c.finish().ok(24).ok(10)
			p.r.Opaque(64)
			if p.r.Uint32() != 1 || p.r.Len() != 0 {
				t.Error("nothing more")
			}
		}},
	"more results": {Action{Edit: Results(1)}, func(t *testing.T, c *sessioned) {
		if p := c.reply(c.results(c.receive())); p.n != 4 {
			t.Errorf("%d results", p.n)
		}
	}},
	"a huge length": {Action{Result: Patch(8, 1<<32-1)}, func(t *testing.T, c *sessioned) {
		if p := c.finish().ok(24).ok(10); p.r.Uint32() != 1<<32-1 {
			t.Error("an honest length")
		}
	}},
	"a short result": {Action{Result: Shorten(4)}, func(t *testing.T, c *sessioned) {
		if p := c.finish().ok(24).ok(10); p.r.Len() != 16 {
			t.Errorf("%d bytes left", p.r.Len())
		}
	}},
	"edited": {Action{Edit: func(msg []byte) []byte { return msg[:10] }}, func(t *testing.T, c *sessioned) {
		if len(c.receive()) != 10 {
			t.Error("another length")
		}
	}},
	"cut before": {Action{CutBefore: true}, func(t *testing.T, c *sessioned) { c.gone() }},
	"cut after":  {Action{CutAfter: true}, func(t *testing.T, c *sessioned) { c.gone() }},
}

// TestReplies: what a hook may do to a reply, on the bytes of the connection.
func TestReplies(t *testing.T) {
	cases := maps.Clone(recordCases)
	maps.Copy(cases, messageCases)
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			s := Start(t, Options{})
			c := join(t, s)
			s.Hook(once("GETFH", test.act))
			c.start(0, op(24), getfh())
			test.check(t, c)
		})
	}
}

// TestLostReply: a call that is sent again is executed once, wherever it was lost.
func TestLostReply(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	for i, act := range []Action{{CutAfter: true}, {CutBefore: true}, {Drop: true}, {Result: func([]byte) []byte { return nil }}} {
		s.Hook(once("WRITE", act))
		before := len(s.Writes())
		c.start(1, c.put(fh), writeOp(id, uint64(i), 0, []byte("x")))
		if act.CutAfter || act.CutBefore {
			c.gone()
			c.wire = dial(t, s)
		} else if act.Result != nil {
			c.receive()
		}
		c.sequence[1]--
		c.start(1, c.put(fh), writeOp(id, uint64(i), 0, []byte("x")))
		c.finish().ok(22).ok(38)
		if n := len(s.Writes()) - before; n != 1 {
			t.Errorf("case %d: %d writes", i, n)
		}
	}
}

// TestFail: statuses in turn, and counts.
func TestFail(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	s.Fail("GETFH", errDelay, 2)
	s.Fail("GETFH", errStale, 1)
	for i, want := range []uint32{errDelay, errDelay, errStale, ok} {
		if status := c.do(op(24), getfh()).ok(24).next(10); status != want {
			t.Errorf("call %d: status %d, not %d", i, status, want)
		}
	}
	if n := s.Count("GETFH"); n != 4 {
		t.Errorf("%d calls", n)
	}
	s.FailEach(errGrace, errDelay)
	var got []uint32
	for range 7 {
		ops := compoundArgs(2, c.seqOp(0, c.sequence[0]+1, true), op(24), getfh())
		p := c.reply(c.call(100003, 4, 1, ops))
		if p.n > 1 || p.status == ok {
			c.sequence[0]++
		}
		got = append(got, p.status)
	}
	want := []uint32{errGrace, errDelay, errGrace, errDelay, errGrace, errDelay, ok}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("statuses %v, not %v", got, want)
		}
	}
	s.Fail("*", errStale, -1)
	if p := c.reply(c.call(100003, 4, 1, compoundArgs(2, c.seqOp(0, c.sequence[0]+1, true)))); p.status != errStale {
		t.Errorf("status %d", p.status)
	}
	s.Honest()
	c.do(op(24)).ok(24)
}

// TestDelay: what waits lets others pass, and its slot is busy meanwhile.
func TestDelay(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	until := make(chan struct{})
	s.Delay("WRITE", until)
	write := [][]byte{c.put(fh), writeOp(id, 0, 0, []byte("late"))}
	c.start(1, write...)
	late := c.xid
	c.do(op(24), getfh()).ok(24).ok(10)
	c.sequence[1]--
	c.start(1, write...)
	if p := c.reply(c.results(c.receive())); p.status != errDelay || p.n != 1 {
		t.Errorf("a retry of what is under way: status %d", p.status)
	}
	if len(s.Writes()) != 0 {
		t.Error("it did not wait")
	}
	close(until)
	c.xid = late
	c.finish().ok(22).ok(38)
}

// TestDelayedAcrossRestart: what waits when the server goes down is never executed.
func TestDelayedAcrossRestart(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	id, fh := c.open("disk", true)
	until := make(chan struct{})
	s.Delay("WRITE", until)
	c.start(1, c.put(fh), writeOp(id, 0, 2, []byte("late")))
	<-s.Arrived("WRITE", 1)
	s.Restart()
	close(until)
	c.gone()
	s.Close()
	if len(s.Writes()) != 0 {
		t.Error("it was executed")
	}
}

// TestOrder: replies overtake each other.
func TestOrder(t *testing.T) {
	s := Start(t, Options{})
	c := join(t, s)
	s.Hook(once("GETFH", Action{Behind: 2}))
	c.start(1, op(24), getfh())
	first := c.xid
	for range 2 {
		c.do(op(24)).ok(24)
	}
	c.xid = first
	c.finish().ok(24).ok(10)

	after := make(chan struct{})
	s.Hook(once("GETFH", Action{After: after}))
	c.start(1, op(24), getfh())
	first = c.xid
	c.do(op(24)).ok(24)
	close(after)
	c.xid = first
	c.finish().ok(24).ok(10)
}

// TestStop: the ports are the same again.
func TestStop(t *testing.T) {
	s := Start(t, Options{Ports: 2})
	if addrs := s.Addrs(); len(addrs) != 2 || addrs[0] == addrs[1] {
		t.Errorf("%v", addrs)
	}
	c := join(t, s)
	s.SetMinor(1)
	if p := c.reply(c.call(100003, 4, 1, compoundArgs(2, op(24)))); p.status != errMinorVersMismatch {
		t.Errorf("minor version 2: status %d", p.status)
	}
	s.SetMinor(1, 2)
	s.Stop()
	c.gone()
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	c.wire = dial(t, s)
	c.do(op(24)).ok(24)
	s.Kill()
	c.gone()
	if _, ever := s.Connections(); ever != 2 {
		t.Errorf("%d connections", ever)
	}
}

// TestHostileCalls: the server survives what a fuzzer would send.
func TestHostileCalls(t *testing.T) {
	s := Start(t, Options{})
	for _, record := range []string{
		"", "\x80\x00\x00\x00", "\xff\xff\xff\xff", "\x80\x00\x00\x04abcd", "\x80\x00\x00\x0812345678",
		"\x80\x00\x00\x1c" + strings.Repeat("\x00\x00\x00\x02", 7),
	} {
		w := dial(t, s)
		if _, err := io.WriteString(w.nc, record); err != nil {
			t.Fatal(err)
		}
		if record == "" || record[0] == 0xff {
			_ = w.nc.Close()
			continue
		}
		w.gone()
	}
	c := join(t, s)
	for number := uint32(3); number < 80; number++ {
		if operations[number] == nil || number == opSequence {
			continue
		}
		p := c.do(op(24), op(number, bytes.Repeat([]byte{255}, 64)))
		if p.status == ok && number != 10 && number != 32 && number != 24 && number != 23 && number != 52 && number != 3 && number != 9 {
			t.Errorf("operation %d liked it", number)
		}
	}
	w := dial(t, s)
	for procedure := range uint32(30) {
		w.send(w.message(100003, 3, procedure, bytes.Repeat([]byte{255}, 64)))
		if got := w.receive(); len(got) < headerSize {
			t.Errorf("procedure %d: %x", procedure, got)
		}
	}
}

// FuzzCall: no call makes the server panic or hang.
func FuzzCall(f *testing.F) {
	f.Add([]byte{}, uint32(1))
	f.Add(compoundArgs(2, op(24), op(18, u32(0, 3, 2))), uint32(1))
	f.Fuzz(func(t *testing.T, args []byte, procedure uint32) {
		s := Start(t, Options{})
		w := dial(t, s)
		for _, version := range []uint32{3, 4} {
			w.send(w.message(100003, version, procedure%24, args))
			r := xdr.NewReader(w.receive())
			if r.Uint32() != w.xid {
				t.Error("another xid")
			}
		}
	})
}
