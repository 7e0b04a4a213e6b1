package nbd

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"sluice/block"
)

// hostileReply answers one request against the rules.
type hostileReply struct {
	mode  string
	call  string // read (64 KiB at 4096), write, extents
	reply func(c *fakeConn, r request)
	text  string // of the error; without it, ErrProtocol is not wanted
}

func dataChunk(off uint64, n int) []byte {
	return append(be.AppendUint64(nil, off), make([]byte, n)...)
}

func errorChunk(code wireError, textLen int, rest string) []byte {
	p := be.AppendUint32(nil, uint32(code))
	return append(be.AppendUint16(p, uint16(textLen)), rest...)
}

func statusChunk(id uint32, pairs ...uint32) []byte {
	p := be.AppendUint32(nil, id)
	for _, v := range pairs {
		p = be.AppendUint32(p, v)
	}
	return p
}

func statusChunkExt(id, count uint32, pairs ...uint64) []byte {
	p := be.AppendUint32(be.AppendUint32(nil, id), count)
	for _, v := range pairs {
		p = be.AppendUint64(p, v)
	}
	return p
}

var id0 = fakeContextID(0)

func send(typ chunkType, done bool, payload []byte) func(*fakeConn, request) {
	return func(c *fakeConn, r request) { c.chunk(r, typ, done, payload) }
}

func raw(p []byte) func(*fakeConn, request) {
	return func(c *fakeConn, _ request) { _, _ = c.Write(p) }
}

// header sends a chunk header that promises length bytes, and nothing more.
func header(typ chunkType, length uint64) func(*fakeConn, request) {
	return func(c *fakeConn, r request) {
		p := make([]byte, chunkExtendedSize)
		n := putChunk(p, chunk{flags: chunkFlagDone, typ: typ, cookie: r.cookie, offset: r.offset, length: length}, c.extended)
		_, _ = c.Write(p[:n])
	}
}

func twice(a, b func(*fakeConn, request)) func(*fakeConn, request) {
	return func(c *fakeConn, r request) { a(c, r); b(c, r) }
}

const kib64 = 64 << 10

