package nbd_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/nbd"
)

// What clients with bad manners can do: nothing to the server, nothing to
// others. server_memory_test.go measures what they cost.

// TestServerTruncated cuts a conversation of every message off at every byte.
// The device never sees a part of a write; a whole one, when the client does not
// go on to break the protocol.
func TestServerTruncated(t *testing.T) {
	d := newDisk(1<<20, diskCaps|block.CapBitmaps)
	d.bitmaps = []string{"monday"}
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "x", Device: d})
	warm(t, s, "x")
	fds := countFDs(t)
	for _, mode := range allModes {
		script, whole := conversation(mode)
		for n := range len(script) + 1 {
			talk(t, s.addr, script[:n])
			waitFor(t, "the end of the connection", func() bool { return s.Connections() == 0 })
			got := d.took("write")
			if n < whole && len(got) > 0 || n == whole && len(got) != 1 {
				t.Fatalf("%v cut at %d of %d: device saw %v", mode, n, len(script), got)
			}
			for _, w := range got {
				if w.n != 100 {
					t.Fatalf("%v cut at %d of %d: device saw %v", mode, n, len(script), got)
				}
			}
			d.forget()
		}
	}
	if n := countFDs(t); n > fds {
		t.Errorf("%d descriptors open, %d before", n, fds)
	}
	enter(t, s.addr, structured, "x").alive()
}

// conversation is all that a client says in a session; its write is complete
// after whole bytes.
func conversation(mode rawMode) (script []byte, whole int) {
	opt := func(opt uint32, data []byte) {
		script = append(script, cat(optHeader(opt, uint32(len(data))), data)...)
	}
	script = be32(3)
	opt(rOptList, nil)
	opt(99, []byte("data"))
	opt(rOptStartTLS, nil)
	switch mode {
	case structured:
		opt(rOptStructured, nil)
	case extended:
		opt(rOptExtended, nil)
	}
	opt(rOptListMeta, metaData("x", "base:", "qemu:"))
	opt(rOptSetMeta, metaData("x", qAllocation, qMonday))
	opt(rOptInfo, infoData("x", 1, 2))
	opt(rOptGo, infoData("x", 3))
	c := &rawClient{mode: mode, reads: map[uint64]uint32{}}
	req := func(r rawRequest) {
		p, _ := c.encode(r)
		script = append(script, p...)
	}
	req(rawRequest{cmd: rCmdRead, length: 4096})
	req(rawRequest{cmd: rCmdStatus, length: 4096})
	req(rawRequest{cmd: rCmdWrite, payload: pattern(100, 1)})
	whole = len(script)
	req(rawRequest{cmd: rCmdFlush})
	req(rawRequest{cmd: 77, length: 5})
	req(rawRequest{cmd: rCmdStatus, payload: be64(512)})
	req(rawRequest{cmd: rCmdDisc})
	return script, whole
}

// talk says something, hangs up half way and listens to the end.
func talk(t testing.TB, addr net.Addr, script []byte) {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(rawTimeout))
	_, _ = conn.Write(script) // the server may have had enough before its end
	_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	_, err = io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("server does not end a conversation of %d bytes", len(script))
	}
}

// TestServerNoise sends messages in any order, with single bits turned over, and
// plain noise.
func TestServerNoise(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "x", Device: sparseDisk()})
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		for _, mode := range allModes {
			script, _ := conversation(mode)
			for range 1 + rnd.IntN(4) {
				i := rnd.IntN(len(script))
				script[i] ^= 1 << rnd.IntN(8)
			}
			talk(t, s.addr, script)
		}
	}
	for range 300 {
		p := make([]byte, rnd.IntN(200))
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		talk(t, s.addr, p)
		talk(t, s.addr, append(be32(3), p...))
		talk(t, s.addr, cat(be32(3), optHeader(rOptGo, 7), infoData("x"), p))
	}
	enter(t, s.addr, structured, "x").alive()
}

// TestServerWrongPhase sends requests in the handshake and options in the
// transmission.
func TestServerWrongPhase(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	p, _ := c.encode(rawRequest{cmd: rCmdFlush})
	c.send(p)
	c.mustClose()
	c = enter(t, s.addr, simple, "")
	c.send(cat(optHeader(rOptGo, 6), infoData(""), optHeader(rOptAbort, 0)))
	c.mustClose()
	// Pipelined options are answered one after the other.
	c = dial(t, s.addr)
	c.send(cat(optHeader(rOptStructured, 0), optHeader(rOptList, 0), optHeader(rOptGo, 6), infoData("")))
	for _, opt := range []uint32{rOptStructured, rOptList, rOptGo} {
		if all := c.optReplies(opt); all[len(all)-1].typ != rRepAck {
			t.Errorf("option %d: %v", opt, all)
		}
	}
	c.mode = structured
	c.alive()
}

