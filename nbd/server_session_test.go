package nbd_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/nbd"
)

// CHECKLIST.md N01 to N12: transport and session.

var sessionTests = []serverTest{
	{"N01_tcp_nodelay", testNoDelay},
	{"N01_unix_socket", testUnixSocket},
	{"N02_any_connection", testPipe},
	{"N03_newstyle_greeting", testGreeting},
	{"N03_plain_newstyle_client", testPlainNewstyle},
	{"N04_unknown_client_flag", testUnknownClientFlag},
	{"N05_unknown_option", testUnknownOption},
	{"N05_bad_option_magic", testBadOptionMagic},
	{"N06_option_length_cap", testOptionLengthCap},
	{"N06_strings", testStrings},
	{"N07_handshake_deadline", testHandshakeDeadline},
	{"N07_connection_cap", testConnectionCap},
	{"N07_connection_cap_of_an_export", testExportCap},
	{"N08_backend_untouched_before_go", testBackendUntouched},
	{"N09_abort", testAbort},
	{"N09_disconnect", testDisconnect},
	{"N10_shutdown_drains", testShutdownDrains},
	{"N10_shutdown_in_handshake", testShutdownInHandshake},
	{"N10_shutdown_gives_up", testShutdownGivesUp},
	{"N10_close_ends_long_zeroing", testCloseEndsZeroing},
	{"N11_death_in_write", testDeathInWrite},
	{"N11_death_with_requests_in_flight", testDeathInFlight},
	{"N11_death_drops_what_waits", testDeathDrops},
	{"N11_half_closed_client_is_answered", testHalfClosed},
	{"N12_bad_request_magic", testBadRequestMagic},
}

func testNoDelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *os.File, 1)
	s := serveOn(t, tapListener{l, accepted}, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, 1<<20)})
	c := enter(t, s.addr, structured, "")
	c.alive()
	socket := <-accepted
	defer func() { _ = socket.Close() }()
	value, err := unix.GetsockoptInt(int(socket.Fd()), unix.IPPROTO_TCP, unix.TCP_NODELAY)
	if err != nil || value != 1 {
		t.Errorf("TCP_NODELAY is %d, error %v", value, err)
	}
}

// tapListener shows the sockets of the connections that it accepts.
type tapListener struct {
	net.Listener
	accepted chan *os.File
}

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) {
		if socket, err := unix.Dup(int(fd)); err == nil {
			l.accepted <- os.NewFile(uintptr(socket), "accepted")
		}
	})
	return c, err
}

func testUnixSocket(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := enter(t, s.addr, structured, "")
	c.mustOK(c.write(0, pattern(5000, 1)))
	mustEqual(t, c.mustOK(c.read(0, 5000)).data, pattern(5000, 1), "read")
}

// testPipe serves a connection that is no socket, as inetd's or a tunnel's can
// be.
func testPipe(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.ServeConn(theirs) }()
	c := attach(t, ours)
	c.send(be32(3))
	c.negotiate(structured)
	c.goExport("")
	c.mustOK(c.write(100, pattern(70000, 3)))
	mustEqual(t, c.mustOK(c.read(100, 70000)).data, pattern(70000, 3), "read")
	c.start(rawRequest{cmd: rCmdDisc})
	if err := <-ended; err != nil {
		t.Errorf("ServeConn after a disconnect: %v", err)
	}
}

func testGreeting(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := connect(t, s.addr) // checks magics and flags
	c.send(be32(1))
	c.mustAck(rOptStructured, nil)
}

// testPlainNewstyle: a client that does not set the fixed newstyle flag knows
// one option alone.
func testPlainNewstyle(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := connect(t, s.addr)
	c.send(be32(0))
	c.send(optHeader(rOptExportName, 0))
	if p := c.recv(134); u64(p) != 1<<20 {
		t.Errorf("size %d", u64(p))
	}
	c.alive()
	c = connect(t, s.addr)
	c.send(be32(0))
	c.send(optHeader(rOptList, 0))
	c.mustClose()
}

func testUnknownClientFlag(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	for bit := 2; bit < 32; bit++ {
		c := connect(t, s.addr)
		c.send(be32(3 | 1<<bit))
		c.mustClose()
	}
}

func testUnknownOption(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	for _, opt := range []uint32{0, 4, 12, 99, 1 << 20, 0xffffffff} {
		c.mustAnswer(opt, nil, rErrUnsup)
		c.mustAnswer(opt, bytes.Repeat([]byte("IHAVEOPT"), 100), rErrUnsup)
	}
	c.goExport("")
	c.alive()
}

func testBadOptionMagic(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.send(cat([]byte("IHAVEOPX"), be32(rOptList), be32(0)))
	c.mustClose()
}

func testOptionLengthCap(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	big := make([]byte, 300<<10)
	for _, opt := range []uint32{rOptGo, rOptInfo, rOptList, rOptSetMeta, rOptAbort + 100} {
		c.mustAnswer(opt, big, rErrTooBig)
	}
	c.send(optHeader(rOptInfo, 1<<31))
	c.mustClose()
	c = dial(t, s.addr)
	c.send(optHeader(rOptExportName, 4097))
	c.send(make([]byte, 4097))
	c.mustClose()
}

