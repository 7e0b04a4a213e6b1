package hold

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"sluice/block"
)

// Config says how a Device behaves.
type Config struct {
	Policy Policy
	Log    *slog.Logger // told of each change of state; nil: nobody
	Object string       // the Device's name in errors and messages

	// Changed is called after each change of state, one call at a time, with the
	// state as it is then. It should return soon, since a request may wait for it,
	// and may call State and Counts, but nothing else of the Device. May be nil.
	Changed func(State)
}

// Device is a Device around a Device. It owns the one below.
type Device struct {
	dev   *block.Resolved
	cfg   Config
	state atomic.Uint32 // bits of what is amiss; changed under mu

	version atomic.Uint64 // counts changes of the state; changed under mu

	mu     sync.Mutex // guards all below
	policy Policy
	away   outage
	full   outage
	frozen trouble
	counts counts
	losses losses

	telling     sync.Mutex // guards all below
	told        State
	toldVersion atomic.Uint64 // read without telling, too

	closing sync.Once
	held    sync.WaitGroup // requests in queues, or on their way out of them
}

// The bits of Device.state.
const (
	isAway uint32 = 1 << iota
	isFull
	isFrozen
	isClosed
)

// forwarded are the powers that the Device passes on.
const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapResize | block.CapNowait | block.CapFileRange | block.CapBitmaps |
	block.CapMultiConn | block.CapSerialWrites | block.CapStart

// New puts a Device around dev.
func New(dev block.Device, cfg Config) *Device {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Device{
		dev: block.Resolve(dev), cfg: cfg, policy: cfg.Policy,
		away: outage{kind: block.Transient, bit: isAway, pace: standardPace},
		full: outage{kind: block.NoSpace, bit: isFull, pace: standardPace},
		told: State{Status: Serving},
	}
}

// Info returns what the Device below can do, as far as it is passed on.
func (d *Device) Info() block.Info {
	info := d.dev.Device.Info()
	info.Caps &= forwarded
	return info
}

// Close sends the requests that wait home, with kind Closed, closes the Device
// below and waits for both.
func (d *Device) Close() error {
	var err error
	d.closing.Do(func() {
		d.shut()
		err = d.dev.Close() // which ends what is in there; only then all can go
		d.held.Wait()
	})
	return err
}

// ReadAt fills p with the bytes at off.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if d.state.Load()&blocksRead != 0 {
		return d.join(ctx, request{op: opRead, p: p, off: off, n: int64(len(p))})
	}
	err := d.dev.ReadAt(ctx, p, off)
	if err == nil {
		return nil
	}
	return d.failed(ctx, request{op: opRead, p: p, off: off, n: int64(len(p))}, err)
}

// WriteAt stores p at off. p has to stay as it is until the call returns: it may
// be written several times.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if d.state.Load()&blocksWrite != 0 {
		return d.join(ctx, request{op: opWrite, p: p, off: off, n: int64(len(p)), flags: flags})
	}
	err := d.dev.WriteAt(ctx, p, off, flags)
	if err == nil {
		return nil
	}
	return d.failed(ctx, request{op: opWrite, p: p, off: off, n: int64(len(p)), flags: flags}, err)
}

// Flush makes durable every write that completed before the call.
func (d *Device) Flush(ctx context.Context) error {
	seen := d.losses.count.Load()
	if d.state.Load()&blocksRead != 0 {
		return d.join(ctx, request{op: opFlush, losses: seen})
	}
	err := d.dev.Flush(ctx)
	if err == nil {
		return nil
	}
	return d.failed(ctx, request{op: opFlush, losses: seen}, err)
}
