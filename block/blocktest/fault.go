package blocktest

import (
	"context"
	"fmt"

	"sluice/block"
)

// OpKind names a call of a Device.
type OpKind string

// The calls that a FaultDevice asks its injectors about.
const (
	OpRead        OpKind = "read" // ReadAt and ReadNowait
	OpWrite       OpKind = "write"
	OpFlush       OpKind = "flush"
	OpWriteZeroes OpKind = "write zeroes"
	OpDiscard     OpKind = "discard"
	OpExtents     OpKind = "extents" // Extents and BitmapExtents
	OpPrefetch    OpKind = "prefetch"
	OpResize      OpKind = "resize" // N is the new size
	OpClose       OpKind = "close"
)

// Op is one call of a Device.
type Op struct {
	Kind  OpKind
	Off   int64 // bytes
	N     int64 // bytes
	Flags block.Flags
}

// String gives the call in one line.
func (o Op) String() string { return fmt.Sprintf("%s of %d at %d", o.Kind, o.N, o.Off) }

// Injector decides what befalls a call.
type Injector interface {
	// MaybeError returns nil to let the call pass, and otherwise the error that
	// it fails with. It may take its time, and is called by many goroutines at
	// once.
	MaybeError(op Op) error
}

// FaultDevice is a Device around a Device whose calls meet what its injectors
// decide. It passes on every power but CapFileRange, which would move bytes
// past it.
type FaultDevice struct {
	dev    *block.Resolved
	before Injector
	after  Injector
}

// faultCaps are the powers that FaultDevice passes on.
const faultCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard |
	block.CapExtents | block.CapDepth | block.CapPrefetch | block.CapResize | block.CapNowait |
	block.CapBitmaps | block.CapMultiConn | block.CapSerialWrites

// NewFaultDevice asks before ahead of each call: where it returns an error the
// call does not reach dev. It asks after when a call of dev has succeeded:
// where it returns an error the effect is there and the caller does not know.
// Either may be nil. Close closes dev, whatever the injectors say.
func NewFaultDevice(dev block.Device, before, after Injector) *FaultDevice {
	if before == nil {
		before = Never()
	}
	if after == nil {
		after = Never()
	}
	return &FaultDevice{dev: block.Resolve(dev), before: before, after: after}
}

func (d *FaultDevice) run(op Op, call func() error) error {
	if err := d.before.MaybeError(op); err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	return d.after.MaybeError(op)
}

// Info returns what the Device below can do, as far as it is passed on.
func (d *FaultDevice) Info() block.Info {
	i := d.dev.Device.Info()
	i.Caps &= faultCaps
	return i
}

// ReadAt passes on.
func (d *FaultDevice) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.run(Op{Kind: OpRead, Off: off, N: int64(len(p))}, func() error { return d.dev.ReadAt(ctx, p, off) })
}

// WriteAt passes on.
func (d *FaultDevice) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	op := Op{Kind: OpWrite, Off: off, N: int64(len(p)), Flags: flags}
	return d.run(op, func() error { return d.dev.WriteAt(ctx, p, off, flags) })
}

// Flush passes on.
func (d *FaultDevice) Flush(ctx context.Context) error {
	return d.run(Op{Kind: OpFlush}, func() error { return d.dev.Flush(ctx) })
}

// WriteZeroes passes on.
func (d *FaultDevice) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	op := Op{Kind: OpWriteZeroes, Off: off, N: n, Flags: flags}
	return d.run(op, func() error { return d.dev.Zeroer.WriteZeroes(ctx, off, n, flags) })
}

// Discard passes on.
func (d *FaultDevice) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	op := Op{Kind: OpDiscard, Off: off, N: n, Flags: flags}
	return d.run(op, func() error { return d.dev.Discarder.Discard(ctx, off, n, flags) })
}

// Extents passes on.
func (d *FaultDevice) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	out := dst
	err := d.run(Op{Kind: OpExtents, Off: off, N: n}, func() (err error) {
		out, err = d.dev.Extenter.Extents(ctx, off, n, dst)
		return err
	})
	return out, err
}

// Prefetch passes on.
func (d *FaultDevice) Prefetch(ctx context.Context, off, n int64) error {
	op := Op{Kind: OpPrefetch, Off: off, N: n}
	return d.run(op, func() error { return d.dev.Prefetch.Prefetch(ctx, off, n) })
}

// Resize passes on.
func (d *FaultDevice) Resize(ctx context.Context, size int64) error {
	return d.run(Op{Kind: OpResize, N: size}, func() error { return d.dev.Resizer.Resize(ctx, size) })
}

// ReadNowait passes on. An injector that waits makes it wait: let it return
// block.ErrWouldBlock where that matters.
func (d *FaultDevice) ReadNowait(p []byte, off int64) error {
	return d.run(Op{Kind: OpRead, Off: off, N: int64(len(p))}, func() error { return d.dev.Nowaiter.ReadNowait(p, off) })
}

// Bitmaps passes on.
func (d *FaultDevice) Bitmaps() []string { return d.dev.Bitmapper.Bitmaps() }

// BitmapExtents passes on.
func (d *FaultDevice) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	out := dst
	err := d.run(Op{Kind: OpExtents, Off: off, N: n}, func() (err error) {
		out, err = d.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
		return err
	})
	return out, err
}

// Close closes the Device below; an injector's error comes after that.
func (d *FaultDevice) Close() error {
	fault := d.before.MaybeError(Op{Kind: OpClose})
	if err := d.dev.Close(); err != nil {
		return err
	}
	if fault != nil {
		return fault
	}
	return d.after.MaybeError(Op{Kind: OpClose})
}
