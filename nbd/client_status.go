package nbd

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"

	"sluice/block"
)

// The metadata contexts that the client understands.
const (
	ContextAllocation = "base:allocation"       // which ranges hold data
	ContextDepth      = "qemu:allocation-depth" // how deep in a backing chain
	ContextDirty      = "qemu:dirty-bitmap:"    // and a bitmap's name: what has changed

	// clientMaxRuns bounds how many extents of a context are kept per request;
	// what the caller has no room for is asked for again.
	clientMaxRuns = 4096
)

// clientRun is a wire extent.
type clientRun struct{ n, state uint64 }

// clientRuns gathers one context's extents for a request.
type clientRuns struct {
	id    uint32
	seen  bool
	end   bool   // nothing more may follow: the range is covered
	total uint64 // bytes, of all extents that came
	runs  []clientRun
}

// clientStatus gathers the answer to a block status request. It lives in a pool.
type clientStatus struct {
	lists []clientRuns // one per selected context, in the order of clientMode.contexts
	keep  int          // extents kept per context
}

var clientStatusPool = sync.Pool{New: func() any { return new(clientStatus) }}

// prepare sets it up for the contexts of a connection.
func (st *clientStatus) prepare(contexts []clientContext) {
	for len(st.lists) < len(contexts) {
		st.lists = append(st.lists, clientRuns{})
	}
	st.lists = st.lists[:len(contexts)]
	for i, c := range contexts {
		st.lists[i].id = c.id
	}
	st.reset()
}

func (st *clientStatus) reset() {
	for i := range st.lists {
		l := &st.lists[i]
		*l = clientRuns{id: l.id, runs: l.runs[:0]}
	}
}

// begin finds the list for a chunk. A context has one chunk per reply.
func (st *clientStatus) begin(id uint32) (*clientStatusList, error) {
	for i := range st.lists {
		if l := &st.lists[i]; l.id == id {
			if l.seen {
				return nil, clientProtocolError("two block status chunks for metadata context %d", id)
			}
			l.seen = true
			return &clientStatusList{l, st.keep}, nil
		}
	}
	return nil, clientProtocolError("a block status chunk for metadata context %d, which was not selected", id)
}

// clientStatusList is a context's list while its chunk is read.
type clientStatusList struct {
	*clientRuns
	keep int
}

// add takes one extent of the chunk. Equal neighbours become one; beyond the
// number kept they are only checked.
func (l *clientStatusList) add(run clientRun, s *clientSlot) error {
	switch {
	case run.n == 0:
		return clientProtocolError("an extent of length zero in a block status reply")
	case l.end:
		return clientProtocolError("more extents than cover the %d bytes asked for", s.n)
	case run.n > math.MaxInt64-l.total:
		return clientProtocolError("an extent of %d bytes", run.n)
	case s.flags&cfReqOne != 0 && run.n > uint64(s.n):
		return clientProtocolError("an extent of %d bytes where one of at most %d was asked for", run.n, s.n)
	}
	l.total += run.n
	l.end = l.total >= uint64(s.n) || s.flags&cfReqOne != 0
	if k := len(l.runs); k > 0 && l.runs[k-1].state == run.state && k <= l.keep {
		l.runs[k-1].n += run.n
	} else if k < l.keep {
		l.runs = append(l.runs, run)
	} else {
		l.keep = 0 // later neighbours do not join: there is a gap before them
	}
	return nil
}

// complete checks that every selected context was told about.
func (st *clientStatus) complete() error {
	for i := range st.lists {
		if !st.lists[i].seen {
			return clientProtocolError("a block status reply without metadata context %d", st.lists[i].id)
		}
	}
	return nil
}

// Extents implements block.Extenter with base:allocation and, where the server
// has it, qemu:allocation-depth.
func (c *Client) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if c.allocation < 0 {
		return dst, c.unsupported("extents", off, "the server does not offer "+ContextAllocation)
	}
	return c.extents(ctx, clientQuery{op: "extents", off: off, n: n, unknown: block.Extent{Depth: 1}}, dst, func(st *clientStatus) clientWalk {
		w := clientWalk{a: st.lists[c.allocation].runs}
		if c.depth >= 0 {
			w.b, w.both = st.lists[c.depth].runs, true
		}
		return w
	}, clientAllocation)
}

// clientAllocation makes an Extent of base:allocation's flags and, with both, of
// qemu:allocation-depth's number.
func clientAllocation(flags, depth uint64, both bool) block.Extent {
	var e block.Extent
	if flags&stateHole != 0 {
		e.State |= block.Hole
	}
	if flags&stateZero != 0 {
		e.State |= block.Zero
	}
	switch {
	case both:
		e.Depth = uint32(min(depth, math.MaxUint32))
	case flags&stateHole == 0:
		e.Depth = 1
	}
	return e
}

// Bitmaps implements block.Bitmapper: the names of the qemu:dirty-bitmap contexts
// that were asked for and that the server has.
func (c *Client) Bitmaps() []string {
	var names []string
	for _, context := range c.info.MetaContexts {
		if name, ok := strings.CutPrefix(context, ContextDirty); ok {
			names = append(names, name)
		}
	}
	return names
}

