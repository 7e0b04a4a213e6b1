package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice/block"
)

// fakeServer is a server for the client's tests: it speaks the handshake as told
// and hands the transmission phase to a function, so that it can break any rule.
type fakeServer struct {
	t        *testing.T
	listener net.Listener
	conns    sync.WaitGroup

	// What the handshake offers.
	greeting     []byte // instead of a true one
	plain        bool   // newstyle that is not fixed
	zeroes       bool   // no NO_ZEROES
	noGo         bool
	noStructured bool
	noExtended   bool
	secure       *tls.Config
	injected     []byte // sent in plain text after the answer to STARTTLS
	flags        transmissionFlags
	blockSize    [3]uint32
	contexts     []string
	option       func(c *fakeConn, opt option, data []byte) bool // true: answered

	// serve has the transmission phase; nil is fakeConn.memory.
	serve func(c *fakeConn)

	mu     sync.Mutex
	size   int64
	data   []byte // what reads see
	stable []byte // what a crash leaves
	live   map[*fakeConn]bool
	number int // of connections made
	cut    bool
}

// fakeConn is one connection to it.
type fakeConn struct {
	s          *fakeServer
	net.Conn   // the secure one after STARTTLS
	raw        net.Conn
	number     int
	structured bool
	extended   bool
	contexts   []string
}

const fakeFlags = tfHasFlags | tfFlush | tfFUA | tfTrim | tfWriteZeroes | tfFastZero | tfCache

func newFakeServer(t *testing.T, size int64) *fakeServer {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return &fakeServer{t: t, listener: listener, flags: fakeFlags, size: size,
		data: make([]byte, size), stable: make([]byte, size), live: map[*fakeConn]bool{}}
}

// start accepts connections until the test ends.
func (s *fakeServer) start() *fakeServer {
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.accept(conn)
		}
	})
	s.t.Cleanup(func() {
		_ = s.listener.Close()
		accepting.Wait()
		s.crash(true)
		s.conns.Wait()
	})
	return s
}

func (s *fakeServer) accept(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	c := &fakeConn{s: s, Conn: conn, raw: conn, number: s.number}
	if s.cut {
		_ = conn.Close()
		return
	}
	s.live[c] = true
	s.conns.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.live, c)
			s.mu.Unlock()
			_ = conn.Close()
		}()
		if c.handshake() == nil {
			if s.serve != nil {
				s.serve(c)
			} else {
				c.memory(nil)
			}
		}
	})
}

// crash breaks all connections; what was not flushed is lost. While away, new
// connections are closed at once.
func (s *fakeServer) crash(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = away
	copy(s.data, s.stable)
	for c := range s.live {
		_ = c.raw.Close()
	}
}

func (s *fakeServer) uri() string {
	return URI{Socket: s.listener.Addr().String(), Export: "disk", TLS: s.secure != nil}.String()
}