var hostileReplies = map[string]hostileReply{
	"unknown magic":        {"simple", "read", raw(make([]byte, 64)), "a reply begins with 0x00000000"},
	"chunk, simple agreed": {"simple", "read", send(chunkNone, true, nil), "where replies are simple"},
	"extended, structured agreed": {"structured", "read", func(c *fakeConn, r request) {
		c.extended = true
		c.chunk(r, chunkNone, true, nil)
	}, "where replies are structured"},
	"structured, extended agreed": {"extended", "read", func(c *fakeConn, r request) {
		c.extended = false
		c.chunk(r, chunkNone, true, nil)
	}, "where replies are extended"},
	"simple, extended agreed": {"extended", "write", func(c *fakeConn, r request) { c.simple(r, wireOK, nil) }, "where replies are extended"},
	"simple to a read":        {"structured", "read", func(c *fakeConn, r request) { c.simple(r, wireOK, nil) }, "a simple reply to a read"},
	"simple to a status":      {"structured", "extents", func(c *fakeConn, r request) { c.simple(r, wireOK, nil) }, "a simple reply to a block status"},
	"simple after chunks": {"structured", "write", func(c *fakeConn, r request) {
		c.chunk(r, chunkError, false, errorChunk(wireEIO, 0, ""))
		c.simple(r, wireOK, nil)
	}, "a simple reply after chunks"},
	"stale cookie":   {"simple", "read", func(c *fakeConn, r request) { r.cookie -= 1 << 32; c.simple(r, wireOK, nil) }, "not in flight"},
	"future cookie":  {"simple", "read", func(c *fakeConn, r request) { r.cookie += 1 << 32; c.simple(r, wireOK, nil) }, "not in flight"},
	"far cookie":     {"simple", "read", func(c *fakeConn, r request) { r.cookie |= 0xffffffff; c.simple(r, wireOK, nil) }, "not in flight"},
	"other slot":     {"structured", "read", func(c *fakeConn, r request) { r.cookie++; c.ok(r) }, "not in flight"},
	"zero cookie":    {"simple", "read", func(c *fakeConn, r request) { r.cookie = 0; c.simple(r, wireOK, nil) }, "not in flight"},
	"answered twice": {"simple", "write", func(c *fakeConn, r request) { c.ok(r); c.ok(r) }, "not in flight"},
	"other offset":   {"extended", "read", func(c *fakeConn, r request) { r.offset++; c.ok(r) }, "a chunk for offset 4097"},

	"nothing":          {"structured", "read", send(chunkNone, true, nil), "of 65536 bytes was answered with 0"},
	"too little":       {"structured", "read", send(chunkOffsetData, true, dataChunk(4096, 100)), "of 65536 bytes was answered with 100"},
	"too much":         {"structured", "read", send(chunkOffsetData, true, dataChunk(4096, kib64+1)), "data chunk of 65545 bytes"},
	"huge":             {"extended", "read", header(chunkOffsetData, 1<<63), "data chunk of"},
	"empty data":       {"structured", "read", send(chunkOffsetData, true, dataChunk(4096, 0)), "data chunk of 8 bytes"},
	"before the range": {"structured", "read", send(chunkOffsetData, true, dataChunk(4095, 100)), "100 bytes at 4095"},
	"beyond the range": {"structured", "read", send(chunkOffsetData, true, dataChunk(4096+kib64-99, 100)), "100 bytes at"},
	"far beyond":       {"structured", "read", send(chunkOffsetData, true, dataChunk(1<<64-50, 100)), "100 bytes at"},
	"overlap": {"structured", "read", twice(send(chunkOffsetData, false, dataChunk(4096, 1000)),
		send(chunkOffsetData, true, dataChunk(5095, 1000))), "came twice"},
	"overlap, scattered": {"structured", "read", func(c *fakeConn, r request) {
		for _, off := range []uint64{4096, 8192, 12288, 6144, 12287} {
			c.chunk(r, chunkOffsetData, false, dataChunk(off, 100))
		}
	}, "came twice"},
	"empty hole":     {"structured", "read", send(chunkOffsetHole, true, append(dataChunk(4096, 0), 0, 0, 0, 0)), "0 bytes at 4096"},
	"long hole":      {"structured", "read", send(chunkOffsetHole, true, append(dataChunk(4096, 0), 0, 1, 0, 1)), "65537 bytes at 4096"},
	"short hole":     {"structured", "read", send(chunkOffsetHole, true, dataChunk(4096, 0)), "hole chunk of 8 bytes"},
	"none with data": {"structured", "write", send(chunkNone, true, []byte{1}), "empty chunk with 1 bytes"},
	"none not done":  {"structured", "write", send(chunkNone, false, nil), "empty chunk with 0 bytes"},
	"unknown type":   {"structured", "write", send(77, true, nil), "chunk of type 77"},
	"data to write":  {"structured", "write", send(chunkOffsetData, true, dataChunk(0, 1)), "chunk of type 1 in the reply to command 1"},
	"status to read": {"structured", "read", send(chunkBlockStatus, true, statusChunk(id0, 1, 0)), "chunk of type 5"},
	"ext, not agreed": {"structured", "extents",
		send(chunkBlockStatusExt, true, statusChunkExt(id0, 1, 512, 0)), "chunk of type 6"},
	"not ext, agreed": {"extended", "extents", send(chunkBlockStatus, true, statusChunk(id0, 512, 0)), "chunk of type 5"},

	"short error":       {"structured", "write", send(chunkError, true, []byte{0, 0, 0, 5}), "error chunk of 4 bytes"},
	"error without one": {"structured", "write", send(chunkError, true, errorChunk(0, 0, "")), "with error 0"},
	"long text":         {"structured", "write", send(chunkError, true, errorChunk(wireEIO, 10, "short")), "10 bytes of text"},
	"too long text": {"structured", "write", send(chunkError, true, errorChunk(wireEIO, 4097, strings.Repeat("x", 4097))),
		"4097 bytes of text"},
	"huge error": {"extended", "write", header(chunkError, 1<<40), "error chunk of"},
	"error elsewhere": {"structured", "read", send(chunkErrorOffset, true, errorChunk(wireEIO, 0, "\x00\x00\x00\x00\x00\x00\x00\x01")),
		"an error at 1 in the reply"},
	"error offset short": {"structured", "read", send(chunkErrorOffset, true, errorChunk(wireEIO, 0, "1234567")), "error chunk of 13"},

	"status of 0":       {"structured", "extents", send(chunkBlockStatus, true, statusChunk(id0)), "status chunk of 4 bytes"},
	"status, odd":       {"structured", "extents", send(chunkBlockStatus, true, statusChunk(id0, 512)), "status chunk of 8 bytes"},
	"status, shorter":   {"structured", "extents", send(chunkBlockStatus, true, []byte{1, 2}), "status chunk of 2 bytes"},
	"status, many":      {"structured", "extents", header(chunkBlockStatus, 4+8<<20+8), "status chunk of"},
	"status, very many": {"extended", "extents", header(chunkBlockStatusExt, 8+16<<40), "status chunk of"},
	"status, wrapping":  {"extended", "extents", header(chunkBlockStatusExt, 1<<64-8), "status chunk of"},
	"status, unknown":   {"structured", "extents", send(chunkBlockStatus, true, statusChunk(999, 512, 0)), "context 999, which was not"},
	"status twice": {"structured", "extents", twice(send(chunkBlockStatus, false, statusChunk(id0, 512, 0)),
		send(chunkBlockStatus, true, statusChunk(id0, 512, 0))), "two block status chunks"},
	"status missing": {"structured", "extents", send(chunkNone, true, nil), "without metadata context"},
	"empty extent":   {"structured", "extents", send(chunkBlockStatus, true, statusChunk(id0, 0, 0)), "extent of length zero"},
	"extents beyond": {"structured", "extents",
		send(chunkBlockStatus, true, statusChunk(id0, 1<<20, 0, 512, 1)), "more extents than cover"},
	"wrong count": {"extended", "extents", send(chunkBlockStatusExt, true, statusChunkExt(id0, 2, 512, 0)), "counts 2 extents and holds 1"},
	"overflowing": {"extended", "extents", send(chunkBlockStatusExt, true, statusChunkExt(id0, 2, 512, 0, 1<<63, 1)), "an extent of"},

	"cut in a header":  {"structured", "read", raw([]byte{0x66, 0x8e}), ""},
	"cut in a payload": {"structured", "read", header(chunkOffsetData, 8+kib64), ""},
}

