package nfstest

import (
	"bufio"
	"encoding/binary"
	"net"
	"testing"

	"go.uber.org/goleak"

	"sluice/backends/nfs/xdr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a connection of a client that does nothing by itself.
type wire struct {
	t   *testing.T
	nc  net.Conn
	in  *bufio.Reader
	xid uint32
}

func dial(t *testing.T, s *Server) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &wire{t: t, nc: nc, in: bufio.NewReader(nc), xid: 100}
}

// message is an RPC call.
func (w *wire) message(program, version, procedure uint32, args []byte) []byte {
	w.xid++
	var b []byte
	for _, v := range []uint32{w.xid, 0, 2, program, version, procedure, 0, 0, 0, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return append(b, args...)
}

func (w *wire) send(msg []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(append(binary.BigEndian.AppendUint32(nil, lastMark|uint32(len(msg))), msg...)); err != nil {
		w.t.Fatal(err)
	}
}

// receive is the next reply, from its xid on.
func (w *wire) receive() []byte {
	w.t.Helper()
	msg, err := readRecord(w.in)
	if err != nil {
		w.t.Fatal(err)
	}
	return msg
}

// gone waits until the server has closed the connection.
func (w *wire) gone() {
	w.t.Helper()
	if msg, err := readRecord(w.in); err == nil {
		w.t.Fatalf("a reply %x", msg)
	}
}

// results checks that a reply is of the last call and accepted.
func (w *wire) results(msg []byte) xdr.Reader {
	w.t.Helper()
	r := xdr.NewReader(msg)
	xid, kind, denied := r.Uint32(), r.Uint32(), r.Uint32()
	r.Skip(8)
	if status := r.Uint32(); xid != w.xid || kind != 1 || denied != 0 || status != 0 || r.Err() != nil {
		w.t.Fatalf("reply %x", msg)
	}
	return r
}

func (w *wire) call(program, version, procedure uint32, args []byte) xdr.Reader {
	w.t.Helper()
	w.send(w.message(program, version, procedure, args))
	return w.results(w.receive())
}

// u32 and u64 append many.
func u32(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

func u64(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = xdr.AppendUint64(b, v)
	}
	return b
}

func str(s string) []byte { return xdr.AppendString(nil, s) }

// op is an operation with its arguments.
func op(number uint32, args ...[]byte) (b []byte) {
	b = u32(number)
	for _, a := range args {
		b = append(b, a...)
	}
	return b
}

func compoundArgs(minor uint32, ops ...[]byte) []byte {
	b := append(str(""), u32(minor, uint32(len(ops)))...)
	for _, o := range ops {
		b = append(b, o...)
	}
	return b
}

// reply is a COMPOUND4res that is read result by result.
type reply struct {
	t      *testing.T
	status uint32
	n      uint32
	r      xdr.Reader
}

func (w *wire) reply(r xdr.Reader) *reply {
	p := &reply{t: w.t, status: r.Uint32()}
	r.Opaque(100)
	p.n = r.Uint32()
	p.r = r
	return p
}

// next takes the head of a result, which has to be of that operation.
func (p *reply) next(number uint32) (status uint32) {
	p.t.Helper()
	got, status := p.r.Uint32(), p.r.Uint32()
	if got != number || p.r.Err() != nil {
		p.t.Fatalf("result of operation %d instead of %d", got, number)
	}
	return status
}

func (p *reply) ok(number uint32) *reply {
	p.t.Helper()
	if status := p.next(number); status != ok {
		p.t.Fatalf("operation %d: status %d", number, status)
	}
	return p
}

// sessioned is a client with a session.
type sessioned struct {
	*wire
	minor    uint32
	client   uint64
	id       []byte
	sequence map[uint32]uint32
}

func (w *wire) exchange(owner, verifier string, minor uint32) (id uint64, sequence, flags uint32) {
	w.t.Helper()
	p := w.reply(w.call(100003, 4, 1, compoundArgs(minor, op(42, []byte(verifier), str(owner), u32(0, 0, 0))))).ok(42)
	return p.r.Uint64(), p.r.Uint32(), p.r.Uint32()
}

func createSessionOp(client uint64, sequence uint32) []byte {
	channel := u32(0, 1<<20+4096, 1<<20+4096, 1<<20, 16, 8, 0)
	return op(43, u64(client), u32(sequence, 2), channel, channel, u32(0x40000000, 1, 0))
}

// join makes a client and its session, and reclaims nothing.
func join(t *testing.T, s *Server) *sessioned {
	t.Helper()
	c := sessionOn(dial(t, s), "owner", 2)
	c.do(op(58, u32(0))).ok(58)
	return c
}

func sessionOn(w *wire, owner string, minor uint32) *sessioned {
	w.t.Helper()
	c := &sessioned{wire: w, minor: minor, sequence: map[uint32]uint32{}}
	var sequence uint32
	c.client, sequence, _ = w.exchange(owner, "verifier", minor)
	p := w.reply(w.call(100003, 4, 1, compoundArgs(minor, createSessionOp(c.client, sequence)))).ok(43)
	c.id = append([]byte(nil), p.r.Fixed(16)...)
	return c
}

func (c *sessioned) seqOp(slot, sequence uint32, cache bool) []byte {
	return op(53, c.id, u32(sequence, slot, slot), xdr.AppendBool(nil, cache))
}

// start sends a compound on a slot with the next sequence.
func (c *sessioned) start(slot uint32, ops ...[]byte) {
	c.t.Helper()
	c.sequence[slot]++
	c.send(c.message(100003, 4, 1, compoundArgs(c.minor, append([][]byte{c.seqOp(slot, c.sequence[slot], true)}, ops...)...)))
}

// finish is the results after SEQUENCE.
func (c *sessioned) finish() *reply {
	c.t.Helper()
	p := c.reply(c.results(c.receive())).ok(53)
	p.r.Skip(36)
	return p
}

func (c *sessioned) do(ops ...[]byte) *reply {
	c.t.Helper()
	c.start(0, ops...)
	return c.finish()
}

// open opens a file of the export and returns its stateid and handle.
func (c *sessioned) open(name string, create bool) (id, handle []byte) {
	c.t.Helper()
	how := u32(0)
	if create {
		how = u32(1, 0, 0, 0)
	}
	p := c.do(op(24), op(15, str("export")), op(18, u32(0, 3, 2), u64(0), str("opener"), how, u32(0), str(name)), op(10))
	p.ok(24).ok(15).ok(18)
	id = append([]byte(nil), p.r.Fixed(16)...)
	p.r.Skip(20 + 4)
	readBitmap(&p.r)
	if p.r.Uint32() == delegationWrite {
		p.r.Skip(16 + 4 + 12 + 12)
		p.r.String(10)
	}
	handle = p.ok(10).r.Opaque(128)
	if p.r.Err() != nil {
		c.t.Fatal(p.r.Err())
	}
	return id, append([]byte(nil), handle...)
}

func (c *sessioned) put(handle []byte) []byte { return op(22, xdr.AppendOpaque(nil, handle)) }

func writeOp(id []byte, offset uint64, stable uint32, p []byte) []byte {
	return op(38, id, u64(offset), u32(stable), xdr.AppendOpaque(nil, p))
}

func readOp(id []byte, offset uint64, count uint32) []byte {
	return op(25, id, u64(offset), u32(count))
}
