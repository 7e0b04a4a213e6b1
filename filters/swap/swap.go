package swap

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/block/gate"
)

// Device is a Device whose storage can be exchanged.
type Device struct {
	current atomic.Pointer[generation]
	resize  block.Cap // CapResize, if the first Device had it
	pins    pins
	stats   stats

	mu      sync.Mutex
	undone  []*generation  // whose gate is closed and whose calls were not waited for to the end
	running sync.WaitGroup // goroutines
}

// generation is a Device from one exchange to the next.
type generation struct {
	dev     *block.Resolved
	gate    gate.Gate
	next    chan struct{} // closed when the generation after this one is current
	drained chan struct{} // closed when the gate is closed and nobody is inside
	closed  bool          // the last one: Device.Close was called
}

func newGeneration(dev block.Device) *generation {
	return &generation{dev: block.Resolve(dev), next: make(chan struct{}), drained: make(chan struct{})}
}

// New puts dev, which the result owns, behind a Device that can be exchanged.
func New(dev block.Device) *Device {
	d := &Device{resize: dev.Info().Caps & block.CapResize}
	d.current.Store(newGeneration(dev))
	return d
}

// maxLength is the longest request that is promised to work: that of the NBD
// protocol. Devices with a lower limit cannot come in place of one without.
const maxLength = 32 << 20

// lasting are the powers that are there whatever the current Device has: exporters
// and filters look once at what is below them. Where the Device has one of them
// not, it is made up for; see doc.go.
const lasting = block.CapFUA | block.CapZero | block.CapDiscard | block.CapExtents | block.CapDepth | block.CapPrefetch |
	block.CapNowait | block.CapFileRange | block.CapBitmaps

// passing are the powers that are told as they are: nobody stands on them who
// cannot do without. Writes that never wait are not among them, since they wait
// for an exchange.
const passing = block.CapFlush | block.CapSerialWrites | block.CapMultiConn

// Info tells of the current Device.
func (d *Device) Info() block.Info {
	info := promised(d.current.Load().dev.Device.Info())
	info.Caps |= d.resize
	return info
}

// Current tells of the current Device what it says of itself.
func (d *Device) Current() block.Info { return d.current.Load().dev.Device.Info() }

func promised(info block.Info) block.Info {
	info.Caps = info.Caps&passing | lasting
	if info.Block.Max == 0 {
		info.Block.Max = maxLength
	}
	return info
}