// TestClientHostileServers: whatever breaks the rules ends the connection with an
// error that says how, and no reconnect.
func TestClientHostileServers(t *testing.T) {
	for name, h := range hostileReplies {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			s.contexts = []string{ContextAllocation}
			fakeModes[h.mode](s)
			s.serve = func(c *fakeConn) {
				r, _, err := c.next()
				if err != nil {
					return
				}
				h.reply(c, r)
				if h.text == "" {
					return
				}
				_, _ = io.Copy(io.Discard, c)
			}
			cfg := ClientConfig{Reconnect: ReconnectForever}
			if h.text == "" {
				cfg.Reconnect = NoReconnect
			}
			c := s.start().dial(cfg)
			var err error
			within(t, h.call, func() { err = hostileCall(c, h.call) })
			if name == "answered twice" && err == nil {
				within(t, "second call", func() { err = hostileCall(c, h.call) })
			}
			if h.text == "" {
				wantKind(t, err, block.Transient)
				return
			}
			wantKind(t, err, block.IO)
			if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), h.text) {
				t.Fatalf("%q lacks %q", err, h.text)
			}
			if again := hostileCall(c, h.call); !errors.Is(again, ErrProtocol) {
				t.Fatalf("the next call: %v", again)
			}
		})
	}
}

func hostileCall(c *Client, call string) error {
	switch call {
	case "read":
		return c.ReadAt(background, make([]byte, kib64), 4096)
	case "write":
		return c.WriteAt(background, make([]byte, 512), 0, 0)
	}
	_, err := c.Extents(background, 0, 1<<20, make([]block.Extent, 0, 100))
	return err
}

