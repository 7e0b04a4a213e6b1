package nbd

import (
	"errors"
	"fmt"
	"io"
)

// What a reply goes through, in the order in which it happens. All of it is done
// by whoever has the reader's role (client_reading.go), and nobody else reads from
// the connection:
//
//  1. receive: the header is awaited with a read that takes along whatever else
//     has come, 64 KiB at most, 4 KiB while a long payload is on its way.
//  2. dispatch: the cookie names the slot. One that is not in flight is the
//     server's mistake and ends the connection.
//  3. check: type, flags and every length against what was asked and agreed on,
//     before a byte of payload is touched.
//  4. deliver: payload goes to the caller's buffer, from the read buffer as far as
//     it is there and from the socket beyond.
//  5. complete: with the simple reply or the chunk marked DONE the slot goes back
//     to its caller.
//
// Whatever breaks a rule is an ErrProtocol.

const (
	// clientMaxExtents is the number of extents per chunk that proto.md asks
	// servers not to exceed.
	clientMaxExtents = 1 << 20
	// clientMaxErrorChunk bounds error chunks of types that we do not know.
	clientMaxErrorChunk = 64 << 10
)

// clientReplies reads one connection's replies.
type clientReplies struct {
	stream *clientStream
	mode   clientMode
	slots  []clientSlot

	// awaitLong reports whether a long payload is on its way.
	awaitLong func() bool
	// finish is called once per request, before its completion.
	finish func(*clientSlot)
	// hold: a request that the server refuses because it is shutting down is
	// kept, and ends the connection, so that it goes to the server's successor.
	hold bool
}

var errClientShutdown = errors.New("the server is shutting down")

// one reads a simple reply or a chunk. io.EOF means that the server closed the
// connection before it.
func (r *clientReplies) one() error {
	limit := len(r.stream.buf)
	if r.awaitLong() {
		limit = clientHeadRead
	}
	if err := r.stream.need(4, limit); err != nil {
		if errors.Is(err, io.EOF) && len(r.stream.buffered()) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	magic := be.Uint32(r.stream.buffered())
	switch {
	case magic == magicChunkExtended && r.mode.extended:
		return r.chunk(chunkExtendedSize, limit)
	case magic == magicChunk && r.mode.structured:
		return r.chunk(chunkSize, limit)
	case magic == magicSimpleReply && !r.mode.extended:
		return r.simple(limit)
	}
	return clientProtocolError("a reply begins with %#08x where replies are %s", magic, r.mode)
}

// slot finds the request in flight that a cookie names.
func (r *clientReplies) slot(cookie uint64) (*clientSlot, error) {
	index := uint32(cookie)
	if cookie == 0 || int64(index) >= int64(len(r.slots)) || r.slots[index].live.Load() != cookie {
		return nil, clientProtocolError("a reply to a request that is not in flight (cookie %#x)", cookie)
	}
	return &r.slots[index], nil
}

func (r *clientReplies) done(s *clientSlot) error {
	if r.hold && s.code == wireESHUTDOWN {
		return errClientShutdown
	}
	r.finish(s)
	s.answer()
	return nil
}

func (r *clientReplies) simple(limit int) error {
	if err := r.stream.need(simpleReplySize, limit); err != nil {
		return clientTruncated(err)
	}
	p := r.stream.next(simpleReplySize)
	code := wireError(be.Uint32(p[4:]))
	s, err := r.slot(be.Uint64(p[8:]))
	if err != nil {
		return err
	}
	if code != wireOK {
		s.fail(code, "", -1)
		return r.done(s)
	}
	switch {
	case s.cover.total != 0 || s.code != wireOK:
		return clientProtocolError("a simple reply after chunks of the same reply")
	case s.cmd == cmdBlockStatus:
		return clientProtocolError("a simple reply to a block status request")
	case s.cmd == cmdRead && r.mode.structured:
		return clientProtocolError("a simple reply to a read where structured replies are agreed on")
	case s.cmd == cmdRead:
		if err := r.stream.readFull(s.buf); err != nil {
			return clientTruncated(err)
		}
	}
	return r.done(s)
}

// clientTruncated tells the end of the stream inside a reply from that between
// two.
func clientTruncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *clientReplies) chunk(size, limit int) error {
	if err := r.stream.need(size, limit); err != nil {
		return clientTruncated(err)
	}
	var c chunk
	if p := r.stream.next(size); size == chunkExtendedSize {
		c = decodeChunkExtended(p)
	} else {
		c = decodeChunk(p)
	}
	s, err := r.slot(c.cookie)
	if err != nil {
		return err
	}
	if r.mode.extended && c.offset != uint64(s.off) {
		return clientProtocolError("a chunk for offset %d in the reply to a request at %d", c.offset, s.off)
	}
	if err := r.content(s, c); err != nil {
		return clientTruncated(err)
	}
	if c.flags&chunkFlagDone == 0 {
		return nil
	}
	if s.code == wireOK {
		if err := r.complete(s); err != nil {
			return err
		}
	}
	return r.done(s)
}

// complete checks that a reply without an error has told everything.
func (r *clientReplies) complete(s *clientSlot) error {
	switch {
	case s.cmd == cmdRead && s.cover.total != s.n:
		return clientProtocolError("a read of %d bytes was answered with %d", s.n, s.cover.total)
	case s.cmd == cmdBlockStatus:
		return s.status.complete()
	}
	return nil
}