func testStrings(t *testing.T) {
	long := string(bytes.Repeat([]byte("é"), 2048))
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: long, Device: newMem(t, 1<<20)})
	c := dial(t, s.addr)
	c.mustAnswer(rOptInfo, infoData("a\x00b"), rErrInvalid)
	c.mustAnswer(rOptInfo, infoData("\xff\xfe"), rErrInvalid)
	c.mustAnswer(rOptInfo, infoData(long+"x"), rErrInvalid)
	// An error text that quotes a long name is cut between characters.
	c.mustAnswer(rOptInfo, infoData("x"+long[:4094]), rErrUnknown)
	if x := c.askInfo(rOptInfo, long); x.name != long {
		t.Errorf("name of %d bytes", len(x.name))
	}
	if err := s.exports.Add(&nbd.Export{Name: long + "x", Device: newMem(t, 1)}); block.KindOf(err) != block.Invalid {
		t.Errorf("export with too long a name: %v", err)
	}
}

func testHandshakeDeadline(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{HandshakeTimeout: 500 * time.Millisecond}, &nbd.Export{Device: newMem(t, 1<<20)})
	connect(t, s.addr).mustClose()
	c := dial(t, s.addr)
	c.send(optHeader(rOptGo, 100))
	c.mustClose()
	// It ends with the handshake: a connection that is through may be silent.
	c = enter(t, s.addr, simple, "")
	connect(t, s.addr).mustClose() // one whose deadline is later
	c.alive()
}

func testConnectionCap(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{MaxConnections: 2}, &nbd.Export{Device: newMem(t, 1<<20)})
	a := enter(t, s.addr, simple, "")
	b := enter(t, s.addr, simple, "")
	conn, err := net.Dial(s.addr.Network(), s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if p, _ := io.ReadAll(conn); len(p) > 0 {
		t.Errorf("third client got %q", p)
	}
	a.alive()
	b.start(rawRequest{cmd: rCmdDisc})
	b.mustClose()
	waitFor(t, "the second to be forgotten", func() bool { return s.Connections() == 1 })
	enter(t, s.addr, simple, "").alive()
}

func testExportCap(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "few", Device: newMem(t, 1<<20), MaxConnections: 2},
		&nbd.Export{Name: "many", Device: newMem(t, 1<<20)})
	a := enter(t, s.addr, simple, "few")
	enter(t, s.addr, simple, "few").alive()
	c := dial(t, s.addr)
	for range 3 {
		c.mustAnswer(rOptGo, infoData("few"), rErrPolicy)
	}
	enter(t, s.addr, simple, "many").alive()
	a.start(rawRequest{cmd: rCmdDisc})
	a.mustClose()
	waitFor(t, "the first to be forgotten", func() bool { return c.answer(rOptInfo, infoData("few")) == rRepAck })
	c.goExport("few")
	c.alive()
}

// countingCatalog notes how often exports were opened.
type countingCatalog struct {
	*nbd.Exports
	opened atomic.Int32
}

func (c *countingCatalog) Open(ctx context.Context, name string, peer nbd.Peer) (*nbd.Export, error) {
	c.opened.Add(1)
	return c.Exports.Open(ctx, name, peer)
}

func testBackendUntouched(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	catalog := &countingCatalog{Exports: new(nbd.Exports)}
	if err := catalog.Add(&nbd.Export{Device: d}); err != nil {
		t.Fatal(err)
	}
	s := serveWith(t, nbd.ServerConfig{Catalog: catalog})
	c := dial(t, s.addr)
	c.mustAnswer(77, nil, rErrUnsup)
	c.negotiate(structured)
	c.ask(rOptList, nil)
	if n := catalog.opened.Load(); n != 0 {
		t.Errorf("exports opened %d times before one was chosen", n)
	}
	c.askInfo(rOptInfo, "")
	c.setMeta("", "base:allocation")
	if got := d.took("read", "write", "flush", "zero", "discard", "extents", "prefetch"); len(got) > 0 {
		t.Errorf("device was asked %v before GO", got)
	}
	c.goExport("")
}

func testBadRequestMagic(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		s := serveDevice(t, newMem(t, 1<<20))
		c := enter(t, s.addr, mode, "")
		c.alive()
		p, _ := c.encode(rawRequest{cmd: rCmdFlush})
		p[3] ^= 1
		c.send(p)
		c.mustClose()
		// The header of the other form is as bad.
		c = enter(t, s.addr, mode, "")
		other := &rawClient{t: t, mode: extended, reads: map[uint64]uint32{}}
		if mode == extended {
			other.mode = structured
		}
		p, _ = other.encode(rawRequest{cmd: rCmdFlush})
		c.send(append(p, p...))
		c.mustClose()
	})
}
