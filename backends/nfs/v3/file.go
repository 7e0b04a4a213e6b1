package v3

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
	"sluice/block/gate"
)

// File implements remote.File.
type File struct {
	c       *Client
	path    string
	kept    remote.Kept // nil: nothing is kept
	id      remote.FileID
	limits  remote.Limits
	maxSize uint64 // that a file can have; 0: not known

	handle atomic.Pointer[handle] // the last one known

	// verifier is the last one seen, if seen says that there was one.
	verifier atomic.Uint64
	seen     atomic.Bool

	gate    gate.Gate     // of all calls
	closing chan struct{} // closed by Close: ends all waiting that can be ended
	once    sync.Once
	moving  chan struct{} // a token: held by who looks the path up again

	verifying sync.Mutex // held while kept is asked
	mu        sync.Mutex
	cancel    context.CancelFunc // ends that; nil at other times
}

var (
	_ remote.File    = (*File)(nil)
	_ remote.Limiter = (*File)(nil)
)

// Open implements remote.Client. NFSv3 knows no open: what is found out is that the
// file is there, may be used, and how long a payload may be.
func (c *Client) Open(ctx context.Context, path string, opts remote.OpenOptions) (remote.File, error) {
	n, err := c.walk(ctx, c, path, true)
	if err != nil {
		return nil, err
	}
	if n.Type != remote.Regular {
		return nil, notRegular(n.Type)
	}
	if err := c.permit(ctx, n.fh, opts.Write); err != nil {
		return nil, err
	}
	limits, maxSize, err := c.limits(ctx, n.fh)
	if err != nil {
		return nil, err
	}
	f := &File{
		c: c, path: path, kept: opts.Kept, id: n.ID, limits: limits, maxSize: maxSize,
		closing: make(chan struct{}), moving: make(chan struct{}, 1),
	}
	f.handle.Store(&n.fh)
	if opts.Write && !opts.Share {
		c.unshared.Do(func() {
			c.cfg.Logger.Info("NFSv3 has no share reservations: other clients are not kept from writing to what is open here", "server", c.server)
		})
	}
	return f, c.adopt(f)
}

// adopt counts a file as open.
func (c *Client) adopt(f *File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return block.Closed
	}
	c.files[f] = struct{}{}
	return nil
}

func notRegular(t remote.Type) error {
	if t == remote.Directory {
		return faultf(block.Invalid, "it is a directory")
	}
	return faultf(block.Invalid, "it is not a regular file")
}

// permit asks whether a file may be read, and written to. Servers answer for the user of
// the calls; one that cannot is not believed to forbid it.
func (c *Client) permit(ctx context.Context, fh handle, write bool) error {
	want := uint32(accessRead)
	if write {
		want |= accessModify
	}
	r, err := c.ask(ctx, procAccess, xdr.AppendUint32(xdr.AppendOpaque(nil, fh), want))
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	skipPost(&r.Reader)
	granted := r.Uint32()
	if err := r.check(); err != nil {
		return err
	}
	if granted&want != want {
		return &nfsstat.Error{Op: "ACCESS", Status: nfsstat.Access}
	}
	return nil
}

// limits asks for those of a file's file system.
func (c *Client) limits(ctx context.Context, fh handle) (remote.Limits, uint64, error) {
	r, err := c.ask(ctx, procFSInfo, xdr.AppendOpaque(nil, fh))
	if err != nil {
		return remote.Limits{}, 0, err
	}
	skipPost(&r.Reader)
	read := r.Uint32()
	r.Skip(8) // rtpref, rtmult
	written := r.Uint32()
	r.Skip(12) // wtpref, wtmult, dtpref
	maxSize := r.Uint64()
	r.Skip(12) // time_delta, properties
	limits := remote.Limits{Read: ioLimit(c.cfg.MaxIO, read), Write: ioLimit(c.cfg.MaxIO, written)}
	return limits, maxSize, r.check()
}

// ioLimit is how long a payload can be: a multiple of 4096 where the server's limit is
// not below that. A limit of 0 is none.
func ioLimit(asked int, server uint32) int {
	n := int64(asked)
	if server > 0 {
		n = min(n, int64(server))
	}
	if n > 4096 {
		n &^= 4095
	}
	return int(n)
}

// Limits implements remote.Limiter.
func (f *File) Limits() remote.Limits { return f.limits }

func (f *File) patience() patience { return patience{limit: f.c.cfg.Patience, closing: f.closing} }