// BitmapExtents implements block.Bitmapper.
func (c *Client) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	i := slices.Index(c.info.MetaContexts, ContextDirty+name)
	if i < 0 {
		return dst, block.Errorf(block.NotFound, "bitmap extents", c.object, off, "no bitmap %q was agreed on", name)
	}
	q := clientQuery{op: "bitmap extents", off: off, n: n, unknown: block.Extent{State: block.Dirty}}
	return c.extents(ctx, q, dst, func(st *clientStatus) clientWalk {
		return clientWalk{a: st.lists[i].runs}
	}, func(flags, _ uint64, _ bool) block.Extent {
		if flags&stateDirty != 0 {
			return block.Extent{State: block.Dirty}
		}
		return block.Extent{}
	})
}

// StatusExtent is a run of bytes with a metadata context's own value.
type StatusExtent struct {
	Len   int64
	Value uint64
}

// BlockStatus asks for the extents of one selected metadata context, whatever it
// means, from off on. It returns one answer of the server, which covers at most n
// bytes, and may cover less. It ends with a whole block of the minimum block size,
// unless the server told less than one.
func (c *Client) BlockStatus(ctx context.Context, name string, off, n int64) ([]StatusExtent, error) {
	const op = "block status"
	i := slices.Index(c.info.MetaContexts, name)
	if i < 0 {
		return nil, block.Errorf(block.NotFound, op, c.object, off, "metadata context %q was not agreed on", name)
	}
	if err := c.check(op, off, n); err != nil || n == 0 {
		return nil, err
	}
	st := clientStatusPool.Get().(*clientStatus)
	defer clientStatusPool.Put(st)
	st.keep = clientMaxRuns
	if err := c.askStatus(ctx, clientQuery{op: op, off: off, n: n}, st); err != nil {
		return nil, err
	}
	return clientStatusExtents(st.lists[i].runs, n, c.resolved.Block.Min), nil
}

// clientStatusExtents cuts an answer to n bytes, or to the whole blocks that it
// tells about.
func clientStatusExtents(runs []clientRun, n, least int64) []StatusExtent {
	told := int64(0)
	for _, run := range runs {
		told += int64(min(run.n, uint64(n-told)))
	}
	if told >= least {
		told -= told % least
	}
	var list []StatusExtent
	for _, run := range runs {
		if told == 0 {
			break
		}
		step := int64(min(run.n, uint64(told)))
		list = append(list, StatusExtent{Len: step, Value: run.state})
		told -= step
	}
	return list
}

// clientWalk goes through one or two lists of extents in step.
type clientWalk struct {
	a, b []clientRun
	both bool
}

// next gives the longest run on which the lists do not change, or 0 where one
// has ended.
func (w *clientWalk) next() (n, stateA, stateB uint64) {
	if len(w.a) == 0 || w.both && len(w.b) == 0 {
		return 0, 0, 0
	}
	n, stateA = w.a[0].n, w.a[0].state
	if w.both {
		n, stateB = min(n, w.b[0].n), w.b[0].state
		w.b = clientCut(w.b, n)
	}
	w.a = clientCut(w.a, n)
	return n, stateA, stateB
}

func clientCut(runs []clientRun, n uint64) []clientRun {
	if runs[0].n == n {
		return runs[1:]
	}
	runs[0].n -= n
	return runs
}

// clientQuery is what a block status request is to be about.
type clientQuery struct {
	op     string // for messages
	off, n int64
	one    bool // no more than one extent of each context

	unknown block.Extent // what is said of bytes that the server told nothing about
}

// extents asks until the range is covered or dst is full. What it appends consists
// of whole blocks.
func (c *Client) extents(ctx context.Context, q clientQuery, dst []block.Extent,
	lists func(*clientStatus) clientWalk, make func(a, b uint64, both bool) block.Extent) ([]block.Extent, error) {
	if err := c.check(q.op, q.off, q.n); err != nil || q.n == 0 {
		return dst, err
	}
	st := clientStatusPool.Get().(*clientStatus)
	defer clientStatusPool.Put(st)
	first := len(dst)
	emit := func(e block.Extent) bool {
		last := len(dst) - 1
		switch {
		case last >= first && dst[last].State == e.State && dst[last].Depth == e.Depth:
			dst[last].Len += e.Len
		case len(dst) < cap(dst):
			dst = append(dst, e)
		default:
			return false
		}
		q.off, q.n = q.off+e.Len, q.n-e.Len
		return true
	}
	least := c.resolved.Block.Min
	within := false // the one extent asked for ended within the first block
	for q.n > 0 && len(dst) < cap(dst) {
		// Room for the caller's, and for those of two contexts that are joined, or
		// of the blocks that they share.
		room := cap(dst) - len(dst)
		st.keep, q.one = min(2*room, clientMaxRuns), room == 1 && !within
		if least > 1 {
			st.keep = clientMaxRuns
		}
		if err := c.askStatus(ctx, q, st); err != nil {
			return dst, err
		}
		rounding := clientRounding{block: least, unknown: q.unknown, emit: emit}
		walk, left := lists(st), uint64(q.n)
		for left > 0 {
			run, a, b := walk.next()
			if run == 0 {
				break
			}
			run = min(run, left)
			left -= run
			e := make(a, b, walk.both)
			e.Len = int64(run)
			if !rounding.add(e) {
				return dst, nil
			}
		}
		if within = q.one && !rounding.any; !within {
			rounding.end()
		}
	}
	return dst, nil
}

// askStatus sends one block status request for the range, or for as much of it
// as the header can say.
func (c *Client) askStatus(ctx context.Context, q clientQuery, st *clientStatus) error {
	r := clientRequest{op: q.op, cmd: cmdBlockStatus, off: q.off, n: min(q.n, c.maxEffect), status: st}
	if q.one {
		r.flags = cfReqOne
	}
	return c.request(ctx, r)
}
