package nbd

import (
	"context"
	"errors"
)

// List asks a server for its exports and, for each, what it says about it,
// without opening any. The export's name in the URI does not matter. A server may
// hide exports, and refuse to list them (kind Permission or Unsupported); what it
// lists and does not describe has its Err set. Of the configuration TLS,
// DialTimeout (for all of it), NoStructured and NoExtended count.
func List(ctx context.Context, uri string, cfg ClientConfig) ([]ExportInfo, error) {
	target, err := clientPrepare(uri, &cfg)
	if err != nil {
		return nil, err
	}
	var list []ExportInfo
	err = target.dial(ctx, func(h *clientHandshake) error {
		if err := h.headers(&cfg); err != nil {
			return err
		}
		if list, err = h.list(); err != nil {
			return err
		}
		for i := range list {
			if err := h.describe(&list[i]); err != nil {
				return err
			}
		}
		h.abort()
		return nil
	})
	return list, err
}

// list gathers names and descriptions (proto.md, "NBD_OPT_LIST").
func (h *clientHandshake) list() ([]ExportInfo, error) {
	if !h.fixed() {
		return nil, &clientOptionError{option: optList, reply: repErrUnsupported}
	}
	if err := h.sendOption(optList, nil); err != nil {
		return nil, err
	}
	var list []ExportInfo
	for range clientMaxOptionReplies {
		typ, p, err := h.reply(optList, repServer, repAck)
		if err != nil || typ == repAck {
			return list, err
		}
		if len(p) < 4 || uint64(be.Uint32(p)) > uint64(len(p)-4) {
			return nil, clientProtocolError("a list entry of %d bytes", len(p))
		}
		end := 4 + int(be.Uint32(p))
		name := string(p[4:end])
		if err := clientCheckName(name); err != nil {
			return nil, clientProtocolError("%v", err)
		}
		list = append(list, ExportInfo{Name: name, Description: clientCleanText(p[end:])})
	}
	return nil, clientProtocolError("more than %d exports", clientMaxOptionReplies)
}

// describe adds what INFO and LIST_META_CONTEXT tell. A refusal is noted, it is
// no error of the whole.
func (h *clientHandshake) describe(e *ExportInfo) error {
	var refused *clientOptionError
	info, err := h.export(optInfo, e.Name)
	if errors.As(err, &refused) {
		e.Err = err
		return nil
	}
	if err != nil {
		return err
	}
	name := e.Name // as it was listed: that is the one to open it by
	if info.Description == "" {
		info.Description = e.Description
	}
	*e = info
	e.Name = name
	if !h.mode.structured && !h.mode.extended {
		return nil
	}
	contexts, err := h.contexts(optListMetaContext, e.Name, nil)
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	for _, c := range contexts {
		e.MetaContexts = append(e.MetaContexts, c.name)
	}
	return nil
}
