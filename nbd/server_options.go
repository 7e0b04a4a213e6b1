package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/block"
)

// optionHandlers is the table of the options that the server knows. An error
// from a handler ends the connection; a refusal is a reply.
var optionHandlers map[option]optionHandler

type optionHandler struct {
	noData bool // data is refused as INVALID
	run    func(h *handshake, ctx context.Context, data []byte) error
}

func init() { // a composite literal would refer to itself through dispatch
	optionHandlers = map[option]optionHandler{
		optExportName:      {run: (*handshake).exportName},
		optAbort:           {run: (*handshake).abort},
		optList:            {noData: true, run: (*handshake).list},
		optStartTLS:        {noData: true, run: (*handshake).startTLS},
		optInfo:            {run: (*handshake).info},
		optGo:              {run: (*handshake).goOption},
		optStructuredReply: {noData: true, run: (*handshake).structuredReply},
		optExtendedHeaders: {noData: true, run: (*handshake).extendedHeaders},
		optListMetaContext: {run: (*handshake).listMetaContext},
		optSetMetaContext:  {run: (*handshake).setMetaContext},
	}
}

// exportName is the old way to choose an export. It knows no error reply: what
// does not work ends the connection.
func (h *handshake) exportName(ctx context.Context, data []byte) error {
	if h.extended {
		return errors.New("client chose EXPORT_NAME after extended headers")
	}
	name := string(data)
	if err := checkString(name); err != nil {
		return fmt.Errorf("export name %w", err)
	}
	if h.srv.draining.Load() {
		return errEnd
	}
	a, err := h.open(ctx, name)
	if err != nil {
		return err
	}
	h.agreed = a
	p := make([]byte, 10, 10+124)
	be.PutUint64(p, uint64(a.dev.Info.Size))
	be.PutUint16(p[8:], uint16(a.flags))
	if !h.noZeroes {
		p = p[:10+124]
	}
	_, err = h.conn.Write(p)
	return gone(err)
}

func (h *handshake) abort(context.Context, []byte) error {
	_ = h.reply(optAbort, repAck) // the client may not wait for it
	return errEnd
}

func (h *handshake) list(ctx context.Context, _ []byte) error {
	listings, err := h.srv.cfg.Catalog.List(ctx, h.peer())
	if err != nil {
		return h.reject(optList, repErrPolicy, "%s", clientText(err))
	}
	for _, l := range listings {
		var length [4]byte
		be.PutUint32(length[:], uint32(len(l.Name)))
		if err := h.reply(optList, repServer, length[:], []byte(l.Name), []byte(clip(l.Description))); err != nil {
			return err
		}
	}
	return h.reply(optList, repAck)
}

// startTLS changes over to TLS and forgets what was negotiated before (proto.md,
// "NBD_OPT_STARTTLS").
func (h *handshake) startTLS(ctx context.Context, _ []byte) error {
	switch {
	case h.srv.cfg.TLSMode == TLSOff:
		return h.reject(optStartTLS, repErrPolicy, "TLS is not offered here")
	case h.tls != nil:
		return h.reject(optStartTLS, repErrInvalid, "TLS is on already")
	}
	if err := h.reply(optStartTLS, repAck); err != nil {
		return err
	}
	var chains [][]*x509.Certificate
	conn := tls.Server(h.conn, checkingClients(h.srv.cfg.TLS, &chains))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	state := conn.ConnectionState()
	if chains != nil {
		state.VerifiedChains = chains
	}
	h.conn, h.tls = conn, &state
	h.structured, h.extended, h.contexts = false, false, nil
	return nil
}

func (h *handshake) structuredReply(context.Context, []byte) error {
	if h.extended {
		return h.reject(optStructuredReply, repErrExtHeaderRequired, "extended headers are on already")
	}
	h.structured = true
	return h.reply(optStructuredReply, repAck)
}

func (h *handshake) extendedHeaders(context.Context, []byte) error {
	h.extended, h.structured = true, true
	return h.reply(optExtendedHeaders, repAck)
}

func (h *handshake) info(ctx context.Context, data []byte) error {
	return h.infoOrGo(ctx, optInfo, data)
}

func (h *handshake) goOption(ctx context.Context, data []byte) error {
	return h.infoOrGo(ctx, optGo, data)
}

// infoOrGo answers INFO and GO: the two differ only in what comes after.
func (h *handshake) infoOrGo(ctx context.Context, opt option, data []byte) error {
	name, requests, err := parseInfoRequest(data)
	if err != nil {
		return h.reject(opt, repErrInvalid, "%v", err)
	}
	a, err := h.open(ctx, name)
	if err != nil {
		return h.refuseExport(opt, name, err)
	}
	if err := h.sendInfo(opt, a, requests); err != nil {
		a.release()
		return err
	}
	if opt == optGo {
		h.agreed = a
	} else {
		a.release()
	}
	return h.reply(opt, repAck)
}

