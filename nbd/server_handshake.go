package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/block"
)

// The server's half of the handshake (proto.md, "Fixed newstyle negotiation"):
// greeting, then one option after the other until GO or EXPORT_NAME chooses an
// export. One table maps options to their handlers, in server_options.go.
//
// Everything is read in exactly the length that the protocol gives, so nothing
// that follows STARTTLS in the clear can be taken for what came under TLS.

// handshake is the state of one negotiation. One goroutine owns it.
type handshake struct {
	srv  *Server
	conn net.Conn
	tls  *tls.ConnectionState // nil before STARTTLS

	noZeroes   bool
	plain      bool // the client knows EXPORT_NAME alone (not fixed newstyle)
	structured bool
	extended   bool
	contexts   *contextSet // of the last SET_META_CONTEXT, or nil

	agreed *agreement // set by the option that ends the negotiation
}

// agreement is what a finished negotiation leaves to the transmission.
type agreement struct {
	export     *Export
	dev        *block.Resolved
	readOnly   bool
	flags      transmissionFlags
	structured bool // structured or extended replies
	extended   bool
	contexts   []metaContext
}

func (a *agreement) release() {
	if a.export.Release != nil {
		a.export.Release()
	}
}

// errEnd ends a negotiation without a complaint: the client aborted.
var errEnd = errors.New("negotiation ended")

func newHandshake(srv *Server, conn net.Conn) *handshake {
	return &handshake{srv: srv, conn: conn}
}

// run negotiates. It returns nil, nil when the client left on its own wish.
func (h *handshake) run(ctx context.Context) (*agreement, error) {
	if err := h.conn.SetDeadline(time.Now().Add(h.srv.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	if h.srv.draining.Load() { // session.drain may have been too early
		if err := h.conn.SetReadDeadline(time.Now().Add(drainHandshake)); err != nil {
			return nil, err
		}
	}
	if err := h.greet(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	for h.agreed == nil {
		err := h.option(ctx)
		if errors.Is(err, errEnd) {
			return nil, nil
		}
		if err != nil {
			h.abandon()
			return nil, fmt.Errorf("handshake: %w", err)
		}
	}
	if err := h.conn.SetDeadline(time.Time{}); err != nil {
		h.abandon()
		return nil, err
	}
	return h.agreed, nil
}

// abandon gives back an export that was opened by an option whose answer could
// not be sent.
func (h *handshake) abandon() {
	if h.agreed != nil {
		h.agreed.release()
		h.agreed = nil
	}
}

func (h *handshake) greet() error {
	var p [greetingSize]byte
	be.PutUint64(p[:], magicNBD)
	be.PutUint64(p[8:], magicOption)
	be.PutUint16(p[16:], handshakeFixedNewstyle|handshakeNoZeroes)
	if _, err := h.conn.Write(p[:]); err != nil {
		return gone(err)
	}
	var answer [4]byte
	if err := h.read(answer[:]); err != nil {
		return err
	}
	flags := be.Uint32(answer[:])
	if unknown := flags &^ uint32(handshakeFixedNewstyle|handshakeNoZeroes); unknown != 0 {
		return fmt.Errorf("client set unknown flags %#x", unknown)
	}
	h.plain = flags&uint32(handshakeFixedNewstyle) == 0
	h.noZeroes = flags&uint32(handshakeNoZeroes) != 0
	return nil
}

// option reads one option and answers it.
func (h *handshake) option(ctx context.Context) error {
	var p [optionSize]byte
	if err := h.read(p[:]); err != nil {
		return err
	}
	if magic := be.Uint64(p[:]); magic != magicOption {
		return fmt.Errorf("option has magic %#x", magic)
	}
	opt, length := option(be.Uint32(p[8:])), be.Uint32(p[12:])
	if h.plain && opt != optExportName {
		return fmt.Errorf("option %d from a client that does not speak the fixed newstyle protocol", uint32(opt))
	}
	if length > maxOptionLength {
		return h.skipOption(opt, length)
	}
	data, err := h.data(length)
	if err != nil {
		return err
	}
	if h.srv.draining.Load() && opt != optAbort && opt != optExportName {
		return h.reject(opt, repErrShutdown, "server is shutting down")
	}
	return h.dispatch(ctx, opt, data)
}

// dispatch applies the rules that hold for all options, then calls the handler.
func (h *handshake) dispatch(ctx context.Context, opt option, data []byte) error {
	if h.srv.cfg.TLSMode == TLSForced && h.tls == nil && opt != optStartTLS && opt != optAbort {
		if opt == optExportName {
			return errors.New("client chose an export without TLS, which is required")
		}
		return h.reject(opt, repErrTLSRequired, "start TLS first")
	}
	handler, known := optionHandlers[opt]
	if !known {
		return h.reject(opt, repErrUnsupported, "unknown option %d", uint32(opt))
	}
	if handler.noData && len(data) > 0 {
		return h.reject(opt, repErrInvalid, "the option takes no data")
	}
	return handler.run(h, ctx, data)
}

// skipOption throws away an option's data that is longer than any valid one.
func (h *handshake) skipOption(opt option, length uint32) error {
	if length > maxOptionSkip || opt == optExportName {
		return fmt.Errorf("option %d has %d bytes of data", uint32(opt), length)
	}
	if _, err := io.CopyN(io.Discard, h.conn, int64(length)); err != nil {
		return gone(err)
	}
	if opt == optSetMetaContext {
		h.contexts = nil // it replaces the selection also when it fails
	}
	return h.reject(opt, repErrTooBig, "%d bytes of option data are too many", length)
}

// reply sends one option reply.
func (h *handshake) reply(opt option, typ optionReply, data ...[]byte) error {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	p := make([]byte, optionReplySize, optionReplySize+n)
	be.PutUint64(p, magicOptionReply)
	be.PutUint32(p[8:], uint32(opt))
	be.PutUint32(p[12:], uint32(typ))
	be.PutUint32(p[16:], uint32(n))
	for _, d := range data {
		p = append(p, d...)
	}
	_, err := h.conn.Write(p)
	return gone(err)
}

// reject sends an error reply with a text for humans.
func (h *handshake) reject(opt option, typ optionReply, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return h.reply(opt, typ, []byte(clip(text)))
}

// clip makes a text what a string may be on the wire: at most 4096 bytes of
// UTF-8 without NUL.
func clip(text string) string {
	if checkString(text) == nil {
		return text
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	for n := maxString; n < len(text); n-- {
		if utf8.RuneStart(text[n]) {
			return text[:n]
		}
	}
	return text
}

// data reads n bytes of option data. The memory grows with what has arrived:
// what is only announced costs nothing.
func (h *handshake) data(n uint32) ([]byte, error) {
	var data bytes.Buffer
	if _, err := io.CopyN(&data, h.conn, int64(n)); err != nil {
		return nil, gone(err)
	}
	return data.Bytes(), nil
}

// read fills p.
func (h *handshake) read(p []byte) error {
	_, err := io.ReadFull(h.conn, p)
	return gone(err)
}

// gone marks errors that mean no more than that the client went away.
func gone(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || block.KindOf(err) == block.Transient {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

// peer describes the client to the catalog.
func (h *handshake) peer() Peer { return Peer{Addr: h.conn.RemoteAddr(), TLS: h.tls} }
