package nbd

import (
	"context"
	"errors"

	"sluice/block"
)

const (
	// clientListBytes bounds what a List keeps of a server's answers, all exports
	// together.
	clientListBytes = 16 << 20
	// clientListContexts bounds the metadata contexts of one export.
	clientListContexts = 256
	// clientListItem is what an export takes beyond its texts, and about what a
	// list takes while it grows.
	clientListItem = 256
)

// List asks a server for its exports and, for each, what it says about it,
// without opening any. The export's name in the URI does not matter. A server may
// hide exports, and refuse to list them (kind Permission or Unsupported); what it
// lists and does not describe has its Err set. A server that tells more than any
// honest one is refused, with kind Unsupported: more than 256 metadata contexts of
// one export, or about 16 MiB in all. Of the configuration TLS,
// DialTimeout (for all of it), NoStructured and NoExtended count.
func List(ctx context.Context, uri string, cfg ClientConfig) ([]ExportInfo, error) {
	target, err := clientPrepare(uri, &cfg)
	if err != nil {
		return nil, err
	}
	var list []ExportInfo
	err = target.dial(ctx, func(h *clientHandshake) (err error) {
		list, err = h.listAll(&cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// listAll is the option haggling of a List.
func (h *clientHandshake) listAll(cfg *ClientConfig) ([]ExportInfo, error) {
	if err := h.headers(cfg); err != nil {
		return nil, err
	}
	var kept clientBudget
	list, err := h.list(&kept)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if err := h.describe(&list[i], &kept); err != nil {
			return nil, err
		}
	}
	h.abort()
	return list, nil
}

// clientBudget counts the bytes that a List keeps.
type clientBudget int

func (b *clientBudget) take(n int) error {
	if *b += clientBudget(n); *b > clientListBytes {
		return clientErrorf(block.Unsupported, "the server tells more than %d MiB about its exports", clientListBytes>>20)
	}
	return nil
}

// list gathers names and descriptions (proto.md, "NBD_OPT_LIST").
func (h *clientHandshake) list(kept *clientBudget) ([]ExportInfo, error) {
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
		if err := checkString(name); err != nil {
			return nil, clientProtocolError("export name %v", err)
		}
		e := ExportInfo{Name: name, Description: clientCleanText(p[end:])}
		if err := kept.take(clientListItem + len(e.Name) + len(e.Description)); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return nil, clientProtocolError("more than %d exports", clientMaxOptionReplies)
}

// describe adds what INFO and LIST_META_CONTEXT tell. A refusal is noted, it is
// no error of the whole.
func (h *clientHandshake) describe(e *ExportInfo, kept *clientBudget) error {
	var refused *clientOptionError
	info, err := h.export(optInfo, e.Name)
	if errors.As(err, &refused) {
		e.Err = err
		return kept.take(len(refused.text))
	}
	if err != nil {
		return err
	}
	name := e.Name // as it was listed: that is the one to open it by
	if info.Description == "" {
		info.Description = e.Description
	}
	if err := kept.take(len(info.Description)); err != nil {
		return err
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
		if err := kept.take(len(c.name) + 16); err != nil {
			return err
		}
		e.MetaContexts = append(e.MetaContexts, c.name)
	}
	return nil
}