func (r *clientReplies) content(s *clientSlot, c chunk) error {
	switch {
	case c.typ&chunkIsError != 0:
		return r.errorChunk(s, c)
	case c.typ == chunkNone:
		if c.length != 0 || c.flags&chunkFlagDone == 0 {
			return clientProtocolError("an empty chunk with %d bytes, flags %#x", c.length, c.flags)
		}
		return nil
	case c.typ == chunkOffsetData && s.cmd == cmdRead:
		return r.data(s, c)
	case c.typ == chunkOffsetHole && s.cmd == cmdRead:
		return r.hole(s, c)
	case c.typ == chunkBlockStatus && s.cmd == cmdBlockStatus && !r.mode.extended:
		return r.blockStatus(s, c, 4, 8)
	case c.typ == chunkBlockStatusExt && s.cmd == cmdBlockStatus && r.mode.extended:
		return r.blockStatus(s, c, 8, 16)
	}
	return clientProtocolError("a chunk of type %d in the reply to command %d", c.typ, s.cmd)
}

// span checks the range of a content chunk and marks it as come.
func (s *clientSlot) span(off, n uint64) (lo int64, err error) {
	if off < uint64(s.off) || n == 0 || n > uint64(s.n) || off-uint64(s.off) > uint64(s.n)-n {
		return 0, clientProtocolError("%d bytes at %d in the reply to a read of %d at %d", n, off, s.n, s.off)
	}
	lo = int64(off) - s.off
	return lo, s.cover.add(lo, lo+int64(n))
}

func (r *clientReplies) data(s *clientSlot, c chunk) error {
	if c.length < 9 || c.length-8 > uint64(s.n) {
		return clientProtocolError("a data chunk of %d bytes in the reply to a read of %d", c.length, s.n)
	}
	if err := r.stream.need(8, clientHeadRead); err != nil {
		return err
	}
	n := c.length - 8
	lo, err := s.span(be.Uint64(r.stream.next(8)), n)
	if err != nil {
		return err
	}
	return r.stream.readFull(s.buf[lo : lo+int64(n)])
}

func (r *clientReplies) hole(s *clientSlot, c chunk) error {
	if c.length != 12 {
		return clientProtocolError("a hole chunk of %d bytes", c.length)
	}
	if err := r.stream.need(12, clientHeadRead); err != nil {
		return err
	}
	p := r.stream.next(12)
	n := be.Uint32(p[8:])
	lo, err := s.span(be.Uint64(p), uint64(n))
	if err != nil {
		return err
	}
	clear(s.buf[lo : lo+int64(n)])
	return nil
}

// errorChunk reads an error: number, text and, where the type has it, offset.
func (r *clientReplies) errorChunk(s *clientSlot, c chunk) error {
	least := uint64(6)
	if c.typ == chunkErrorOffset {
		least = 14
	}
	if c.length < least || c.length > clientMaxErrorChunk {
		return clientProtocolError("an error chunk of %d bytes", c.length)
	}
	if err := r.stream.need(6, clientHeadRead); err != nil {
		return err
	}
	p := r.stream.next(6)
	code, textLen := wireError(be.Uint32(p)), uint64(be.Uint16(p[4:]))
	if code == wireOK || textLen > maxString || textLen > c.length-least {
		return clientProtocolError("an error chunk of %d bytes with error %d and %d bytes of text", c.length, code, textLen)
	}
	rest := make([]byte, c.length-6)
	if err := r.stream.readFull(rest); err != nil {
		return err
	}
	off := int64(-1)
	if c.typ == chunkErrorOffset {
		at := be.Uint64(rest[textLen:])
		if at < uint64(s.off) || at-uint64(s.off) >= max(uint64(s.n), 1) {
			return clientProtocolError("an error at %d in the reply to a request of %d bytes at %d", at, s.n, s.off)
		}
		off = int64(at)
	}
	s.fail(code, clientCleanText(rest[:textLen]), off)
	return nil
}

// blockStatus reads the extents of one metadata context: a head (4 or 8 bytes)
// and descriptors (8 or 16 bytes each).
func (r *clientReplies) blockStatus(s *clientSlot, c chunk, head, each int) error {
	count := (c.length - uint64(head)) / uint64(each)
	if c.length < uint64(head+each) || (c.length-uint64(head))%uint64(each) != 0 || count > clientMaxExtents {
		return clientProtocolError("a block status chunk of %d bytes", c.length)
	}
	if err := r.stream.need(head, clientHeadRead); err != nil {
		return err
	}
	p := r.stream.next(head)
	if told := p[4:]; len(told) > 0 && uint64(be.Uint32(told)) != count {
		return clientProtocolError("a block status chunk that counts %d extents and holds %d", be.Uint32(told), count)
	}
	list, err := s.status.begin(be.Uint32(p))
	if err != nil {
		return err
	}
	for range count {
		if err := r.stream.need(each, len(r.stream.buf)); err != nil {
			return err
		}
		p := r.stream.next(each)
		run := clientRun{n: uint64(be.Uint32(p)), state: uint64(be.Uint32(p[each/2:]))}
		if each == 16 {
			run = clientRun{n: be.Uint64(p), state: be.Uint64(p[8:])}
		}
		if err := list.add(run, s); err != nil {
			return err
		}
	}
	return nil
}

// clientDescribe says how a connection ended, for the requests that end with it.
func clientDescribe(err error) error {
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, errClientShutdown):
		return err
	case errors.Is(err, io.EOF):
		return errors.New("the server closed the connection")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the server closed the connection in the middle of a reply")
	}
	return fmt.Errorf("connection lost: %w", err)
}