// parseInfoRequest reads a name and the kinds of information asked for.
func parseInfoRequest(data []byte) (string, []infoType, error) {
	if len(data) < 6 {
		return "", nil, errors.New("option data is too short")
	}
	n := be.Uint32(data)
	if uint64(n) > uint64(len(data)-6) {
		return "", nil, errors.New("name is longer than the option")
	}
	name := string(data[4 : 4+n])
	if err := checkString(name); err != nil {
		return "", nil, fmt.Errorf("name %w", err)
	}
	rest := data[4+n:]
	count := int(be.Uint16(rest))
	rest = rest[2:]
	if len(rest) != 2*count {
		return "", nil, fmt.Errorf("%d information requests in %d bytes", count, len(rest))
	}
	requests := make([]infoType, count)
	for i := range requests {
		requests[i] = infoType(be.Uint16(rest[2*i:]))
	}
	return name, requests, nil
}

// sendInfo tells size and flags, the block sizes (always: a client may ignore
// them), and name and description when asked.
func (h *handshake) sendInfo(opt option, a *agreement, requests []infoType) error {
	var p [14]byte
	be.PutUint16(p[:], uint16(infoExport))
	be.PutUint64(p[2:], uint64(a.dev.Info.Size))
	be.PutUint16(p[10:], uint16(a.flags))
	if err := h.reply(opt, repInfo, p[:12]); err != nil {
		return err
	}
	be.PutUint16(p[:], uint16(infoBlockSize))
	minimum, preferred, maximum := blockSizes(a.dev.Info)
	be.PutUint32(p[2:], minimum)
	be.PutUint32(p[6:], preferred)
	be.PutUint32(p[10:], maximum)
	if err := h.reply(opt, repInfo, p[:14]); err != nil {
		return err
	}
	for _, r := range requests {
		var text string
		switch {
		case r == infoName:
			text = a.export.Name
		case r == infoDescription && a.export.Description != "":
			text = clip(a.export.Description)
		default:
			continue
		}
		be.PutUint16(p[:], uint16(r))
		if err := h.reply(opt, repInfo, p[:2], []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// blockSizes gives the constraints as the protocol wants them: minimum a power
// of two up to 64 KiB, preferred a power of two, at least 512 and the minimum,
// maximum payload a multiple of the minimum, at least 1 MiB (the server splits
// what the device takes only in smaller pieces).
func blockSizes(info block.Info) (minimum, preferred, maximum uint32) {
	minimum = uint32(max(info.Block.Min, 1))
	preferred = uint32(max(info.Block.Preferred, 4096, int64(minimum)))
	return minimum, preferred, maxPayload
}

// open gets the export from the catalog and works out what it can do.
func (h *handshake) open(ctx context.Context, name string) (*agreement, error) {
	x, err := h.srv.cfg.Catalog.Open(ctx, name, h.peer())
	if err != nil {
		return nil, err
	}
	dev := block.Resolve(x.Device)
	a := &agreement{
		export: x, dev: dev, readOnly: x.ReadOnly || dev.Info.ReadOnly,
		structured: h.structured, extended: h.extended,
	}
	a.flags = flagsOf(dev.Info, a.readOnly)
	if h.structured {
		a.flags |= tfDF
	}
	// Contexts are bound to the name that they were selected for. The device
	// behind it may have changed since.
	if h.contexts != nil && h.contexts.export == name {
		offered := contextsOf(dev)
		for _, m := range h.contexts.list {
			if slices.ContainsFunc(offered, func(o metaContext) bool { return o.name == m.name }) {
				a.contexts = append(a.contexts, m)
			}
		}
	}
	if h.extended && len(a.contexts) > 0 {
		a.flags |= tfBlockStatusPayload
	}
	return a, nil
}

// refuseExport maps a catalog's error to a reply.
func (h *handshake) refuseExport(opt option, name string, err error) error {
	// TLS_REQD is an answer to INFO and GO alone (proto.md, "SELECTIVETLS mode").
	needsTLS := h.srv.cfg.TLSMode == TLSOptional && h.tls == nil && (opt == optInfo || opt == optGo)
	switch block.KindOf(err) {
	case block.NotFound:
		if needsTLS {
			return h.reject(opt, repErrTLSRequired, "export %q is not there without TLS", name)
		}
		return h.reject(opt, repErrUnknown, "%v", err)
	case block.Permission, block.Busy:
		if needsTLS {
			return h.reject(opt, repErrTLSRequired, "export %q needs TLS", name)
		}
		return h.reject(opt, repErrPolicy, "%v", err)
	case block.Closed:
		return h.reject(opt, repErrShutdown, "%s", clientText(err))
	default:
		h.srv.cfg.Logger.Error("export cannot be opened", "export", name, "err", err)
		return h.reject(opt, repErrPlatform, "%s", clientText(err))
	}
}

// splitContext takes a meta context's name apart at its first colon.
func splitContext(name string) (namespace, leaf string, ok bool) { return strings.Cut(name, ":") }
