package nbd_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unicode/utf8"
)

// The transmission phase of the raw client.

// rawRequest is a request as a test writes it.
type rawRequest struct {
	flags, cmd uint16
	offset     uint64
	length     uint64
	payload    []byte
}

// rawChunk is one message of the server's, in any of the three forms.
type rawChunk struct {
	simple  bool
	done    bool
	typ     uint16
	cookie  uint64
	payload []byte // without the header; of a simple read: the data
	err     uint32
	text    string
}

// rawReply is a whole reply put together.
type rawReply struct {
	err    uint32
	text   string
	data   []byte // of a read, holes filled with zeroes
	chunks []rawChunk
}

// header writes a request's header in the agreed form.
func (c *rawClient) header(req rawRequest, cookie uint64) []byte {
	magic := uint32(0x25609513)
	if c.mode == extended {
		magic = 0x21e41c71
	}
	p := be32(magic)
	p = binary.BigEndian.AppendUint16(p, req.flags)
	p = binary.BigEndian.AppendUint16(p, req.cmd)
	p = cat(p, be64(cookie), be64(req.offset))
	if c.mode == extended {
		return append(p, be64(req.length)...)
	}
	return append(p, be32(uint32(req.length))...)
}

// encode fills in what every good request has: a write's length and, with
// extended headers, its payload flag.
func (c *rawClient) encode(req rawRequest) (p []byte, cookie uint64) {
	if req.payload != nil {
		req.length = uint64(len(req.payload))
		if c.mode == extended {
			req.flags |= rFlagPayload
		}
	}
	c.cookie++
	cookie = c.cookie<<32 | 0xfeed // opaque to the server
	if req.cmd == rCmdRead {
		c.reads[cookie] = uint32(req.length)
	}
	return append(c.header(req, cookie), req.payload...), cookie
}

// start sends a request and returns its cookie.
func (c *rawClient) start(req rawRequest) uint64 {
	c.t.Helper()
	p, cookie := c.encode(req)
	c.send(p)
	return cookie
}

// do sends a request and returns the reply, which must be the next.
func (c *rawClient) do(req rawRequest) rawReply {
	c.t.Helper()
	cookie := c.start(req)
	return c.finish(cookie, req)
}

// finish reads the reply to one request; nothing else may be under way.
func (c *rawClient) finish(cookie uint64, req rawRequest) rawReply {
	c.t.Helper()
	var chunks []rawChunk
	for {
		ch := c.chunk(req.offset)
		if ch.cookie != cookie {
			c.t.Fatalf("reply has cookie %#x, want %#x", ch.cookie, cookie)
		}
		chunks = append(chunks, ch)
		if ch.done {
			break
		}
	}
	return c.assemble(req, chunks)
}

// chunk reads one message. offset is the request's, which extended replies
// repeat.
func (c *rawClient) chunk(offset uint64) rawChunk {
	c.t.Helper()
	head := c.recv(4)
	magic := u32(head)
	if c.mode == extended && magic != 0x6e8a278c || c.mode == structured && magic != 0x668e33ef && magic != 0x67446698 ||
		c.mode == simple && magic != 0x67446698 {
		c.t.Fatalf("reply magic %#x with %v replies", magic, c.mode)
	}
	if magic == 0x67446698 {
		return c.simpleReply()
	}
	p := c.recv(12)
	ch := rawChunk{done: be16(p)&1 != 0, typ: be16(p[2:]), cookie: u64(p[4:])}
	if be16(p)&^1 != 0 {
		c.t.Fatalf("chunk flags %#x", be16(p))
	}
	var length uint64
	if c.mode == extended {
		p = c.recv(16)
		if u64(p) != offset {
			c.t.Fatalf("extended reply has offset %d, the request %d", u64(p), offset)
		}
		length = u64(p[8:])
	} else {
		length = uint64(u32(c.recv(4)))
	}
	if length > 33<<20 {
		c.t.Fatalf("chunk of %d bytes", length)
	}
	ch.payload = c.recv(int(length))
	c.checkChunk(&ch)
	return ch
}

func (c *rawClient) simpleReply() rawChunk {
	c.t.Helper()
	p := c.recv(12)
	ch := rawChunk{simple: true, done: true, err: u32(p), cookie: u64(p[4:])}
	if n, read := c.reads[ch.cookie]; read {
		if c.mode != simple {
			c.t.Fatal("simple reply to a read with structured replies")
		}
		if ch.err == 0 {
			ch.payload = c.recv(int(n))
		}
		delete(c.reads, ch.cookie)
	}
	checkCode(c.t, ch.err)
	return ch
}

// checkChunk applies the rules for each type.
func (c *rawClient) checkChunk(ch *rawChunk) {
	c.t.Helper()
	p, bad := ch.payload, false
	switch ch.typ {
	case rChunkNone:
		bad = len(p) != 0 || !ch.done
	case rChunkData:
		bad = len(p) < 9
	case rChunkHole:
		bad = len(p) != 12 || u32(p[8:]) == 0
	case rChunkStatus:
		bad = c.mode != structured || len(p) < 12 || (len(p)-4)%8 != 0
	case rChunkStatusExt:
		bad = c.mode != extended || len(p) < 24 || len(p) != 8+16*int(u32(p[4:]))
	case rChunkError:
		if bad = len(p) < 6 || len(p) != 6+int(be16(p[4:])) || u32(p) == 0; !bad {
			ch.err, ch.text = u32(p), string(p[6:])
			checkText(c.t, p[6:])
			checkCode(c.t, ch.err)
		}
	default:
		bad = true
	}
	if bad {
		c.t.Fatalf("bad chunk type %#x done %v with %d bytes", ch.typ, ch.done, len(p))
	}
	if ch.done {
		delete(c.reads, ch.cookie)
	}
}

