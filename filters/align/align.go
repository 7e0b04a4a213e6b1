package align

import (
	"context"

	"sluice/block"
	"sluice/block/buffer"
	"sluice/block/gate"
)

// New gives dev with Block.Min 1: dev itself where it has that already. The
// result owns dev.
func New(dev block.Device) block.Device {
	info := dev.Info()
	if info.Block.Min <= 1 {
		return dev
	}
	d := &device{dev: block.Resolve(dev), unit: info.Block.Min, info: info}
	d.locks.freed.L = &d.locks.mu
	d.info.Block.Min = 1
	d.info.Caps &= forwarded
	if !info.ReadOnly {
		d.info.Caps &^= block.CapFileRange
	}
	return d
}

const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapNowait | block.CapFileRange | block.CapBitmaps | block.CapMultiConn |
	block.CapSerialWrites

// device is a Device around a Device.
type device struct {
	dev   *block.Resolved
	unit  int64 // Block.Min below
	info  block.Info
	gate  gate.Gate
	locks rangeLock
}

func (d *device) Info() block.Info { return d.info }

func (d *device) Close() error { return d.gate.Close(d.dev.Close) }

func (d *device) Flush(ctx context.Context) error { return d.dev.Flush(ctx) }

// enter begins a call: it checks the range and keeps Close waiting until
// d.gate.Leave.
func (d *device) enter(op string, off, n int64) error {
	if !d.gate.Enter() {
		return block.Errorf(block.Closed, op, "", off, "")
	}
	if err := block.CheckRange(d.info, op, off, n); err != nil {
		d.gate.Leave()
		return err
	}
	return nil
}

// enterChange is enter for a changing request. The Device below checks flags,
// but not before a head was written, so it is done here.
func (d *device) enterChange(op string, off, n int64, flags, known block.Flags) error {
	if err := d.enter(op, off, n); err != nil {
		return err
	}
	err := block.CheckChange(d.info.ReadOnly, op, "", off, flags&^known)
	if err != nil {
		d.gate.Leave()
	}
	return err
}

// known adds FUA to flags where the Device below has it.
func (d *device) known(flags block.Flags) block.Flags {
	if d.info.Has(block.CapFUA) {
		flags |= block.FUA
	}
	return flags
}

func (d *device) down(off int64) int64 { return off &^ (d.unit - 1) }
func (d *device) up(off int64) int64   { return (off + d.unit - 1) &^ (d.unit - 1) }

// split divides n bytes at off. A request inside one block is all head, unless
// it begins where the block begins: then it is all tail.
func (d *device) split(off, n int64) (head, middle, tail int64) {
	lo, hi := d.up(off), d.down(off+n)
	if lo > hi {
		return n, 0, 0
	}
	return lo - off, hi - lo, off + n - hi
}

func (d *device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	if len(p) == 0 {
		return nil
	}
	head, middle, _ := d.split(off, int64(len(p)))
	if middle == int64(len(p)) {
		return d.dev.ReadAt(ctx, p, off)
	}
	if err := d.readPart(ctx, p[:head], off); err != nil {
		return err
	}
	if middle > 0 {
		if err := d.dev.ReadAt(ctx, p[head:head+middle], off+head); err != nil {
			return err
		}
	}
	return d.readPart(ctx, p[head+middle:], off+head+middle)
}

// readPart fills p, which lies inside one block.
func (d *device) readPart(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	b := buffer.Get(int(d.unit))
	defer b.Release()
	at := d.down(off)
	if err := d.dev.ReadAt(ctx, b.B, at); err != nil {
		return err
	}
	copy(p, b.B[off-at:])
	return nil
}

func (d *device) ReadNowait(p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	if len(p) == 0 {
		return nil
	}
	lo, hi := d.down(off), d.up(off+int64(len(p)))
	if hi-lo == int64(len(p)) {
		return d.dev.Nowaiter.ReadNowait(p, off)
	}
	if limit := d.info.Block.Max; hi-lo > buffered || limit > 0 && hi-lo > limit {
		return block.ErrWouldBlock
	}
	b := buffer.Get(int(hi - lo))
	defer b.Release()
	if err := d.dev.Nowaiter.ReadNowait(b.B, lo); err != nil {
		return err
	}
	copy(p, b.B[off-lo:])
	return nil
}

// buffered is the longest unaligned read that is copied without waiting.
const buffered = 128 << 10

func (d *device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	n := int64(len(p))
	if err := d.enterChange("write", off, n, flags, d.known(0)); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 {
		return nil
	}
	head, middle, _ := d.split(off, n)
	ticket := d.locks.lock(d.down(off), d.up(off+n), middle != n)
	defer d.locks.unlock(ticket)
	if middle == n {
		return d.dev.WriteAt(ctx, p, off, flags)
	}
	if err := d.patch(ctx, p[:head], off, head, flags); err != nil {
		return err
	}
	if middle > 0 {
		if err := d.dev.WriteAt(ctx, p[head:head+middle], off+head, flags); err != nil {
			return err
		}
	}
	return d.patch(ctx, p[head+middle:], off+head+middle, n-head-middle, flags)
}

// patch changes n bytes inside one block to p, or to zeroes where p is nil. The
// caller holds the block alone.
func (d *device) patch(ctx context.Context, p []byte, off, n int64, flags block.Flags) error {
	if n == 0 {
		return nil
	}
	b := buffer.Get(int(d.unit))
	defer b.Release()
	at := d.down(off)
	if err := d.dev.ReadAt(ctx, b.B, at); err != nil {
		return err
	}
	part := b.B[off-at : off-at+n]
	if p == nil {
		clear(part)
	} else {
		copy(part, p)
	}
	return d.dev.WriteAt(ctx, b.B, at, flags)
}