// Exchange puts what next returns in the place of the current Device. next is
// called when no call is in the Device and everything written is durable; it owns
// old then, and can close it, keep it (below what it returns), or return it as it
// is, say after resizing it. When next fails, old stays in place and must be as
// it was.
//
// Until Exchange returns, calls wait; none fails because of it. What next returns
// must be Compatible with old. Exchange fails with the error of the flush or of
// next, and with Canceled when ctx ends before the calls inside have ended; in
// each case the old Device goes on.
func (d *Device) Exchange(ctx context.Context, next func(ctx context.Context, old block.Device) (block.Device, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.current.Load()
	if g.closed {
		return closedError("exchange", -1)
	}
	began := time.Now()
	defer func() { d.stats.stalled(time.Since(began)) }()
	if err := d.quiesce(ctx, g); err != nil {
		d.replace(g, g.dev.Device)
		return err
	}
	old := g.dev.Device
	dev, err := old, g.flush(ctx)
	if err == nil {
		dev, err = next(ctx, old)
	}
	if err != nil {
		d.replace(g, old)
		return err
	}
	d.replace(g, dev)
	d.stats.exchanges.Add(1)
	return nil
}

// Swap is Exchange with a Device that is ready. The old one is closed in the
// background, since ranges of it may be pinned; closed is told the outcome and may
// be nil. When Swap fails, with Invalid where dev is not Compatible, dev is the
// caller's.
func (d *Device) Swap(ctx context.Context, dev block.Device, closed func(error)) error {
	return d.Exchange(ctx, func(_ context.Context, old block.Device) (block.Device, error) {
		if err := Compatible(old.Info(), dev.Info()); err != nil {
			return nil, err
		}
		d.running.Go(func() {
			err := old.Close()
			if closed != nil {
				closed(err)
			}
		})
		return dev, nil
	})
}

// Compatible says whether a Device can come in the place of another without its
// clients being told. It fails with Invalid.
func Compatible(old, next block.Info) error {
	old, next = promised(old), promised(next)
	why := ""
	switch {
	case next.Size < old.Size:
		why = "it is smaller"
	case next.ReadOnly && !old.ReadOnly:
		why = "it is read-only"
	case next.Block.Min > old.Block.Min:
		why = "it takes whole blocks only"
	case next.Block.Max < old.Block.Max:
		why = "it takes shorter requests only"
	case old.Has(block.CapMultiConn) && !next.Has(block.CapMultiConn):
		why = "it is not safe for clients with several connections"
	default:
		return nil
	}
	return block.Errorf(block.Invalid, "exchange", "", -1, "the new device cannot take the old one's place: %s", why)
}

// quiesce closes the gate and waits until nobody is inside, of this generation
// and of those before it.
func (d *Device) quiesce(ctx context.Context, g *generation) error {
	d.undone = append(d.undone, g)
	d.running.Go(func() {
		_ = g.gate.Close(func() error { close(g.drained); return nil })
	})
	for len(d.undone) > 0 {
		select {
		case <-d.undone[0].drained:
			d.undone = d.undone[1:]
		case <-ctx.Done():
			return &block.Error{Kind: block.Canceled, Op: "exchange", Off: -1,
				Err: errors.Join(errors.New("requests in progress did not end"), ctx.Err())}
		}
	}
	return nil
}

// flush makes durable what is in the Device, which nobody uses.
func (g *generation) flush(ctx context.Context) error {
	if g.dev.Info.ReadOnly {
		return nil
	}
	return g.dev.Flush(ctx)
}

// replace makes dev current and lets the waiting calls on.
func (d *Device) replace(g *generation, dev block.Device) {
	d.current.Store(newGeneration(dev))
	close(g.next)
}

// Resize resizes the current Device. To shrink it waits, as Exchange does, until
// nothing is in flight.
func (d *Device) Resize(ctx context.Context, size int64) error {
	if size < d.Info().Size {
		return d.Exchange(ctx, func(ctx context.Context, old block.Device) (block.Device, error) {
			r, err := resizerOf(block.Resolve(old))
			if err != nil {
				return nil, err
			}
			return old, r.Resize(ctx, size)
		})
	}
	d.mu.Lock() // no exchange meanwhile: the size is compared there
	defer d.mu.Unlock()
	g := d.current.Load()
	if g.closed {
		return closedError("resize", -1)
	}
	r, err := resizerOf(g.dev)
	if err != nil {
		return err
	}
	return r.Resize(ctx, size)
}

func resizerOf(r *block.Resolved) (block.Resizer, error) {
	if r.Resizer == nil {
		return nil, block.Errorf(block.Unsupported, "resize", "", -1, "the image cannot be resized")
	}
	return r.Resizer, nil
}

// Close waits for an exchange and for the calls in progress and closes the
// current Device, and waits until old ones are closed too.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.current.Load()
	if g.closed {
		return nil
	}
	last := newGeneration(g.dev.Device)
	last.closed = true
	_ = last.gate.Close(func() error { return nil })
	_ = d.quiesce(context.Background(), g)
	d.current.Store(last)
	close(g.next)
	err := g.dev.Close()
	d.running.Wait()
	return err
}

func closedError(op string, off int64) error { return block.Errorf(block.Closed, op, "", off, "") }

// enter begins a call on the current Device, which ends with leave. While an
// exchange is under way it waits.
func (d *Device) enter(ctx context.Context, op string, off int64) (*generation, error) {
	for {
		g := d.current.Load()
		if g.gate.Enter() {
			return g, nil
		}
		if g.closed {
			return nil, closedError(op, off)
		}
		select {
		case <-g.next:
		case <-ctx.Done():
			return nil, ctx.Err() // the call has touched nothing
		}
	}
}

func (g *generation) leave() { g.gate.Leave() }
