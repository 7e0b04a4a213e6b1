package block

import (
	"context"
	"fmt"
)

// Resolved is a Device with its optional powers looked up once. A field is nil
// where the capability is missing.
type Resolved struct {
	Device
	Info      Info // as it was when resolved
	Zeroer    Zeroer
	Discarder Discarder
	Extenter  Extenter
	Prefetch  Prefetcher
	Resizer   Resizer
	Nowaiter  Nowaiter
	Ranger    Ranger
	Bitmapper Bitmapper
	Copier    Copier
	Starter   Starter
}

// Resolve looks up what d can do. It panics where Info().Caps claims a
// capability whose interface d does not implement: that is a bug in d, found by
// opening it.
func Resolve(d Device) *Resolved {
	r := &Resolved{Device: d, Info: d.Info()}
	caps := r.Info.Caps
	r.Zeroer = resolve[Zeroer](d, caps, CapZero|CapFastZero)
	r.Discarder = resolve[Discarder](d, caps, CapDiscard)
	r.Extenter = resolve[Extenter](d, caps, CapExtents|CapDepth)
	r.Prefetch = resolve[Prefetcher](d, caps, CapPrefetch)
	r.Resizer = resolve[Resizer](d, caps, CapResize)
	r.Nowaiter = resolve[Nowaiter](d, caps, CapNowait)
	r.Ranger = resolve[Ranger](d, caps, CapFileRange)
	r.Bitmapper = resolve[Bitmapper](d, caps, CapBitmaps)
	r.Copier = resolve[Copier](d, caps, CapCopy)
	r.Starter = resolve[Starter](d, caps, CapStart)
	return r
}

func resolve[T any](d Device, have, any Cap) T {
	var none T
	if have&any == 0 {
		return none
	}
	t, ok := d.(T)
	if !ok {
		panic(fmt.Sprintf("block: %T claims %v without implementing it", d, have&any))
	}
	return t
}

// zeroes is what ZeroRange writes where a Device cannot zero by itself.
var zeroes [64 << 10]byte

// ZeroRange makes n bytes at off read as zeroes, by WriteZeroes where the
// Device has it and by writing zeroes where it does not, or where WriteZeroes
// turns out to be Unsupported. With FastOnly it never writes.
func (r *Resolved) ZeroRange(ctx context.Context, off, n int64, flags Flags) error {
	if r.Zeroer != nil {
		err := r.Zeroer.WriteZeroes(ctx, off, n, flags)
		if flags&FastOnly != 0 || KindOf(err) != Unsupported {
			return err
		}
	} else if flags&FastOnly != 0 {
		return Errorf(Unsupported, "write zeroes", "", off, "no fast zeroing")
	}
	if err := CheckRange(r.Device.Info(), "write zeroes", off, n); err != nil {
		return err
	}
	chunk := int64(len(zeroes))
	if limit := r.Info.Block.Max; limit > 0 && limit < chunk {
		chunk = limit
	}
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err // between two pieces: none is under way
		}
		step := min(n, chunk)
		if err := r.WriteAt(ctx, zeroes[:step], off, flags&FUA); err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

// ExtentsAt is Extents where the Device has it; elsewhere everything is one
// extent of data.
func (r *Resolved) ExtentsAt(ctx context.Context, off, n int64, dst []Extent) ([]Extent, error) {
	if r.Extenter != nil {
		return r.Extenter.Extents(ctx, off, n, dst)
	}
	if err := CheckRange(r.Device.Info(), "extents", off, n); err != nil {
		return dst, err
	}
	return append(dst, Extent{Len: n, Depth: 1}), nil
}

// CheckRange checks offset and length against size and minimum block size, as
// every Device does before it moves anything.
func CheckRange(info Info, op string, off, n int64) error {
	if off < 0 || n < 0 || off > info.Size || n > info.Size-off {
		return Errorf(OutOfRange, op, "", off, "%d bytes at %d do not fit into %d", n, off, info.Size)
	}
	if m := info.Block.Min; m > 1 && (off|n)&(m-1) != 0 {
		return Errorf(Invalid, op, "", off, "%d bytes at %d are not aligned to %d", n, off, m)
	}
	return nil
}

// CheckChange checks what every Device does, behind CheckRange, before it
// changes anything: that it takes changes, and that of the request's flags none
// is unknown to it. object is what the error names; may be empty.
func CheckChange(readOnly bool, op, object string, off int64, unknown Flags) error {
	if readOnly {
		return Errorf(ReadOnly, op, object, off, "")
	}
	if unknown != 0 {
		return Errorf(Invalid, op, object, off, "unknown flags %#x", uint8(unknown))
	}
	return nil
}
