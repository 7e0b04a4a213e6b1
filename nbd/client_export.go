package nbd

import (
	"errors"
	"math"

	"sluice/block"
)

// ExportInfo is what a server says about an export.
type ExportInfo struct {
	Name        string // the server's canonical name where it gives one
	Description string // for people; may be empty
	Size        int64  // bytes

	// What the export can do, as the transmission flags tell it.
	ReadOnly   bool
	Rotational bool
	Flush      bool // FLUSH is known
	FUA        bool // so is the FUA flag
	Trim       bool
	Zero       bool // WRITE_ZEROES
	FastZero   bool // with FAST_ZERO
	Cache      bool
	DF         bool // reads can be asked for in one piece
	MultiConn  bool // several connections are consistent

	// Block gives the request sizes. Max is the longest payload that the server
	// takes (0: it did not say; 32 MiB is used then).
	Block block.BlockSize

	// MetaContexts lists the metadata contexts: those selected for a Client,
	// those that can be selected in a List.
	MetaContexts []string

	// TLS and Headers describe the connection. Headers is "simple",
	// "structured" or "extended".
	TLS     bool
	Headers string

	// Err is set in a List where the server names the export and refuses to
	// say more about it; the fields after Description then mean nothing.
	Err error

	flags transmissionFlags
}

func (e *ExportInfo) setFlags(f transmissionFlags) {
	e.flags = f
	e.ReadOnly = f&tfReadOnly != 0
	e.Rotational = f&tfRotational != 0
	e.Flush = f&tfFlush != 0
	e.FUA = f&tfFUA != 0
	e.Trim = f&tfTrim != 0
	e.Zero = f&tfWriteZeroes != 0
	e.FastZero = f&tfFastZero != 0 && e.Zero
	e.Cache = f&tfCache != 0
	e.DF = f&tfDF != 0
	e.MultiConn = f&tfMultiConn != 0
}

// export asks for an export with INFO or GO (proto.md, "NBD_OPT_INFO and
// NBD_OPT_GO") and checks what the server says.
func (h *clientHandshake) export(opt option, name string) (ExportInfo, error) {
	requests := []infoType{infoName, infoDescription, infoBlockSize}
	data := be.AppendUint32(nil, uint32(len(name)))
	data = append(data, name...)
	data = be.AppendUint16(data, uint16(len(requests)))
	for _, r := range requests {
		data = be.AppendUint16(data, uint16(r))
	}
	info := ExportInfo{Name: name, TLS: h.tls, Headers: h.mode.String()}
	if err := h.sendOption(opt, data); err != nil {
		return info, err
	}
	seen := false
	for range clientMaxOptionReplies {
		typ, p, err := h.reply(opt, repInfo, repAck)
		if err != nil {
			return info, err
		}
		if typ == repAck {
			if len(p) != 0 || !seen {
				return info, clientProtocolError("the export was accepted without its size")
			}
			return info, nil
		}
		if len(p) < 2 {
			return info, clientProtocolError("information of %d bytes", len(p))
		}
		typeOf := infoType(be.Uint16(p))
		if err := info.set(typeOf, p[2:]); err != nil {
			return info, err
		}
		seen = seen || typeOf == infoExport
	}
	return info, clientProtocolError("more than %d pieces of information", clientMaxOptionReplies)
}

// String names the form of replies.
func (m clientMode) String() string {
	switch {
	case m.extended:
		return "extended"
	case m.structured:
		return "structured"
	}
	return "simple"
}

func (e *ExportInfo) set(typ infoType, p []byte) error {
	switch typ {
	case infoExport:
		if len(p) != 10 {
			return clientProtocolError("export information of %d bytes", len(p))
		}
		return e.setSize(be.Uint64(p), transmissionFlags(be.Uint16(p[8:])))
	case infoBlockSize:
		if len(p) != 12 {
			return clientProtocolError("block size information of %d bytes", len(p))
		}
		return e.setBlockSize(be.Uint32(p), be.Uint32(p[4:]), be.Uint32(p[8:]))
	case infoName:
		if err := checkString(string(p)); err != nil {
			return clientProtocolError("canonical name %v", err)
		}
		e.Name = string(p)
	case infoDescription:
		e.Description = clientCleanText(p)
	}
	return nil // unknown information is to be ignored
}