// again sees to it that a call which failed can be made again, or gives the error that
// it ends with. used is the handle that it was made with.
func (f *File) again(ctx context.Context, wait *patience, used *handle, err error) error {
	switch {
	case f.isClosing():
		return block.Closed
	case statusOf(err) == nfsstat.Delay:
		return wait.wait(ctx, err)
	case isStale(err) && !wait.moved:
		wait.moved = true
		return f.find(ctx, used, err)
	}
	return err
}

// find looks the path up again after a call with a handle failed as stale. Of those who
// come at the same time one does so.
func (f *File) find(ctx context.Context, used *handle, stale error) error {
	select {
	case f.moving <- struct{}{}:
	case <-f.closing:
		return block.Closed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.moving }()
	return f.relocate(ctx, f.c, used, stale)
}

// relocate takes the handle that the path leads to now, if it is that of the same file.
func (f *File) relocate(ctx context.Context, a asker, used *handle, stale error) error {
	if f.handle.Load() != used {
		return nil
	}
	n, err := f.c.walk(ctx, a, f.path, true)
	switch {
	case errors.Is(err, block.NotFound):
		return &fault{kind: block.IO, text: "the file was removed while it was open", cause: stale}
	case err != nil:
		return err
	case n.ID != f.id || n.Type != remote.Regular:
		return &fault{kind: block.IO, text: "the file was replaced while it was open", cause: stale}
	case bytes.Equal(n.fh, *used):
		return stale
	}
	f.handle.CompareAndSwap(used, &n.fh)
	return nil
}

// maxVerifiers bounds what is remembered of a server that has a new one each time.
const maxVerifiers = 1024

// see notes the verifier of a reply and reports whether it is not the one before.
func (f *File) see(v remote.Verifier) (changed bool) {
	if f.seen.Load() && f.verifier.Load() == uint64(v) {
		return false
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	changed = f.seen.Load() && f.verifier.Load() != uint64(v)
	f.verifier.Store(uint64(v))
	f.seen.Store(true)
	// Another file may have met the new instance first.
	if _, known := f.c.verifiers[v]; !known {
		if len(f.c.verifiers) >= maxVerifiers { // no sane server has been that many
			clear(f.c.verifiers)
		}
		f.c.verifiers[v] = struct{}{}
		if changed {
			f.c.recoveries++
		}
	}
	return changed
}

// ask makes a call on the file that is not of the data path. args appends its arguments
// for a handle.
func (f *File) ask(ctx context.Context, proc uint32, args func(fh handle) []byte) (result, error) {
	if !f.gate.Enter() {
		return result{}, block.Closed
	}
	defer f.gate.Leave()
	wait := f.patience()
	for {
		fh := f.handle.Load()
		r, err := f.c.once(ctx, f.closing, proc, args(*fh))
		if err == nil {
			return r, nil
		}
		if err = f.again(ctx, &wait, fh, err); err != nil {
			return r, err
		}
	}
}

// Attr implements remote.File.
func (f *File) Attr(ctx context.Context) (remote.Attr, error) {
	r, err := f.ask(ctx, procGetAttr, func(fh handle) []byte { return xdr.AppendOpaque(nil, fh) })
	if err != nil {
		return remote.Attr{}, err
	}
	var a attributes
	a.read(&r.Reader)
	return a.Attr, r.check()
}

// Truncate implements remote.File.
func (f *File) Truncate(ctx context.Context, size int64) error {
	if f.maxSize > 0 && uint64(size) > f.maxSize {
		return &nfsstat.Error{Op: "SETATTR", Status: nfsstat.FBig}
	}
	r, err := f.ask(ctx, procSetAttr, func(fh handle) []byte {
		return appendSetAttr(nil, fh, remote.SetAttr{Size: &size}, false)
	})
	if err != nil {
		return err
	}
	skipWCC(&r.Reader)
	return r.check()
}

// Close implements remote.File. The server knows nothing of it.
func (f *File) Close() error {
	f.once.Do(func() {
		close(f.closing)
		f.mu.Lock()
		if f.cancel != nil {
			f.cancel()
		}
		f.mu.Unlock()
	})
	return f.gate.Close(func() error {
		f.c.mu.Lock()
		delete(f.c.files, f)
		f.c.mu.Unlock()
		f.verifying.Lock() // a connection that is being revived may be at it
		defer f.verifying.Unlock()
		return nil
	})
}

func (f *File) isClosing() bool {
	select {
	case <-f.closing:
		return true
	default:
		return false
	}
}
