package nbd

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"sluice/block"
	"sluice/block/buffer"
)

const (
	// statusExtents is how many extents one reply tells at most, for each
	// context (the protocol allows 2^20; the client asks again for the rest).
	statusExtents = 4096
	// readPieces is how many pieces of data and holes a read is answered in at
	// most; what lies behind is sent as data.
	readPieces = 16
	// holeMin is the shortest read that is examined for holes.
	holeMin = 64 << 10
)

// Status bits of the contexts (proto.md, "base:allocation"; QEMU's nbd.rst).
const (
	stateHole  = 1
	stateZero  = 2
	stateDirty = 1
)

// errorBuffer holds an error reply of either form.
func errorBuffer(text int) *buffer.Buffer { return buffer.Get(chunkExtendedSize + 6 + text) }

// statusSize is the room that a status reply for so many contexts may take.
func statusSize(contexts int) int { return contexts * (chunkExtendedSize + 8 + statusExtents*16) }

// statusDevice answers a block status request: one chunk for each context.
func (c *serverConn) statusDevice(ctx context.Context, j *job) error {
	contexts, length := c.contexts, j.req.length
	if j.req.flags&cfPayloadLen != 0 {
		var err error
		if contexts, length, err = c.statusFilter(j); err != nil {
			return err
		}
	}
	out := buffer.Get(statusSize(len(contexts)))
	if j.buf != nil {
		j.buf.Release()
	}
	j.buf = out
	list := statusPool.Get().(*[statusExtents]block.Extent)
	defer statusPool.Put(list)
	n := 0
	for rest := contexts; len(rest) > 0; {
		same := rest[:sameAnswer(rest)]
		rest = rest[len(same):]
		extents, err := c.extentsFor(ctx, same, j.req, length, list[:0])
		if err != nil {
			return err
		}
		for i, m := range same {
			n += c.putStatus(out.B[n:], j.req, m, extents, len(rest) == 0 && i == len(same)-1)
		}
	}
	j.data, j.hlen = out.B[:n], 0
	return nil
}

// statusPool keeps the lists that devices put their extents into.
var statusPool = sync.Pool{New: func() any { return new([statusExtents]block.Extent) }}

// sameAnswer tells how many contexts at the front are about the same extents of
// the device, so that it need be asked only once: base:allocation and
// qemu:allocation-depth, which are neighbours.
func sameAnswer(contexts []metaContext) int {
	n := 1
	for contexts[0].bitmap == "" && n < len(contexts) && contexts[n].bitmap == "" {
		n++
	}
	return n
}

// statusFilter reads the payload that narrows a request to some contexts.
func (c *serverConn) statusFilter(j *job) ([]metaContext, uint64, error) {
	p := j.buf.B
	length := be.Uint64(p)
	bad := func(format string, args ...any) ([]metaContext, uint64, error) {
		return nil, 0, block.Errorf(block.Invalid, "block status", "", int64(j.req.offset), format, args...)
	}
	if length == 0 || j.req.offset > c.size || length > c.size-j.req.offset {
		return bad("%d bytes do not fit into %d", length, c.size)
	}
	var chosen []metaContext
	for p = p[8:]; len(p) > 0; p = p[4:] {
		id := be.Uint32(p)
		i := slices.IndexFunc(c.contexts, func(m metaContext) bool { return m.id == id })
		if i < 0 || slices.Contains(chosen, c.contexts[i]) {
			return bad("context %d is unknown or named twice", id)
		}
		chosen = append(chosen, c.contexts[i])
	}
	if len(chosen) == 0 {
		return bad("no context")
	}
	slices.SortFunc(chosen, func(a, b metaContext) int { return cmp.Compare(a.id, b.id) }) // see sameAnswer
	return chosen, length, nil
}

