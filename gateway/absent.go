package gateway

import (
	"context"
	"sync"
	"sync/atomic"

	"sluice/block"
	"sluice/filters/hold"
)

// absent is the storage that is away: an image that is not open yet.
type absent struct {
	name   string
	size   int64 // when it was open last
	policy func() hold.Policy
	dev    atomic.Pointer[block.Resolved]
	stack  atomic.Pointer[stack]

	mu    sync.Mutex    // guards all below
	tried chan struct{} // closed when the first attempt has ended
	why   error         // it failed, or the last that did; nil before
}

const awaitedCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapExtents | block.CapNowait | block.CapMultiConn

// ended notes the outcome of an attempt.
func (a *absent) ended(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = why
	select {
	case <-a.tried:
	default:
		close(a.tried)
	}
}

// get gives the image, or says that it is away. Where the policy is to fail, what
// comes during the first attempt waits for that, as it would for any storage: a
// restart is no failure.
func (a *absent) get(ctx context.Context) (*block.Resolved, error) {
	for {
		if dev := a.dev.Load(); dev != nil {
			return dev, nil
		}
		a.mu.Lock()
		tried, why := a.tried, a.why
		a.mu.Unlock()
		switch {
		case why != nil:
			return nil, why
		case a.policy().Mode == hold.Wait:
			return nil, block.Errorf(block.Transient, "open", a.name, -1, "its image is being opened")
		}
		select {
		case <-tried:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Info implements block.Device.
func (a *absent) Info() block.Info {
	info := block.Info{Size: a.size, Block: block.BlockSize{Min: 1, Preferred: 4096}}
	if dev := a.dev.Load(); dev != nil {
		info = dev.Device.Info()
	}
	info.Caps = awaitedCaps
	return info
}

// Close implements block.Device; the stack is the export's.
func (a *absent) Close() error { return nil }

// ReadNowait implements block.Nowaiter.
func (a *absent) ReadNowait(p []byte, off int64) error {
	dev := a.dev.Load()
	if dev == nil {
		return block.ErrWouldBlock
	}
	return dev.Nowaiter.ReadNowait(p, off)
}

// ReadAt implements block.Device.
func (a *absent) ReadAt(ctx context.Context, p []byte, off int64) error {
	dev, err := a.get(ctx)
	if err != nil {
		return err
	}
	return dev.ReadAt(ctx, p, off)
}

// WriteAt implements block.Device.
func (a *absent) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	dev, err := a.get(ctx)
	if err != nil {
		return err
	}
	return dev.WriteAt(ctx, p, off, flags)
}

// WriteZeroes implements block.Zeroer.
func (a *absent) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	dev, err := a.get(ctx)
	if err != nil {
		return err
	}
	return dev.Zeroer.WriteZeroes(ctx, off, n, flags)
}

// Extents implements block.Extenter.
func (a *absent) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	dev, err := a.get(ctx)
	if err != nil {
		return dst, err
	}
	return dev.Extenter.Extents(ctx, off, n, dst)
}

// Flush implements block.Device.
func (a *absent) Flush(ctx context.Context) error {
	dev, err := a.get(ctx)
	if err != nil {
		return err
	}
	return dev.Flush(ctx)
}
