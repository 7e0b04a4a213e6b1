package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"sluice/block"
)

const (
	// clientMaxOptionReply bounds an answer to an option: name and description
	// of full length with room to spare.
	clientMaxOptionReply = 32 << 10
	// clientMaxOptionReplies bounds the number of answers to one option.
	clientMaxOptionReplies = 1 << 16

	clientOldstyleMagic = uint64(0x00420281861253)
)

// ErrProtocol is the cause of errors that come from a server that broke the
// protocol's rules. The connection is given up and not made again, since what it
// has sent cannot be trusted.
var ErrProtocol = errors.New("the server broke the NBD protocol")

func clientProtocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// clientHandshake is the state of one option haggling (proto.md, "Fixed newstyle
// negotiation"). It is used by one goroutine.
type clientHandshake struct {
	stream *clientStream
	flags  uint16 // the server's handshake flags
	tls    bool
	mode   clientMode
}

// clientMode is what the two sides agreed on for the transmission phase.
type clientMode struct {
	structured bool // structured replies (false with extended headers)
	extended   bool
	contexts   []clientContext // in the order in which they were asked for
}

// clientContext is a selected metadata context.
type clientContext struct {
	name string
	id   uint32
}

// openHandshake reads the greeting and, with a TLS configuration, makes the
// connection secure. The stream's connection carries the deadline.
func clientOpenHandshake(ctx context.Context, conn net.Conn, secure *tls.Config) (*clientHandshake, error) {
	h := &clientHandshake{stream: newClientStream(conn)}
	if err := h.greet(); err != nil {
		return nil, err
	}
	if secure == nil {
		return h, nil
	}
	return h, h.startTLS(ctx, secure)
}

func (h *clientHandshake) greet() error {
	if err := h.stream.need(greetingSize, greetingSize); err != nil {
		if errors.Is(err, io.EOF) && len(h.stream.buffered()) == 0 {
			return clientErrorf(block.Transient, "the server closed the connection without a greeting")
		}
		return err
	}
	p := h.stream.next(greetingSize)
	magic, style := be.Uint64(p), be.Uint64(p[8:])
	h.flags = be.Uint16(p[16:])
	switch {
	case magic != magicNBD:
		return clientProtocolError("greeting begins with %#016x: not an NBD server", magic)
	case style == clientOldstyleMagic:
		return clientErrorf(block.Unsupported, "the server speaks the oldstyle handshake, which has no options")
	case style != magicOption:
		return clientProtocolError("unknown handshake style %#016x", style)
	}
	answer := be.AppendUint32(nil, uint32(h.flags&(handshakeFixedNewstyle|handshakeNoZeroes)))
	return h.stream.send([][]byte{answer})
}

// fixed reports whether the server knows options beyond EXPORT_NAME.
func (h *clientHandshake) fixed() bool { return h.flags&handshakeFixedNewstyle != 0 }

func (h *clientHandshake) startTLS(ctx context.Context, cfg *tls.Config) error {
	if !h.fixed() {
		return clientErrorf(block.Unsupported, "start TLS: the server does not know fixed newstyle, so it has no TLS")
	}
	if err := h.simpleOption(optStartTLS); err != nil {
		return fmt.Errorf("start TLS: %w", err)
	}
	// Whatever came in the clear after the answer was put there by somebody
	// between the server and us (CVE-2021-3716).
	if n := len(h.stream.buffered()); n != 0 {
		return clientProtocolError("%d bytes in plain text after the agreement on TLS", n)
	}
	conn := tls.Client(h.stream.conn, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return clientErrorf(block.Permission, "start TLS: %w", err)
	}
	h.stream = newClientStream(conn)
	h.tls = true
	return nil
}

// headers agrees on the widest form of headers that the server knows and the
// configuration allows.
func (h *clientHandshake) headers(cfg *ClientConfig) error {
	if cfg.NoStructured || !h.fixed() {
		return nil
	}
	if !cfg.NoExtended {
		ok, err := h.tryOption(optExtendedHeaders)
		if ok || err != nil {
			h.mode.extended = ok
			return err
		}
	}
	ok, err := h.tryOption(optStructuredReply)
	h.mode.structured = ok
	return err
}

// tryOption asks for a feature that the server may refuse.
func (h *clientHandshake) tryOption(opt option) (bool, error) {
	err := h.simpleOption(opt)
	var refused *clientOptionError
	if errors.As(err, &refused) && refused.reply != repErrTLSRequired && refused.reply != repErrShutdown {
		return false, nil
	}
	return err == nil, err
}