// extentsFor asks the device for the extents of contexts that share an answer.
// For REQ_ONE it asks for the first extent and goes on only while every context
// sees one run so far, each time for as many as are known: a client that walks a
// fragmented image in this way is answered with a few extents each time.
func (c *serverConn) extentsFor(ctx context.Context, same []metaContext, req request, length uint64, dst []block.Extent) ([]block.Extent, error) {
	off, left := int64(req.offset), int64(length)
	if req.flags&cfReqOne == 0 {
		return c.askExtents(ctx, same[0].bitmap, off, left, dst)
	}
	for {
		told := len(dst)
		room := min(max(2*told, 1), cap(dst))
		more, err := c.askExtents(ctx, same[0].bitmap, off, left, dst[:told:room])
		if err != nil && told == 0 {
			return dst, err
		} else if err != nil {
			return dst, nil // what is known is an answer
		}
		dst = append(dst, more[told:]...)
		for _, e := range dst[told:] {
			off, left = off+e.Len, left-e.Len
		}
		if left <= 0 || len(dst) == cap(dst) || !oneRun(same, dst) {
			return dst, nil
		}
	}
}

// oneRun reports whether every context sees the extents as one run.
func oneRun(contexts []metaContext, extents []block.Extent) bool {
	for _, m := range contexts {
		for _, e := range extents[1:] {
			if statusOf(m, e) != statusOf(m, extents[0]) {
				return false
			}
		}
	}
	return true
}

// askExtents asks the device, for a bitmap or for what is allocated.
func (c *serverConn) askExtents(ctx context.Context, bitmap string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	first := len(dst)
	var err error
	if bitmap != "" {
		dst, err = c.dev.Bitmapper.BitmapExtents(ctx, bitmap, off, n, dst)
	} else {
		dst, err = c.dev.ExtentsAt(ctx, off, n, dst)
	}
	if err == nil && len(dst) == first {
		err = block.Errorf(block.IO, "block status", "", off, "device told no extent")
	}
	return dst, err
}

// statusOf is an extent's value in a context.
func statusOf(m metaContext, e block.Extent) uint32 {
	var v uint32
	switch {
	case m.bitmap != "":
		if e.State&block.Dirty != 0 {
			v = stateDirty
		}
	case m.name == ContextDepth:
		v = e.Depth
	default:
		if e.State&block.Hole != 0 {
			v |= stateHole
		}
		if e.State&block.Zero != 0 {
			v |= stateZero
		}
	}
	return v
}

// putStatus writes one context's chunk: neighbours of equal status are one
// extent, and in the compact form none is longer than 32 bits can say.
func (c *serverConn) putStatus(p []byte, req request, m metaContext, extents []block.Extent, last bool) int {
	head, word, typ := chunkSize+4, 8, chunkBlockStatus
	if c.extended {
		head, word, typ = chunkExtendedSize+8, 16, chunkBlockStatusExt
	}
	n, count := head, 0
	put := func(length int64, v uint32) {
		if c.extended {
			be.PutUint64(p[n:], uint64(length))
			be.PutUint64(p[n+8:], uint64(v))
		} else {
			be.PutUint32(p[n:], uint32(length))
			be.PutUint32(p[n+4:], v)
		}
		n, count = n+word, count+1
	}
	eachRun(m, extents, c.extended, func(length int64, v uint32) bool {
		put(length, v)
		return req.flags&cfReqOne == 0
	})
	hdr := chunk{typ: typ, cookie: req.cookie, offset: req.offset, length: uint64(n - head)}
	if last {
		hdr.flags = chunkFlagDone
	}
	if c.extended {
		hdr.length += 8
		be.PutUint32(p[putChunk(p, hdr, true):], m.id)
		be.PutUint32(p[chunkExtendedSize+4:], uint32(count))
		return n
	}
	hdr.length += 4
	be.PutUint32(p[putChunk(p, hdr, false):], m.id)
	return n
}

// eachRun calls fn for each run of equal status until it returns false. A run
// that the compact form cannot express is cut at maxCompactExtent, and ends the
// reply: the client asks on from there.
func eachRun(m metaContext, extents []block.Extent, extended bool, fn func(int64, uint32) bool) {
	for i := 0; i < len(extents); {
		v, length := statusOf(m, extents[i]), extents[i].Len
		for i++; i < len(extents) && statusOf(m, extents[i]) == v; i++ {
			length += extents[i].Len
		}
		if !extended && length > maxCompactExtent {
			fn(maxCompactExtent, v)
			return
		}
		if !fn(length, v) {
			return
		}
	}
}

