package observe

import (
	"context"
	"log/slog"
	"time"

	"sluice/block"
)

// Config says whom to tell.
type Config struct {
	Object   string // the Device's name in messages
	Layer    string // what is observed, in messages: "storage"
	Observer Observer
	// Slow is how long a request may take before it is logged; 0: as long as it
	// likes.
	Slow time.Duration
	Log  *slog.Logger // nil: nobody is told of slow requests
}

// Device is a Device around a Device, which it owns.
type Device struct {
	dev   *block.Resolved
	obs   Observer
	clock clock
	watch watch
}

// forwarded are the powers that the Device passes on.
const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapResize | block.CapNowait | block.CapFileRange | block.CapBitmaps |
	block.CapMultiConn | block.CapSerialWrites | block.CapNowaitWrites

// New puts a Device around dev.
func New(dev block.Device, cfg Config) *Device {
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{dev: block.Resolve(dev), obs: cfg.Observer, clock: clock{base: time.Now()}}
	d.watch.init(d.clock, cfg)
	d.SetSlow(cfg.Slow)
	return d
}

// clock gives the time since it was made, which never stands still at 0: the
// monotonic reading alone is the cheapest.
type clock struct{ base time.Time }

func (c clock) now() time.Duration { return time.Since(c.base) + 1 }

// SetSlow changes how long a request may take before it is logged; 0: as long as
// it likes. Requests that are under way are judged by the new value when they end;
// while they last, only if slow requests were looked for when they began.
func (d *Device) SetSlow(slow time.Duration) { d.watch.setSlow(max(slow, 0)) }

// call is an operation under way.
type call struct {
	op     Op
	slot   int32 // noSlot: in none
	off, n int64
	start  time.Duration
}

func (d *Device) begin(op Op, off, n int64) call {
	c := call{op: op, slot: noSlot, off: off, n: n, start: d.clock.now()}
	if int(op) < NumOps {
		d.obs.InFlight(op, 1)
	}
	if d.watch.slow.Load() > 0 {
		c.slot = d.watch.enter(&c)
	}
	return c
}

func (d *Device) end(c *call, err error) {
	took := d.clock.now() - c.start
	if c.slot != noSlot {
		d.watch.slots.free(c.slot)
	}
	if int(c.op) < NumOps {
		d.obs.InFlight(c.op, -1)
		kind := block.OK
		if err != nil {
			kind = block.KindOf(err)
		}
		d.obs.Request(c.op, c.n, took, kind)
	}
	if slow := d.watch.slow.Load(); slow > 0 && int64(took) >= slow {
		d.watch.ended(c, took, err)
	}
}

// Info returns what the Device below can do, as far as it is passed on.
func (d *Device) Info() block.Info {
	info := d.dev.Device.Info()
	info.Caps &= forwarded
	return info
}

// ReadAt passes on.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	c := d.begin(OpRead, off, int64(len(p)))
	err := d.dev.ReadAt(ctx, p, off)
	d.end(&c, err)
	return err
}

// WriteAt passes on.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	c := d.begin(OpWrite, off, int64(len(p)))
	err := d.dev.WriteAt(ctx, p, off, flags)
	d.end(&c, err)
	return err
}

// Flush passes on.
func (d *Device) Flush(ctx context.Context) error {
	c := d.begin(OpFlush, 0, 0)
	err := d.dev.Flush(ctx)
	d.end(&c, err)
	return err
}

// Close closes the Device below, and waits for what watches over it.
func (d *Device) Close() error {
	err := d.dev.Close()
	d.watch.close()
	return err
}
