package nbd_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// A client that knows the protocol by its numbers alone and shares no code with
// the package, so that a mistake in one does not hide the same in the other. It
// checks every fixed field that it reads. Every step has a deadline, so a server
// that hangs fails the test.

const rawTimeout = 20 * time.Second

// Options.
const (
	rOptExportName = 1
	rOptAbort      = 2
	rOptList       = 3
	rOptStartTLS   = 5
	rOptInfo       = 6
	rOptGo         = 7
	rOptStructured = 8
	rOptListMeta   = 9
	rOptSetMeta    = 10
	rOptExtended   = 11
)

// Option replies.
const (
	rRepAck     = 1
	rRepServer  = 2
	rRepInfo    = 3
	rRepMeta    = 4
	rErrUnsup   = 1<<31 | 1
	rErrPolicy  = 1<<31 | 2
	rErrInvalid = 1<<31 | 3
	rErrPlatfrm = 1<<31 | 4
	rErrTLSReqd = 1<<31 | 5
	rErrUnknown = 1<<31 | 6
	rErrShutdwn = 1<<31 | 7
	rErrTooBig  = 1<<31 | 9
	rErrExtReqd = 1<<31 | 10
)

// Transmission flags.
const (
	rHasFlags      = 1 << 0
	rReadOnly      = 1 << 1
	rFlush         = 1 << 2
	rFUA           = 1 << 3
	rRotational    = 1 << 4
	rTrim          = 1 << 5
	rZeroes        = 1 << 6
	rDF            = 1 << 7
	rMultiConn     = 1 << 8
	rResize        = 1 << 9
	rCache         = 1 << 10
	rFastZero      = 1 << 11
	rStatusPayload = 1 << 12
)

// Commands and their flags.
const (
	rCmdRead   = 0
	rCmdWrite  = 1
	rCmdDisc   = 2
	rCmdFlush  = 3
	rCmdTrim   = 4
	rCmdCache  = 5
	rCmdZeroes = 6
	rCmdStatus = 7
	rCmdResize = 8

	rFlagFUA      = 1 << 0
	rFlagNoHole   = 1 << 1
	rFlagDF       = 1 << 2
	rFlagReqOne   = 1 << 3
	rFlagFastZero = 1 << 4
	rFlagPayload  = 1 << 5
)

// Chunk types.
const (
	rChunkNone      = 0
	rChunkData      = 1
	rChunkHole      = 2
	rChunkStatus    = 5
	rChunkStatusExt = 6
	rChunkError     = 1<<15 | 1
)

// Errors.
const (
	rEPERM     = 1
	rEIO       = 5
	rEINVAL    = 22
	rENOSPC    = 28
	rEOVERFLOW = 75
	rENOTSUP   = 95
	rESHUTDOWN = 108
)

// rawMode is which replies were agreed on.
type rawMode uint8

const (
	simple rawMode = iota
	structured
	extended
)

var allModes = []rawMode{simple, structured, extended}

func (m rawMode) String() string { return [...]string{"simple", "structured", "extended"}[m] }

// rawClient is one connection. One goroutine uses it.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	mode rawMode
	info rawExport

	cookie uint64
	reads  map[uint64]uint32 // length of each read under way, for simple replies
}

// rawExport is what the server told of the export.
type rawExport struct {
	size                  uint64
	flags                 uint16
	name, description     string
	minBlock, prefBlock   uint32
	maxPayload            uint32
	hasName, hasDesc, has bool
}

// connect dials and reads the greeting; the client's flags are not sent yet.
func connect(t testing.TB, addr net.Addr) *rawClient {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return attach(t, conn)
}

func attach(t testing.TB, conn net.Conn) *rawClient {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	c := &rawClient{t: t, conn: conn, r: bufio.NewReader(conn), reads: make(map[uint64]uint32)}
	c.extend()
	p := c.recv(18)
	if string(p[:16]) != "NBDMAGICIHAVEOPT" || be16(p[16:]) != 3 {
		t.Fatalf("greeting is %q", p)
	}
	return c
}

// dial connects and sends the flags of a modern client.
func dial(t testing.TB, addr net.Addr) *rawClient {
	t.Helper()
	c := connect(t, addr)
	c.send(be32(3))
	return c
}