// maxCompactExtent is the longest extent of a compact reply, kept a multiple of
// every minimum block size.
const maxCompactExtent = 1<<32 - 1<<16

// mayHaveHoles reports whether a read has to be examined for holes. What is
// known to be data needs no second look: should it have become a hole since, it
// reads as zeroes all the same.
func (c *serverConn) mayHaveHoles(req request) bool {
	if !c.structured || req.flags&cfDF != 0 || c.dev.Extenter == nil || req.length < holeMin {
		return false
	}
	return !c.data.covers(req.offset, req.offset+req.length)
}

// dataRange is a run of bytes that the device called data.
type dataRange struct {
	mu     sync.Mutex
	lo, hi uint64
}

func (d *dataRange) covers(lo, hi uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lo <= lo && hi <= d.hi
}

// add takes another run in: together with the known one where they touch, so that
// reads in any order soon know all of a dense image, instead of it elsewhere.
func (d *dataRange) add(lo, hi uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hi > d.lo && lo <= d.hi && d.lo <= hi {
		lo, hi = min(lo, d.lo), max(hi, d.hi)
	}
	d.lo, d.hi = lo, hi
}

// readChunks answers a read in pieces of data and holes. whole: there is no
// hole, and nothing was done.
func (c *serverConn) readChunks(ctx context.Context, j *job) (whole bool, err error) {
	off := int64(j.req.offset)
	ask := min(c.dev.Info.Size-off, max(int64(j.req.length), dataAhead))
	extents, err := c.dev.Extenter.Extents(ctx, off, ask, j.extents[:0:readPieces])
	if err != nil {
		return true, nil // the read itself will tell
	}
	var data int64
	for _, e := range extents {
		if e.State&block.Zero != 0 {
			break
		}
		data += e.Len
	}
	if data >= int64(j.req.length) {
		c.data.add(j.req.offset, j.req.offset+uint64(data))
		return true, nil
	}
	return false, c.readPieces(ctx, j, piecesOf(extents, int64(j.req.length)))
}

// dataAhead is how far beyond a read the device is asked for data, so that the
// next reads of a dense image need not ask again.
const dataAhead = 1 << 30

// piecesOf cuts the extents to n bytes and merges those that are sent alike, in
// place; what was not told is data.
func piecesOf(extents []block.Extent, n int64) []block.Extent {
	pieces := extents[:0]
	add := func(length int64, zero block.ExtentState) {
		if k := len(pieces); k > 0 && pieces[k-1].State == zero {
			pieces[k-1].Len += length
		} else if length > 0 {
			pieces = append(pieces, block.Extent{Len: length, State: zero})
		}
	}
	for _, e := range extents { // never behind what is written to pieces
		length := min(e.Len, n)
		add(length, e.State&block.Zero)
		n -= length
	}
	add(n, 0)
	return pieces
}

// readPieces builds the chunks of a read in one buffer.
func (c *serverConn) readPieces(ctx context.Context, j *job, pieces []block.Extent) error {
	j.buf = buffer.Get(int(j.req.length) + (readPieces+1)*(chunkExtendedSize+12))
	p, n, off := j.buf.B, 0, int64(j.req.offset)
	for i, e := range pieces {
		hdr := chunk{cookie: j.req.cookie, offset: j.req.offset, typ: chunkOffsetData, length: 8 + uint64(e.Len)}
		if i == len(pieces)-1 {
			hdr.flags = chunkFlagDone
		}
		if e.State&block.Zero != 0 {
			hdr.typ, hdr.length = chunkOffsetHole, 12
		}
		n += putChunk(p[n:], hdr, c.extended)
		be.PutUint64(p[n:], uint64(off))
		n += 8
		if hdr.typ == chunkOffsetHole {
			be.PutUint32(p[n:], uint32(e.Len))
			n += 4
		} else {
			if err := c.readInto(ctx, p[n:n+int(e.Len)], off); err != nil {
				return err
			}
			n += int(e.Len)
		}
		off += e.Len
	}
	j.data, j.hlen = p[:n], 0
	return nil
}