// TestClientScatteredReply: a reply in many pieces in the worst order arrives
// whole; more pieces than any honest server sends end the connection.
func TestClientScatteredReply(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	for i := range s.data {
		s.data[i] = byte(i % 251)
	}
	piece := uint64(512)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			var out bytes.Buffer
			put := func(off uint64, done bool) {
				p := make([]byte, chunkExtendedSize)
				h := chunk{typ: chunkOffsetData, cookie: r.cookie, offset: r.offset, length: 8 + piece}
				if done {
					h.flags = chunkFlagDone
				}
				out.Write(p[:putChunk(p, h, c.extended)])
				out.Write(be.AppendUint64(nil, off))
				out.Write(s.data[off : off+piece])
			}
			for off := r.offset + r.length - piece; ; off -= 2 * piece { // every other one, from the end
				put(off, false)
				if off < r.offset+2*piece {
					break
				}
			}
			for off := r.offset; off < r.offset+r.length; off += 2 * piece {
				put(off, off+2*piece >= r.offset+r.length)
			}
			_, _ = c.Write(out.Bytes())
			return true
		})
	}
	c := s.start().dial(ClientConfig{})
	p := make([]byte, 1<<19)
	if err := c.ReadAt(background, p, 4096); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, s.data[4096:4096+1<<19]) {
		t.Fatal("wrong bytes")
	}
	piece = 1
	err := c.ReadAt(background, make([]byte, 1<<19), 4096)
	if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "scattered") {
		t.Fatal(err)
	}
}

// FuzzClientReplies feeds bytes to the reply parser as the answer to one request
// of each kind. Whatever they are, it must end with an error, keep to the buffers
// that it was given, and not allocate by what the bytes claim.
func FuzzClientReplies(f *testing.F) {
	for _, h := range hostileReplies {
		mode := map[string]byte{"simple": 0, "structured": 1, "extended": 2}[h.mode]
		f.Add(mode, fuzzSeed(h, mode))
	}
	f.Fuzz(func(t *testing.T, mode byte, input []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fuzzReplies(t, mode%3, input)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20+64*uint64(len(input)) {
			t.Fatalf("%d bytes of input made the parser allocate %d", len(input), grown)
		}
	})
}

// fuzzSlots is one request in flight of each kind; the slot's index says which.
func fuzzSlots(mode clientMode, whole []byte) []clientSlot {
	slots := make([]clientSlot, 5)
	for i := range slots {
		s := &slots[i]
		s.index, s.gen, s.done = uint32(i), 1, make(chan struct{}, 1)
		s.off, s.n = 4096, kib64
		switch i {
		case 0:
			s.cmd, s.buf = cmdRead, whole[16:16+kib64:16+kib64]
		case 1:
			s.cmd = cmdWrite
			s.lent.Store(clientSent)
		case 2, 3:
			s.cmd, s.off, s.n, s.status = cmdBlockStatus, 0, 1<<20, &clientStatus{keep: 16}
			s.status.prepare(mode.contexts)
			if i == 3 {
				s.flags = cfReqOne
			}
		case 4:
			s.cmd, s.n, s.off = cmdFlush, 0, 0
		}
		s.live.Store(s.cookie())
	}
	return slots
}

func fuzzReplies(t *testing.T, kind byte, input []byte) {
	mode := clientMode{structured: kind == 1, extended: kind == 2,
		contexts: []clientContext{{ContextAllocation, id0}, {ContextDepth, fakeContextID(1)}}}
	whole := bytes.Repeat([]byte{0xee}, kib64+32)
	slots := fuzzSlots(mode, whole)
	stream := &clientStream{in: bytes.NewReader(input), buf: make([]byte, clientReadBuffer)}
	completed := 0
	r := clientReplies{stream: stream, mode: mode, slots: slots,
		awaitLong: func() bool { return true }, finish: func(*clientSlot) { completed++ }}
	for r.one() == nil {
		// Each takes some of the input, which ends.
	}
	if completed > len(slots) {
		t.Fatalf("%d completions of %d requests", completed, len(slots))
	}
	if !bytes.Equal(whole[:16], whole[16+kib64:]) || whole[0] != 0xee {
		t.Fatal("wrote outside the caller's buffer")
	}
	for i := range slots {
		s := &slots[i]
		if done := len(s.done) == 1; done != (s.live.Load() == 0) {
			t.Fatalf("request %d: completed %v, in flight %v", i, done, !done)
		} else if done && i == 0 && s.code == wireOK && mode.extended && s.cover.total != s.n {
			t.Fatalf("a read succeeded with %d of %d bytes", s.cover.total, s.n)
		}
	}
}