// enter dials, negotiates and chooses an export.
func enter(t testing.TB, addr net.Addr, mode rawMode, name string) *rawClient {
	t.Helper()
	c := dial(t, addr)
	c.negotiate(mode)
	c.goExport(name)
	return c
}

// enterStatus is enter with meta contexts; it returns their ids by name.
func enterStatus(t testing.TB, addr net.Addr, mode rawMode, name string, queries ...string) (*rawClient, map[string]uint32) {
	t.Helper()
	c := dial(t, addr)
	c.negotiate(mode)
	ids := c.setMeta(name, queries...)
	c.goExport(name)
	return c, ids
}

func (c *rawClient) negotiate(mode rawMode) {
	c.t.Helper()
	switch mode {
	case structured:
		c.mustAck(rOptStructured, nil)
	case extended:
		c.mustAck(rOptExtended, nil)
	}
	c.mode = mode
}

// Bytes.

func be16(p []byte) uint16 { return binary.BigEndian.Uint16(p) }
func u32(p []byte) uint32  { return binary.BigEndian.Uint32(p) }
func u64(p []byte) uint64  { return binary.BigEndian.Uint64(p) }

func be32(v uint32) []byte       { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte       { return binary.BigEndian.AppendUint64(nil, v) }
func lenString(s string) []byte  { return append(be32(uint32(len(s))), s...) }
func cat(parts ...[]byte) []byte { return joinBytes(parts) }
func joinBytes(pp [][]byte) []byte {
	var all []byte
	for _, p := range pp {
		all = append(all, p...)
	}
	return all
}

func (c *rawClient) extend() { _ = c.conn.SetDeadline(time.Now().Add(rawTimeout)) }

func (c *rawClient) send(p []byte) {
	c.t.Helper()
	c.extend()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *rawClient) recv(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.r, p); err != nil {
		c.t.Fatalf("receive %d bytes: %v", n, err)
	}
	return p
}

// mustClose expects that the server ends the connection and sends nothing more.
func (c *rawClient) mustClose() {
	c.t.Helper()
	c.extend()
	p, err := io.ReadAll(c.r)
	if len(p) > 0 {
		c.t.Fatalf("server sent %d bytes more: %.64x", len(p), p)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("server does not close the connection")
	}
}

// Options.

type rawOptReply struct {
	typ  uint32
	data []byte
}

func optHeader(opt, length uint32) []byte {
	return cat([]byte("IHAVEOPT"), be32(opt), be32(length))
}

// ask sends an option and returns the replies to it; the last is final.
func (c *rawClient) ask(opt uint32, data []byte) []rawOptReply {
	c.t.Helper()
	c.send(cat(optHeader(opt, uint32(len(data))), data))
	return c.optReplies(opt)
}

func (c *rawClient) optReplies(opt uint32) []rawOptReply {
	c.t.Helper()
	var all []rawOptReply
	for {
		p := c.recv(20)
		if u64(p) != 0x3e889045565a9 || u32(p[8:]) != opt {
			c.t.Fatalf("reply to option %d begins %x", opt, p)
		}
		r := rawOptReply{typ: u32(p[12:])}
		if n := u32(p[16:]); n > 64<<10 {
			c.t.Fatalf("reply of %d bytes", n)
		} else {
			r.data = c.recv(int(n))
		}
		all = append(all, r)
		if r.typ == rRepAck && len(r.data) > 0 {
			c.t.Fatalf("ACK with %d bytes of data", len(r.data))
		}
		if r.typ == rRepAck || r.typ&(1<<31) != 0 {
			return all
		}
	}
}

// answer is ask for the final reply's type; an error has to come with a text.
func (c *rawClient) answer(opt uint32, data []byte) uint32 {
	c.t.Helper()
	all := c.ask(opt, data)
	last := all[len(all)-1]
	if last.typ&(1<<31) != 0 {
		if len(last.data) == 0 {
			c.t.Errorf("error %#x without a text", last.typ)
		}
		checkText(c.t, last.data)
	}
	return last.typ
}

func (c *rawClient) mustAnswer(opt uint32, data []byte, want uint32) {
	c.t.Helper()
	if got := c.answer(opt, data); got != want {
		c.t.Fatalf("option %d: reply %#x, want %#x", opt, got, want)
	}
}

func (c *rawClient) mustAck(opt uint32, data []byte) {
	c.t.Helper()
	c.mustAnswer(opt, data, rRepAck)
}

