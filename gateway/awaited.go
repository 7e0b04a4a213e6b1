package gateway

import (
	"context"

	"sluice/block"
	"sluice/filters/hold"
	"sluice/gateway/spec"
)

// awaited is the Device behind the FUSE file of an export that is being opened after
// a restart. To clients that have the file open it is an image whose storage is away,
// and the error policy says what that means: see docs/error-policy.md. It has the
// powers that every stack has, whatever the image, since swap sees to that.
//
// A request's way, until the image is there:
//
//  1. The hold filter of its own, over absent, lets it through or has it wait.
//  2. absent says that the storage is away, and the filter does what the policy
//     says; or it gives the request to the image that is there at last.
//
// Once the image is there, requests go straight to the export's stack.
type awaited struct {
	*absent
	hold    *hold.Device
	waiting *block.Resolved // hold
}

func newAwaited(name string, size int64, policy hold.Policy) *awaited {
	a := &awaited{absent: &absent{name: name, size: size, tried: make(chan struct{})}}
	a.hold = hold.New(a.absent, hold.Config{Policy: policy, Object: name, Changed: a.changed})
	a.policy, a.waiting = a.hold.Policy, block.Resolve(a.hold)
	return a
}

// arrive lets the waiting calls on. If one has failed under a policy that lets no
// change follow then, the image comes frozen.
func (a *awaited) arrive(st *stack) {
	a.stack.Store(st)            // from here on changed freezes it, before the call has its error
	a.freeze(st, a.hold.State()) // by a call before, or one that is about to tell
	a.dev.Store(block.Resolve(st.top))
	a.ended(nil)
	a.hold.Resume() // tells first of a call that has frozen it meanwhile
}

// changed is told by the filter; a call that met nothing may say so when the image
// has arrived.
func (a *awaited) changed(now hold.State) {
	if st := a.stack.Load(); st != nil {
		a.freeze(st, now)
	}
}

func (a *awaited) freeze(st *stack, now hold.State) {
	if now.Status == hold.Frozen {
		st.hold.Freeze(now.Err)
	}
}

// failed tells that an attempt to open the image has failed, and whether there will
// be another. Where not, nobody waits any longer, whatever the policy.
func (a *awaited) failed(err error, again bool) {
	kind := block.IO
	if again {
		kind = block.Transient
	}
	a.ended(block.Errorf(kind, "open", a.name, -1, "its image is not open: %s", err))
	if !again {
		a.hold.Resume()
	}
}

// anew tells that after a failure for good it is tried again.
func (a *awaited) anew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why, a.tried = nil, make(chan struct{})
}

// to gives what a call is to be made on.
func (a *awaited) to() *block.Resolved {
	if dev := a.dev.Load(); dev != nil {
		return dev
	}
	return a.waiting
}

// ReadAt implements block.Device.
func (a *awaited) ReadAt(ctx context.Context, p []byte, off int64) error {
	return a.to().ReadAt(ctx, p, off)
}

// WriteAt implements block.Device.
func (a *awaited) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	return a.to().WriteAt(ctx, p, off, flags)
}

// WriteZeroes implements block.Zeroer.
func (a *awaited) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	return a.to().Zeroer.WriteZeroes(ctx, off, n, flags)
}

// Extents implements block.Extenter.
func (a *awaited) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return a.to().Extenter.Extents(ctx, off, n, dst)
}

// Flush implements block.Device.
func (a *awaited) Flush(ctx context.Context) error { return a.to().Flush(ctx) }

// await makes the FUSE file of an export that had one when it was open last, of so
// many bytes. With passthrough there can be none before the image is there.
func (e *export) await(size int64) {
	e.mu.Lock()
	e.last = size
	s := e.spec
	e.mu.Unlock()
	if e.gw.files.Load() == nil || s.NoFUSE || s.Passthrough || size == 0 {
		return
	}
	a := newAwaited(s.Name, size, s.OnError.Hold())
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
	a.arrive(st)
	files := e.gw.files.Load()
	if files == nil {
		return true
	}
	if _, err := files.ID(s.Name); err != nil {
		return false // the mount is another one now
	}
	if err := files.Resized(s.Name); err != nil {
		e.gw.cfg.Log.Error("FUSE clients were not told of the size", "export", e.name, "err", err)
	}
	return true
}
