package hold

import (
	"context"
	"time"

	"sluice/block"
)

// op is what a request asks for.
type op uint8

const (
	opRead op = iota
	opWrite
	opFlush
	opZero
	opDiscard
	opExtents
	opBitmap
	opPrefetch
	opResize
)

// What keeps requests from going straight to the Device below.
const (
	blocksRead    = isAway | isClosed
	blocksDiscard = isAway | isFrozen | isClosed
	blocksWrite   = isAway | isFull | isFrozen | isClosed
)

var ops = [...]struct {
	name   string
	blocks uint32
	known  block.Flags // FUA aside
}{
	opRead:     {name: "read", blocks: blocksRead},
	opWrite:    {name: "write", blocks: blocksWrite},
	opFlush:    {name: "flush", blocks: blocksRead},
	opZero:     {name: "write zeroes", blocks: blocksWrite, known: block.MayUnmap | block.FastOnly},
	opDiscard:  {name: "discard", blocks: blocksDiscard},
	opExtents:  {name: "extents", blocks: blocksRead},
	opBitmap:   {name: "bitmap", blocks: blocksRead},
	opPrefetch: {name: "prefetch", blocks: blocksRead},
	opResize:   {name: "resize", blocks: blocksWrite},
}

func (o op) changes() bool { return ops[o].blocks&isFrozen != 0 }

// request is a call of the Device that can be repeated. Its first attempt is made
// without one.
type request struct {
	op     op
	flags  block.Flags
	p      []byte
	off, n int64 // n is the size that a resize asks for

	bitmap string
	dst    []block.Extent
	got    *[]block.Extent // where the answer to a question for extents goes

	losses uint64    // of flushes, when a flush began
	since  time.Time // when it was first held
	err    error     // why: its own failure, or that of others
}

// run makes one attempt.
func (r *request) run(ctx context.Context, dev *block.Resolved) (err error) {
	switch r.op {
	case opRead:
		return dev.ReadAt(ctx, r.p, r.off)
	case opWrite:
		return dev.WriteAt(ctx, r.p, r.off, r.flags)
	case opFlush:
		return dev.Flush(ctx)
	case opZero:
		return dev.Zeroer.WriteZeroes(ctx, r.off, r.n, r.flags)
	case opDiscard:
		return dev.Discarder.Discard(ctx, r.off, r.n, r.flags)
	case opExtents:
		*r.got, err = dev.Extenter.Extents(ctx, r.off, r.n, r.dst)
	case opBitmap:
		*r.got, err = dev.Bitmapper.BitmapExtents(ctx, r.bitmap, r.off, r.n, r.dst)
	case opPrefetch:
		return dev.Prefetch.Prefetch(ctx, r.off, r.n)
	case opResize:
		return dev.Resizer.Resize(ctx, r.n)
	}
	return err
}

// check is what the Device below would check first: a request that makes no
// sense is told so at once and does not wait.
func (r *request) check(info block.Info) error {
	name := ops[r.op].name
	if r.op != opFlush && r.op != opResize {
		if err := block.CheckRange(info, name, r.off, r.n); err != nil {
			return err
		}
	}
	known := ops[r.op].known
	if info.Has(block.CapFUA) {
		known |= block.FUA
	}
	return block.CheckChange(info.ReadOnly && r.op.changes(), name, "", r.place(), r.flags&^known)
}

// place is the offset that an error names.
func (r *request) place() int64 {
	if r.op == opFlush || r.op == opResize {
		return -1
	}
	return r.off
}

// fail makes the error of a request.
func (r *request) fail(kind block.Kind, object, format string, args ...any) error {
	return block.Errorf(kind, ops[r.op].name, object, r.place(), format, args...)
}
