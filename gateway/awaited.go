package gateway

import (
	"context"
	"sync/atomic"

	"sluice/block"
	"sluice/gateway/spec"
)

// awaited is the Device behind the FUSE file of an export that is being opened after
// a restart: clients that have the file open wait, as if their storage were away. It
// has the powers that every stack has, whatever the image, since swap sees to that.
type awaited struct {
	size int64 // when it was open last
	dev  atomic.Pointer[block.Resolved]
	here chan struct{} // closed when dev is set
}

const awaitedCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapExtents | block.CapNowait | block.CapMultiConn

func newAwaited(size int64) *awaited { return &awaited{size: size, here: make(chan struct{})} }

// arrive lets the waiting calls on.
func (a *awaited) arrive(dev block.Device) {
	a.dev.Store(block.Resolve(dev))
	close(a.here)
}

// wait gives the Device when it is there.
func (a *awaited) wait(ctx context.Context) (*block.Resolved, error) {
	if dev := a.dev.Load(); dev != nil {
		return dev, nil
	}
	select {
	case <-a.here:
		return a.dev.Load(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Info implements block.Device.
func (a *awaited) Info() block.Info {
	info := block.Info{Size: a.size, Block: block.BlockSize{Min: 1, Preferred: 4096}}
	if dev := a.dev.Load(); dev != nil {
		info = dev.Device.Info()
	}
	info.Caps = awaitedCaps
	return info
}

// ReadAt implements block.Device.
func (a *awaited) ReadAt(ctx context.Context, p []byte, off int64) error {
	dev, err := a.wait(ctx)
	if err != nil {
		return err
	}
	return dev.ReadAt(ctx, p, off)
}

// ReadNowait implements block.Nowaiter.
func (a *awaited) ReadNowait(p []byte, off int64) error {
	dev := a.dev.Load()
	if dev == nil {
		return block.ErrWouldBlock
	}
	return dev.Nowaiter.ReadNowait(p, off)
}

// WriteAt implements block.Device.
func (a *awaited) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	dev, err := a.wait(ctx)
	if err != nil {
		return err
	}
	return dev.WriteAt(ctx, p, off, flags)
}

// WriteZeroes implements block.Zeroer.
func (a *awaited) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	dev, err := a.wait(ctx)
	if err != nil {
		return err
	}
	return dev.Zeroer.WriteZeroes(ctx, off, n, flags)
}

// Extents implements block.Extenter.
func (a *awaited) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	dev, err := a.wait(ctx)
	if err != nil {
		return dst, err
	}
	return dev.Extenter.Extents(ctx, off, n, dst)
}

// Flush implements block.Device.
func (a *awaited) Flush(ctx context.Context) error {
	dev, err := a.wait(ctx)
	if err != nil {
		return err
	}
	return dev.Flush(ctx)
}

// Close implements block.Device; the stack is the export's.
func (a *awaited) Close() error { return nil }

// await makes the FUSE file of an export that had one when it was open last, of so
// many bytes. With passthrough there can be none before the image is there.
func (e *export) await(size int64) {
	e.mu.Lock()
	e.last = size
	s := e.spec
	e.mu.Unlock()
	if e.gw.cfg.Files == nil || s.NoFUSE || s.Passthrough || size == 0 {
		return
	}
	a := newAwaited(size)
	if err := e.addFile(s, a); err != nil {
		e.gw.cfg.Log.Error("no FUSE file while the image is not open", "export", e.name, "err", err)
		return
	}
	e.mu.Lock()
	e.awaited = a
	e.mu.Unlock()
}

// arrived gives the FUSE file that was made ahead its device; false where there is
// none.
func (e *export) arrived(s spec.Spec, st *stack) bool {
	e.mu.Lock()
	a := e.awaited
	e.mu.Unlock()
	if a == nil {
		return false
	}
	a.arrive(st.top)
	if err := e.gw.cfg.Files.Resized(s.Name); err != nil {
		e.gw.cfg.Log.Error("FUSE clients were not told of the size", "export", e.name, "err", err)
	}
	return true
}