// wellBehaved is a client that writes and reads its disk, beside others that do
// not behave.
type wellBehaved struct {
	rounds atomic.Int64 // that it has gone through so far
	done   atomic.Bool
	ended  sync.WaitGroup
	worst  time.Duration // that a round took
}

// neighbour keeps such a client busy until it is told to stop.
func neighbour(t *testing.T, addr net.Addr, name string) *wellBehaved {
	t.Helper()
	c := enter(t, addr, structured, name)
	n := new(wellBehaved)
	n.ended.Go(func() {
		for i := byte(0); !n.done.Load(); i++ {
			begin := time.Now()
			if rep := c.write(4096, pattern(4096, i)); rep.err != 0 {
				t.Errorf("neighbour's write: %d", rep.err)
			}
			if rep := c.read(4096, 4096); string(rep.data) != string(pattern(4096, i)) {
				t.Error("neighbour reads something else than it wrote")
			}
			n.worst = max(n.worst, time.Since(begin))
			n.rounds.Add(1)
		}
	})
	return n
}

// stop waits until the neighbour has gone through some more rounds, beside
// whatever the others hold up, and stops it.
func (n *wellBehaved) stop(t *testing.T) {
	t.Helper()
	enough := n.rounds.Load() + 20
	waitFor(t, "the neighbour", func() bool { return n.rounds.Load() >= enough })
	n.done.Store(true)
	n.ended.Wait()
	if n.worst > patience {
		t.Errorf("a neighbour waited %v", n.worst)
	}
}

// patience is what a neighbour may have to wait on a machine under load.
const patience = 5 * time.Second

// TestServerHalfPayloads leaves writes half sent on many connections.
func TestServerHalfPayloads(t *testing.T) {
	d := newDisk(4<<20, diskCaps)
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "victim", Device: newMem(t, 1<<20)}, &nbd.Export{Device: d})
	victim := neighbour(t, s.addr, "victim")
	var clients []*rawClient
	for i := range 100 {
		c := enter(t, s.addr, allModes[i%3], "")
		p, _ := c.encode(rawRequest{cmd: rCmdWrite, payload: make([]byte, 1<<20)})
		c.send(p[:1<<19])
		clients = append(clients, c)
	}
	enter(t, s.addr, structured, "").alive()
	victim.stop(t)
	for _, c := range clients {
		_ = c.conn.Close()
	}
	waitFor(t, "the connections to end", func() bool { return s.Connections() == 2 })
	for _, w := range d.took("write") { // the piece that arrived whole
		if w.off != 0 || w.n != 256<<10 {
			t.Errorf("device saw %v", w)
		}
	}
}

// TestServerManyHandshakes keeps a thousand connections in the handshake.
func TestServerManyHandshakes(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{HandshakeTimeout: 3 * time.Second}, &nbd.Export{Device: newMem(t, 1<<20)})
	warm(t, s, "")
	fds := countFDs(t)
	conns := make([]net.Conn, 1000)
	before := liveMemory()
	victim := neighbour(t, s.addr, "")
	for i := range conns {
		conn, err := net.Dial(s.addr.Network(), s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
		switch i % 3 {
		case 1:
			_, _ = conn.Write(be32(3))
		case 2: // announces the longest option and sends one byte of it
			_, _ = conn.Write(cat(be32(3), optHeader(rOptInfo, 256<<10), []byte{0}))
		}
	}
	for _, conn := range conns {
		waitFor(t, "the server to read what was sent", func() bool { return unread(t, conn) == 0 })
	}
	victim.stop(t)
	if per := (liveMemory() - before) / int64(len(conns)); per > 32<<10 {
		t.Errorf("%d bytes for a connection in the handshake", per)
	} else {
		t.Logf("%d bytes for a connection in the handshake", per)
	}
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(rawTimeout))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("connection outlives the handshake's deadline")
		}
		_ = conn.Close()
	}
	// One client remains, with both ends in this process.
	waitFor(t, "the descriptors to be given back", func() bool { return countFDs(t) <= fds+2 })
}

// unread counts what the other end of a unix socket has not taken yet, in bytes
// of the kernel's memory.
func unread(t testing.TB, conn net.Conn) (n int) {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return n
}

// warm makes the server open what it keeps for good.
func warm(t *testing.T, s *testServer, export string) {
	t.Helper()
	c := enter(t, s.addr, structured, export)
	c.alive()
	_ = c.conn.Close()
	waitFor(t, "the first connection's end", func() bool { return s.Connections() == 0 })
}

func countFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