func (s *fakeServer) dial(cfg ClientConfig) *Client {
	s.t.Helper()
	c, err := s.tryDial(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *fakeServer) tryDial(cfg ClientConfig) (*Client, error) {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	c, err := Dial(context.Background(), s.uri(), cfg)
	if err == nil {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

var errFakeDone = errors.New("handshake ended")

func (c *fakeConn) handshake() error {
	flags := handshakeFixedNewstyle | handshakeNoZeroes
	if c.s.plain {
		flags &^= handshakeFixedNewstyle
	}
	if c.s.zeroes {
		flags &^= handshakeNoZeroes
	}
	hello := be.AppendUint64(nil, magicNBD)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, flags)
	if c.s.greeting != nil {
		hello = c.s.greeting
	}
	if _, err := c.Write(hello); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		return err
	}
	for {
		head := make([]byte, optionSize)
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		data := make([]byte, be.Uint32(head[12:]))
		if _, err := io.ReadFull(c, data); err != nil {
			return err
		}
		opt := option(be.Uint32(head[8:]))
		if c.s.option != nil && c.s.option(c, opt, data) {
			continue
		}
		if done, err := c.answer(opt, data); done || err != nil {
			return err
		}
	}
}

func (c *fakeConn) answer(opt option, data []byte) (done bool, err error) {
	s := c.s
	switch {
	case opt == optExportName:
		reply := be.AppendUint64(nil, uint64(s.size))
		reply = be.AppendUint16(reply, uint16(s.flags))
		if s.zeroes {
			reply = append(reply, make([]byte, 124)...)
		}
		_, err = c.Write(reply)
		return true, err
	case opt == optAbort:
		c.reply(opt, repAck, nil)
		return false, errFakeDone
	case opt == optStartTLS && s.secure != nil:
		c.reply(opt, repAck, s.injected)
		conn := tls.Server(c.Conn, s.secure)
		c.Conn = conn
		return false, conn.Handshake()
	case opt == optExtendedHeaders && !s.noExtended:
		c.extended = true
		c.reply(opt, repAck, nil)
	case opt == optStructuredReply && !s.noStructured:
		c.structured = true
		c.reply(opt, repAck, nil)
	case opt == optSetMetaContext && len(s.contexts) > 0:
		for i, name := range s.contexts {
			c.contexts = append(c.contexts, name)
			c.reply(opt, repMetaContext, append(be.AppendUint32(nil, fakeContextID(i)), name...))
		}
		c.reply(opt, repAck, nil)
	case (opt == optGo || opt == optInfo) && !s.noGo:
		c.export(opt)
		return opt == optGo, nil
	default:
		c.reply(opt, repErrUnsupported, []byte("not here"))
	}
	return false, nil
}

func fakeContextID(i int) uint32 { return uint32(i)*7 + 3 }

func (c *fakeConn) export(opt option) {
	info := be.AppendUint16(nil, uint16(infoExport))
	info = be.AppendUint64(info, uint64(c.s.size))
	c.reply(opt, repInfo, be.AppendUint16(info, uint16(c.s.flags)))
	if c.s.blockSize[0] != 0 {
		info = be.AppendUint16(nil, uint16(infoBlockSize))
		for _, v := range c.s.blockSize {
			info = be.AppendUint32(info, v)
		}
		c.reply(opt, repInfo, info)
	}
	c.reply(opt, repAck, nil)
}

// reply answers an option. Extra bytes after an ACK are sent with it.
func (c *fakeConn) reply(opt option, typ optionReply, data []byte) {
	p := be.AppendUint64(nil, magicOptionReply)
	p = be.AppendUint32(p, uint32(opt))
	p = be.AppendUint32(p, uint32(typ))
	if typ == repAck {
		p = be.AppendUint32(p, 0)
	} else {
		p = be.AppendUint32(p, uint32(len(data)))
	}
	_, _ = c.Write(append(p, data...))
}

// next reads a request and its payload.
func (c *fakeConn) next() (request, []byte, error) {
	var r request
	if c.extended {
		p := make([]byte, requestExtendedSize)
		if _, err := io.ReadFull(c, p); err != nil {
			return r, nil, err
		}
		r = decodeRequestExtended(p)
	} else {
		p := make([]byte, requestSize)
		if _, err := io.ReadFull(c, p); err != nil {
			return r, nil, err
		}
		r = decodeRequest(p)
	}
	if r.cmd != cmdWrite {
		return r, nil, nil
	}
	payload := make([]byte, r.length)
	_, err := io.ReadFull(c, payload)
	return r, payload, err
}

// simple answers with a simple reply.
func (c *fakeConn) simple(r request, code wireError, payload []byte) {
	p := make([]byte, simpleReplySize)
	putSimpleReply(p, code, r.cookie)
	_, _ = c.Write(append(p, payload...))
}

// chunk sends a chunk of a structured or extended reply.
func (c *fakeConn) chunk(r request, typ chunkType, done bool, payload []byte) {
	p := make([]byte, chunkExtendedSize)
	h := chunk{typ: typ, cookie: r.cookie, offset: r.offset, length: uint64(len(payload))}
	if done {
		h.flags = chunkFlagDone
	}
	n := putChunk(p, h, c.extended)
	_, _ = c.Write(append(p[:n], payload...))
}

// ok answers a request without payload.
func (c *fakeConn) ok(r request) {
	if c.extended {
		c.chunk(r, chunkNone, true, nil)
		return
	}
	c.simple(r, wireOK, nil)
}

// read answers a read with data in one piece.
func (c *fakeConn) read(r request, data []byte) {
	if c.extended || c.structured {
		c.chunk(r, chunkOffsetData, true, append(be.AppendUint64(nil, r.offset), data...))
		return
	}
	c.simple(r, wireOK, data)
}

// fail answers with an error and a text.
func (c *fakeConn) fail(r request, code wireError, text string) {
	if !c.extended && !c.structured {
		c.simple(r, code, nil)
		return
	}
	p := be.AppendUint32(nil, uint32(code))
	p = be.AppendUint16(p, uint16(len(text)))
	c.chunk(r, chunkError, true, append(p, text...))
}

// memory serves s.data. Before each request hook is asked, if there is one; true
// means that it has answered.
func (c *fakeConn) memory(hook func(r request, payload []byte) bool) {
	for {
		r, payload, err := c.next()
		if err != nil || r.cmd == cmdDisconnect {
			return
		}
		if hook != nil && hook(r, payload) {
			continue
		}
		c.s.mu.Lock()
		if !c.s.live[c] || c.s.cut {
			c.s.mu.Unlock()
			return
		}
		var answer []byte
		switch r.cmd {
		case cmdRead:
			answer = append(answer, c.s.data[r.offset:r.offset+r.length]...)
		case cmdWrite:
			copy(c.s.data[r.offset:], payload)
		case cmdWriteZeroes:
			clear(c.s.data[r.offset : r.offset+r.length])
		case cmdFlush:
			copy(c.s.stable, c.s.data)
		}
		if r.flags&cfFUA != 0 {
			copy(c.s.stable[r.offset:], c.s.data[r.offset:r.offset+r.length])
		}
		c.s.mu.Unlock()
		if r.cmd == cmdRead {
			c.read(r, answer)
		} else {
			c.ok(r)
		}
	}
}

// within fails the test when f takes too long, with what it was waiting for.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not done after 20 s", what)
	}
}

func wantKind(t *testing.T, err error, kind block.Kind) {
	t.Helper()
	if got := block.KindOf(err); got != kind {
		t.Fatalf("kind %q, want %q: %v", got, kind, err)
	}
}

// wait gives others the processor in a loop that waits for a condition.
func wait(t *testing.T) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal("the test ended")
	case <-time.After(time.Millisecond):
	}
}