// simpleOption sends an option without data that is answered by ACK alone.
func (h *clientHandshake) simpleOption(opt option) error {
	if err := h.sendOption(opt, nil); err != nil {
		return err
	}
	_, _, err := h.reply(opt, repAck)
	return err
}

func (h *clientHandshake) sendOption(opt option, data []byte) error {
	p := make([]byte, optionSize, optionSize+len(data))
	be.PutUint64(p, magicOption)
	be.PutUint32(p[8:], uint32(opt))
	be.PutUint32(p[12:], uint32(len(data)))
	return h.stream.send([][]byte{append(p, data...)})
}

// reply reads one answer to an option. Types other than the allowed ones are a
// protocol error, error types an *clientOptionError. The data belongs to the
// caller.
func (h *clientHandshake) reply(opt option, allowed ...optionReply) (optionReply, []byte, error) {
	if err := h.stream.need(optionReplySize, clientReadBuffer); err != nil {
		return 0, nil, clientCutOff(err)
	}
	p := h.stream.next(optionReplySize)
	magic, echo := be.Uint64(p), option(be.Uint32(p[8:]))
	typ, length := optionReply(be.Uint32(p[12:])), be.Uint32(p[16:])
	switch {
	case magic != magicOptionReply:
		return 0, nil, clientProtocolError("answer to option %d begins with %#x", opt, magic)
	case echo != opt:
		return 0, nil, clientProtocolError("answer to option %d while waiting for that to %d", echo, opt)
	case length > clientMaxOptionReply:
		return 0, nil, clientProtocolError("answer of %d bytes to option %d", length, opt)
	}
	data := make([]byte, length)
	if err := h.stream.readFull(data); err != nil {
		return 0, nil, clientCutOff(err)
	}
	if typ&repError != 0 {
		return 0, nil, &clientOptionError{option: opt, reply: typ, text: clientCleanText(data)}
	}
	for _, want := range allowed {
		if typ == want {
			return typ, data, nil
		}
	}
	return 0, nil, clientProtocolError("answer of type %d to option %d", typ, opt)
}

// clientCutOff makes the end of the stream in the middle of the handshake an
// error that can be repeated.
func clientCutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return clientErrorf(block.Transient, "the server closed the connection during the handshake")
	}
	return err
}

// clientOptionError is a server's refusal of an option.
type clientOptionError struct {
	option option
	reply  optionReply
	text   string
}

func (e *clientOptionError) Error() string {
	s := clientRefusals[e.reply].text
	if s == "" {
		s = fmt.Sprintf("the server refused option %d with error %d", e.option, e.reply&^repError)
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// Unwrap gives the kind, for block.KindOf and errors.Is.
func (e *clientOptionError) Unwrap() error {
	if r, ok := clientRefusals[e.reply]; ok {
		return r.kind
	}
	return block.IO
}

var clientRefusals = map[optionReply]struct {
	kind block.Kind
	text string
}{
	repErrUnsupported:       {block.Unsupported, "the server does not know the option"},
	repErrPolicy:            {block.Permission, "the server's policy forbids it"},
	repErrInvalid:           {block.Invalid, "the server calls the option invalid"},
	repErrPlatform:          {block.Unsupported, "the server's platform cannot do it"},
	repErrTLSRequired:       {block.Permission, "the server requires TLS (nbds)"},
	repErrUnknown:           {block.NotFound, "the server has no such export"},
	repErrShutdown:          {block.Transient, "the server is shutting down"},
	repErrBlockSizeRequired: {block.Unsupported, "the server requires that block sizes are honoured"},
	repErrTooBig:            {block.Invalid, "the server calls the option too big"},
	repErrExtHeaderRequired: {block.Unsupported, "the server requires extended headers"},
}

// clientCleanText makes a server's text fit to be shown: valid UTF-8 on one
// line, without control characters, of bounded length. It keeps no more memory
// than it is long.
func clientCleanText(p []byte) string {
	if len(p) > maxString {
		p = p[:maxString]
	}
	s := strings.ToValidUTF8(string(p), "?")
	return strings.Clone(strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)))
}

// abort ends a handshake that does not lead to an export. The server may answer
// or just close.
func (h *clientHandshake) abort() {
	if h.fixed() && h.stream.conn.SetDeadline(time.Now().Add(time.Second)) == nil {
		if h.sendOption(optAbort, nil) == nil {
			_, _, _ = h.reply(optAbort, repAck)
		}
	}
	_ = h.stream.conn.Close()
}