func (e *ExportInfo) setSize(size uint64, flags transmissionFlags) error {
	if size > math.MaxInt64 {
		return clientErrorf(block.Unsupported, "an export of %d bytes is too large", size)
	}
	if flags&tfHasFlags == 0 {
		return clientProtocolError("transmission flags %#x without HAS_FLAGS", uint16(flags))
	}
	e.Size = int64(size)
	e.setFlags(flags)
	return nil
}

// setBlockSize checks a server's constraints (proto.md, "Size constraints"). A
// preferred size that breaks the rules is mended, since it is only advice.
func (e *ExportInfo) setBlockSize(low, preferred, most uint32) error {
	if low == 0 || low&(low-1) != 0 || low > 1<<16 {
		return clientProtocolError("minimum block size %d", low)
	}
	if preferred&(preferred-1) != 0 || preferred < max(low, 512) {
		preferred = max(low, 4096)
	}
	if most < low {
		return clientProtocolError("maximum payload %d below the minimum block size %d", most, low)
	}
	e.Block = block.BlockSize{Min: int64(low), Preferred: int64(preferred), Max: int64(most - most%low)}
	return nil
}

// enter chooses the export and goes over to transmission.
func (h *clientHandshake) enter(name string) (ExportInfo, error) {
	if h.fixed() {
		info, err := h.export(optGo, name)
		var refused *clientOptionError
		if !errors.As(err, &refused) || refused.reply != repErrUnsupported || h.mode.extended {
			return info, err
		}
	}
	return h.exportName(name)
}

// exportName is the way into transmission that old servers know. It has no
// errors: a server that does not have the export closes the connection.
func (h *clientHandshake) exportName(name string) (ExportInfo, error) {
	info := ExportInfo{Name: name, TLS: h.tls, Headers: h.mode.String()}
	if err := h.sendOption(optExportName, []byte(name)); err != nil {
		return info, err
	}
	length := 10
	if h.flags&handshakeNoZeroes == 0 {
		length += 124
	}
	if err := h.stream.need(length, clientReadBuffer); err != nil {
		return info, clientErrorf(block.NotFound, "the server closed the connection: it has no export %q (%w)", name, err)
	}
	p := h.stream.next(length)
	return info, info.setSize(be.Uint64(p), transmissionFlags(be.Uint16(p[8:])))
}

// setContexts selects metadata contexts for the export; the server ignores those
// that it does not know.
func (h *clientHandshake) setContexts(export string, names []string) error {
	if !h.mode.structured && !h.mode.extended || len(names) == 0 {
		return nil
	}
	found, err := h.contexts(optSetMetaContext, export, names)
	var refused *clientOptionError
	if errors.As(err, &refused) && refused.reply != repErrTLSRequired && refused.reply != repErrShutdown {
		return nil // none is selected
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, c := range found {
			if c.name == name {
				h.mode.contexts = append(h.mode.contexts, c)
				break
			}
		}
	}
	if len(h.mode.contexts) != len(found) {
		return clientProtocolError("%d metadata contexts selected, of which %d were asked for", len(found), len(h.mode.contexts))
	}
	return nil
}

// contexts sends LIST_META_CONTEXT or SET_META_CONTEXT and gathers the answers.
func (h *clientHandshake) contexts(opt option, export string, queries []string) ([]clientContext, error) {
	data := be.AppendUint32(nil, uint32(len(export)))
	data = append(data, export...)
	data = be.AppendUint32(data, uint32(len(queries)))
	for _, q := range queries {
		data = be.AppendUint32(data, uint32(len(q)))
		data = append(data, q...)
	}
	if err := h.sendOption(opt, data); err != nil {
		return nil, err
	}
	limit := clientListContexts
	if opt == optSetMetaContext {
		limit = len(queries)
	}
	var found []clientContext
	for {
		typ, p, err := h.reply(opt, repMetaContext, repAck)
		if err != nil || typ == repAck {
			return found, err
		}
		if len(found) == limit && opt == optListMetaContext {
			return nil, clientErrorf(block.Unsupported, "the server lists more than %d metadata contexts of export %q", limit, export)
		}
		if len(p) < 5 || len(p) > 4+maxString || len(found) == limit {
			return nil, clientProtocolError("metadata context of %d bytes, after %d others", len(p), len(found))
		}
		c := clientContext{name: string(p[4:]), id: be.Uint32(p)}
		if opt == optSetMetaContext {
			for _, other := range found {
				if other.id == c.id || other.name == c.name {
					return nil, clientProtocolError("metadata contexts %q and %q are not distinct", other.name, c.name)
				}
			}
		}
		found = append(found, c)
	}
}