// checkCode allows the errors that the protocol knows.
func checkCode(t testing.TB, code uint32) {
	t.Helper()
	switch code {
	case 0, rEPERM, rEIO, 12, rEINVAL, rENOSPC, rEOVERFLOW, rENOTSUP, rESHUTDOWN:
	default:
		t.Errorf("error number %d is none of the protocol's", code)
	}
}

// checkText applies the rules for strings.
func checkText(t testing.TB, p []byte) {
	t.Helper()
	if len(p) > 4096 || !utf8.Valid(p) || bytes.IndexByte(p, 0) >= 0 {
		t.Errorf("text of %d bytes breaks the rules for strings: %.80q", len(p), p)
	}
}

// assemble checks that the chunks of a good read cover it exactly once.
func (c *rawClient) assemble(req rawRequest, chunks []rawChunk) rawReply {
	c.t.Helper()
	rep := rawReply{chunks: chunks}
	covered := uint64(0)
	seen := make(map[uint64]bool)
	if req.cmd == rCmdRead && req.length <= 64<<20 {
		rep.data = make([]byte, req.length)
	}
	for _, ch := range chunks {
		if ch.err != 0 {
			rep.err, rep.text = ch.err, ch.text
		}
		if ch.simple {
			rep.data = ch.payload
			covered = uint64(len(ch.payload))
			continue
		}
		if ch.typ != rChunkData && ch.typ != rChunkHole {
			continue
		}
		off := u64(ch.payload)
		n := uint64(len(ch.payload) - 8)
		if ch.typ == rChunkHole {
			n = uint64(u32(ch.payload[8:]))
		}
		if off < req.offset || off+n > req.offset+req.length || seen[off] {
			c.t.Fatalf("chunk of %d bytes at %d for a read of %d at %d", n, off, req.length, req.offset)
		}
		seen[off] = true
		covered += n
		if ch.typ == rChunkData {
			copy(rep.data[off-req.offset:], ch.payload[8:])
		}
	}
	if req.cmd == rCmdRead && rep.err == 0 && covered != req.length {
		c.t.Fatalf("chunks cover %d of %d bytes", covered, req.length)
	}
	return rep
}

// Short forms.

func (c *rawClient) read(offset, length uint64) rawReply {
	c.t.Helper()
	return c.do(rawRequest{cmd: rCmdRead, offset: offset, length: length})
}

func (c *rawClient) write(offset uint64, p []byte) rawReply {
	c.t.Helper()
	return c.do(rawRequest{cmd: rCmdWrite, offset: offset, payload: p})
}

func (c *rawClient) flush() rawReply { c.t.Helper(); return c.do(rawRequest{cmd: rCmdFlush}) }

// mustOK fails the test unless the request succeeded.
func (c *rawClient) mustOK(rep rawReply) rawReply {
	c.t.Helper()
	if rep.err != 0 {
		c.t.Fatalf("error %d %q", rep.err, rep.text)
	}
	return rep
}

// mustFail expects an error, with a text wherever the form has room for one,
// and that the connection goes on.
func (c *rawClient) mustFail(rep rawReply, code uint32) {
	c.t.Helper()
	if rep.err != code {
		c.t.Fatalf("error %d %q, want %d", rep.err, rep.text, code)
	}
	if c.mode != simple && rep.text == "" {
		c.t.Errorf("error %d without a text", code)
	}
	c.alive()
}

// alive checks that the connection still works.
func (c *rawClient) alive() {
	c.t.Helper()
	c.mustOK(c.do(rawRequest{cmd: rCmdCache}))
}

// rawExtent is a block descriptor.
type rawExtent struct{ length, status uint64 }

// status asks for block status and returns each context's extents.
func (c *rawClient) status(flags uint16, offset, length uint64) map[uint32][]rawExtent {
	c.t.Helper()
	rep := c.mustOK(c.do(rawRequest{flags: flags, cmd: rCmdStatus, offset: offset, length: length}))
	return c.extents(rep)
}

func (c *rawClient) extents(rep rawReply) map[uint32][]rawExtent {
	c.t.Helper()
	all := make(map[uint32][]rawExtent)
	for _, ch := range rep.chunks {
		if ch.typ == rChunkNone {
			continue
		}
		id := u32(ch.payload)
		if _, twice := all[id]; twice {
			c.t.Fatalf("two chunks for context %d", id)
		}
		p, head, word := ch.payload, 4, 8
		if ch.typ == rChunkStatusExt {
			head, word = 8, 16
		}
		for p = p[head:]; len(p) > 0; p = p[word:] {
			e := rawExtent{uint64(u32(p)), uint64(u32(p[4:]))}
			if word == 16 {
				e = rawExtent{u64(p), u64(p[8:])}
			}
			if e.length == 0 {
				c.t.Fatal("extent of length zero")
			}
			if k := len(all[id]); k > 0 && all[id][k-1].status == e.status {
				c.t.Errorf("neighbours of equal status %d", e.status)
			}
			all[id] = append(all[id], e)
		}
	}
	return all
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16) ^ seed | 1
	}
	return p
}

func mustEqual(t testing.TB, got, want []byte, what string) {
	t.Helper()
	if !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Fatalf("%s: %d bytes, want %d; first difference at %d", what, len(got), len(want), i)
	}
}
