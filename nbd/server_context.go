package nbd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sluice/block"
)

// Meta contexts (proto.md, "Metadata querying"): which there are for an export,
// and the two options that list and select them.
//
//	base:allocation              hole and zero bits
//	qemu:allocation-depth        depth in the backing chain
//	qemu:dirty-bitmap:NAME       a bitmap of the device

// metaContext is one selected context.
type metaContext struct {
	id     uint32
	name   string
	bitmap string // the bitmap's name, for qemu:dirty-bitmap
}

// contextSet is the result of one SET_META_CONTEXT.
type contextSet struct {
	export string
	list   []metaContext
}

// maxContexts bounds the contexts of one connection; each costs a walk per
// status request.
const maxContexts = 64

// contextsOf lists what an export offers.
func contextsOf(dev *block.Resolved) []metaContext {
	all := []metaContext{{name: ContextAllocation}}
	if dev.Extenter != nil {
		all = append(all, metaContext{name: ContextDepth})
	}
	if dev.Bitmapper != nil {
		for _, name := range dev.Bitmapper.Bitmaps() {
			all = append(all, metaContext{name: ContextDirty + name, bitmap: name})
		}
	}
	return all
}

func (h *handshake) listMetaContext(ctx context.Context, data []byte) error {
	return h.metaContext(ctx, optListMetaContext, data)
}

// setMetaContext replaces the selection, also when it fails.
func (h *handshake) setMetaContext(ctx context.Context, data []byte) error {
	h.contexts = nil
	return h.metaContext(ctx, optSetMetaContext, data)
}

func (h *handshake) metaContext(ctx context.Context, opt option, data []byte) error {
	if !h.structured {
		return h.reject(opt, repErrInvalid, "structured replies come first")
	}
	export, queries, err := parseContextQuery(data)
	if err != nil {
		return h.reject(opt, repErrInvalid, "%v", err)
	}
	x, err := h.srv.cfg.Catalog.Open(ctx, export, h.peer())
	if err != nil {
		return h.refuseExport(opt, export, err)
	}
	offered := contextsOf(block.Resolve(x.Device))
	if x.Release != nil {
		x.Release()
	}
	listing := opt == optListMetaContext
	found := matchContexts(offered, queries, listing)
	for i := range found {
		if !listing {
			found[i].id = uint32(i + 1)
		}
		var id [4]byte
		be.PutUint32(id[:], found[i].id)
		if err := h.reply(opt, repMetaContext, id[:], []byte(found[i].name)); err != nil {
			return err
		}
	}
	if !listing {
		h.contexts = &contextSet{export: export, list: found}
	}
	return h.reply(opt, repAck)
}

// parseContextQuery reads an export's name and the queries.
func parseContextQuery(data []byte) (export string, queries []string, err error) {
	export, data, err = takeString(data)
	if err != nil {
		return "", nil, fmt.Errorf("export name: %w", err)
	}
	if len(data) < 4 {
		return "", nil, errors.New("option data is too short")
	}
	count := be.Uint32(data)
	data = data[4:]
	if uint64(count)*4 > uint64(len(data)) {
		return "", nil, fmt.Errorf("%d queries in %d bytes", count, len(data))
	}
	for range count {
		var q string
		if q, data, err = takeString(data); err != nil {
			return "", nil, fmt.Errorf("query: %w", err)
		}
		if _, _, ok := splitContext(q); !ok {
			return "", nil, fmt.Errorf("query %q has no namespace", q)
		}
		queries = append(queries, q)
	}
	if len(data) > 0 {
		return "", nil, fmt.Errorf("%d bytes too many", len(data))
	}
	return export, queries, nil
}

// takeString reads a 32-bit length and that many bytes.
func takeString(p []byte) (s string, rest []byte, err error) {
	if len(p) < 4 {
		return "", nil, errors.New("option data is too short")
	}
	n := be.Uint32(p)
	p = p[4:]
	if uint64(n) > uint64(len(p)) {
		return "", nil, errors.New("length goes beyond the option")
	}
	s = string(p[:n])
	return s, p[n:], checkString(s)
}

// matchContexts selects, in the order of the offer and each once. Listing knows
// wildcards: no query at all, "NAMESPACE:" and "qemu:dirty-bitmap:". Unknown
// namespaces match nothing.
func matchContexts(offered []metaContext, queries []string, listing bool) []metaContext {
	var found []metaContext
	for _, c := range offered {
		hit := listing && len(queries) == 0
		for _, q := range queries {
			wild := listing && (q == ContextDirty || strings.Index(q, ":") == len(q)-1)
			hit = hit || c.name == q || wild && strings.HasPrefix(c.name, q)
		}
		if hit && len(found) < maxContexts {
			found = append(found, c)
		}
	}
	return found
}