// infoData is the data of INFO and GO.
func infoData(name string, requests ...uint16) []byte {
	p := lenString(name)
	p = binary.BigEndian.AppendUint16(p, uint16(len(requests)))
	for _, r := range requests {
		p = binary.BigEndian.AppendUint16(p, r)
	}
	return p
}

// metaData is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func metaData(name string, queries ...string) []byte {
	p := cat(lenString(name), be32(uint32(len(queries))))
	for _, q := range queries {
		p = append(p, lenString(q)...)
	}
	return p
}

// askInfo sends INFO or GO, which must succeed, for everything there is.
func (c *rawClient) askInfo(opt uint32, name string) rawExport {
	c.t.Helper()
	all := c.ask(opt, infoData(name, 1, 2, 3))
	if last := all[len(all)-1]; last.typ != rRepAck {
		c.t.Fatalf("option %d for %q: reply %#x %q", opt, name, last.typ, last.data)
	}
	return c.parseInfo(all[:len(all)-1])
}

func (c *rawClient) parseInfo(all []rawOptReply) rawExport {
	c.t.Helper()
	var x rawExport
	for _, r := range all {
		if r.typ != rRepInfo || len(r.data) < 2 {
			c.t.Fatalf("reply %#x %x, want INFO", r.typ, r.data)
		}
		switch body := r.data[2:]; be16(r.data) {
		case 0:
			if len(body) != 10 || x.has {
				c.t.Fatalf("INFO_EXPORT has %d bytes or came twice", len(body))
			}
			x.size, x.flags, x.has = u64(body), be16(body[8:]), true
		case 1:
			x.name, x.hasName = string(body), true
		case 2:
			x.description, x.hasDesc = string(body), true
		case 3:
			if len(body) != 12 {
				c.t.Fatalf("INFO_BLOCK_SIZE has %d bytes", len(body))
			}
			x.minBlock, x.prefBlock, x.maxPayload = u32(body), u32(body[4:]), u32(body[8:])
		default:
			c.t.Fatalf("unknown information %d", be16(r.data))
		}
	}
	if !x.has {
		c.t.Fatal("no INFO_EXPORT")
	}
	return x
}

func (c *rawClient) goExport(name string) {
	c.t.Helper()
	c.info = c.askInfo(rOptGo, name)
}

// setMeta selects contexts and returns their ids.
func (c *rawClient) setMeta(name string, queries ...string) map[string]uint32 {
	c.t.Helper()
	ids := make(map[string]uint32)
	all := c.ask(rOptSetMeta, metaData(name, queries...))
	for _, r := range all[:len(all)-1] {
		if r.typ != rRepMeta {
			c.t.Fatalf("reply %#x to SET_META_CONTEXT", r.typ)
		}
		ids[string(r.data[4:])] = u32(r.data)
	}
	if last := all[len(all)-1]; last.typ != rRepAck {
		c.t.Fatalf("SET_META_CONTEXT: reply %#x %q", last.typ, last.data)
	}
	return ids
}

// listMeta lists contexts by name, in the order of the reply.
func (c *rawClient) listMeta(name string, queries ...string) []string {
	c.t.Helper()
	var names []string
	all := c.ask(rOptListMeta, metaData(name, queries...))
	for _, r := range all[:len(all)-1] {
		if r.typ != rRepMeta || u32(r.data) != 0 {
			c.t.Fatalf("reply %#x %x to LIST_META_CONTEXT", r.typ, r.data)
		}
		names = append(names, string(r.data[4:]))
	}
	if last := all[len(all)-1]; last.typ != rRepAck {
		c.t.Fatalf("LIST_META_CONTEXT: reply %#x %q", last.typ, last.data)
	}
	return names
}

// startTLS changes over to TLS.
func (c *rawClient) startTLS(cfg *tls.Config) {
	c.t.Helper()
	c.mustAck(rOptStartTLS, nil)
	if err := c.shakeHands(cfg); err != nil {
		c.t.Fatalf("TLS: %v", err)
	}
}

func (c *rawClient) shakeHands(cfg *tls.Config) error {
	if c.r.Buffered() > 0 {
		return fmt.Errorf("%d bytes in the clear after the ACK", c.r.Buffered())
	}
	conn := tls.Client(c.conn, cfg)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.r, c.mode = conn, bufio.NewReader(conn), simple
	return nil
}
