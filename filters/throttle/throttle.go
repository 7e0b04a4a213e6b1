package throttle

import (
	"context"
	"sync"

	"sluice/block"
)

// forwarded are the powers that pass through.
const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapResize | block.CapNowait | block.CapFileRange | block.CapBitmaps |
	block.CapMultiConn | block.CapSerialWrites

// Device is a Device around a Device.
type Device struct {
	dev   *block.Resolved
	read  lane
	write lane

	mu     sync.Mutex
	limits Limits
}

// New bounds what passes dev, which the result owns. It begins with nothing
// saved up.
func New(dev block.Device, limits Limits) *Device {
	d := &Device{dev: block.Resolve(dev), limits: limits}
	d.read.init(limits.Read)
	d.write.init(limits.Write)
	return d
}

// SetLimits changes the limits. Requests that wait go on waiting by the new
// ones, and pass at once where these let them.
func (d *Device) SetLimits(limits Limits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limits = limits
	d.read.set(limits.Read)
	d.write.set(limits.Write)
}

// Limits gives the limits as they were set last.
func (d *Device) Limits() Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limits
}

// Stats gives the counters.
func (d *Device) Stats() Stats { return Stats{Read: d.read.stats(), Write: d.write.stats()} }

// Info tells what the Device below can do, as far as it is passed on.
func (d *Device) Info() block.Info {
	info := d.dev.Device.Info()
	info.Caps &= forwarded
	return info
}

// call is a request of a lane.
type call struct {
	op     string
	off, n int64
	bytes  int64 // what of n counts
}

// admit waits until the request may pass.
func (d *Device) admit(ctx context.Context, l *lane, c call) error {
	if !d.counts(l, c.off, c.n) {
		return nil
	}
	switch l.pass(ctx, c.bytes) {
	case gaveUp:
		return block.Wrap(ctx.Err(), c.op, "", c.off)
	case shut:
		return block.Errorf(block.Closed, c.op, "", c.off, "")
	}
	return nil
}

// counts reports whether a request is one that the Device below will carry out:
// what it refuses must not take anything from the others, least of all for a
// length that is made up.
func (d *Device) counts(l *lane, off, n int64) bool {
	info := d.dev.Device.Info()
	if n == 0 || l == &d.write && info.ReadOnly {
		return false
	}
	return block.CheckRange(info, "", off, n) == nil
}

// ReadAt reads when its turn has come.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if n := int64(len(p)); d.read.bound.Load() {
		if err := d.admit(ctx, &d.read, call{"read", off, n, n}); err != nil {
			return err
		}
	}
	return d.dev.ReadAt(ctx, p, off)
}

// WriteAt writes when its turn has come.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if n := int64(len(p)); d.write.bound.Load() {
		if err := d.admit(ctx, &d.write, call{"write", off, n, n}); err != nil {
			return err
		}
	}
	return d.dev.WriteAt(ctx, p, off, flags)
}

// Flush is not bounded.
func (d *Device) Flush(ctx context.Context) error { return d.dev.Flush(ctx) }

// Close fails the requests that wait with Closed, and closes the Device below.
func (d *Device) Close() error {
	d.read.close()
	d.write.close()
	return d.dev.Close()
}
