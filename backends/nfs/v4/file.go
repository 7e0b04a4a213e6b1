package v4

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
	"sluice/block/gate"
)

// File implements remote.File and its optional powers.
type File struct {
	c      *Client
	path   string
	opts   remote.OpenOptions
	owner  string // of the open: each File has its own, so that two of them exclude each other
	fh     handle
	id     remote.FileID
	limits remote.Limits

	state atomic.Pointer[stateID] // the last one known
	lost  atomic.Bool             // the server does not know it any more

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when lost or err change
	err     error         // for good

	gate    gate.Gate // of do
	once    sync.Once
	left    atomic.Bool   // closed, but not yet at the server: keep sees to it
	closing chan struct{} // closed by Close: calls that the server does not answer end

	got       opened // keep's, or Open's: the result of the last OPEN
	restarted bool   // keep's: the server was restarted, not only the lease lost
}

var (
	_ remote.File      = (*File)(nil)
	_ remote.Limiter   = (*File)(nil)
	_ remote.Seeker    = (*File)(nil)
	_ remote.Allocator = (*File)(nil)
	_ remote.Copier    = (*File)(nil)
)

// opened is the result of OPEN.
type opened struct {
	state      stateID
	delegation *stateID
	attr       attributes
}

var fileNumber atomic.Uint64

// Open implements remote.Client.
func (c *Client) Open(ctx context.Context, path string, opts remote.OpenOptions) (remote.File, error) {
	fh, a, err := c.walk(ctx, path, true)
	if err != nil {
		return nil, err
	}
	if a.Type != remote.Regular {
		return nil, notRegular(a.Type)
	}
	f := c.newFile(path, opts)
	f.fh, f.id = fh, a.ID
	if err := c.openNew(ctx, f); err != nil {
		return nil, openError(err)
	}
	if err := f.adopt(); err != nil {
		_ = c.do(ctx, f.closeOf(func() stateID { return f.got.state }))
		return nil, err
	}
	c.mu.Lock()
	c.files[f] = struct{}{}
	c.mu.Unlock()
	f.returnDelegation(ctx)
	if err := f.probe(ctx); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// openNew opens a file. What denies it may be an open of our own that could not be
// closed yet: that is waited for.
func (c *Client) openNew(ctx context.Context, f *File) error {
	var pause patience
	for {
		err := c.do(ctx, f.opening(claimFH))
		if statusOf(err) != nfsstat.ShareDenied || !c.closesYet() || !pause.wait(ctx, c.cfg.Patience) {
			return err
		}
	}
}

// closesYet reports whether files of ours are to be closed at the server yet.
func (c *Client) closesYet() bool {
	for _, f := range c.openFiles() {
		if f.left.Load() {
			return true
		}
	}
	return false
}

func (c *Client) newFile(path string, opts remote.OpenOptions) *File {
	return &File{
		c: c, path: path, opts: opts, owner: strconv.FormatUint(fileNumber.Add(1), 10),
		changed: make(chan struct{}), closing: make(chan struct{}),
	}
}

func notRegular(t remote.Type) error {
	what := "not a regular file"
	if t == remote.Directory {
		what = "a directory"
	}
	return fmt.Errorf("it is %s%w", what, quiet{block.Invalid})
}

func openError(err error) error {
	if statusOf(err) == nfsstat.ShareDenied {
		return fmt.Errorf("another client has it open and denies it to others (%w)", err)
	}
	return err
}

// opening is an OPEN of the file, by its handle or as a reclaim, with what is to be
// known of it.
func (f *File) opening(claim uint32) *chain {
	f.got = opened{}
	return &chain{keep: true, steps: []step{
		putFH(f.fh),
		{op: opOpen, args: func(b []byte) []byte { return f.appendOpen(b, claim) }, result: func(r *results) { readOpen(r, &f.got) }},
		getAttr(openAttrs, &f.got.attr),
	}}
}

func (f *File) appendOpen(b []byte, claim uint32) []byte {
	access, deny := uint32(shareRead), uint32(denyNone)
	if f.opts.Write {
		access = shareRead | shareWrite
		if !f.opts.Share {
			deny = denyWrite
		}
	}
	b = xdr.AppendUint32(b, 0) // seqid, unused in sessions
	b = xdr.AppendUint32(b, access|shareNoDeleg)
	b = xdr.AppendUint32(b, deny)
	b = xdr.AppendUint64(b, 0) // the session tells the client id
	b = xdr.AppendString(b, f.owner)
	b = xdr.AppendUint32(b, openNoCreate)
	b = xdr.AppendUint32(b, claim)
	if claim == claimPrevious {
		b = xdr.AppendUint32(b, delegNone)
	}
	return b
}

func readOpen(r *results, got *opened) {
	got.state = readStateID(r)
	readChange(r)
	r.Uint32()
	readBitmap(&r.Reader)
	switch r.Uint32() {
	case delegNone:
	case delegRead:
		got.delegation = readDelegation(r, false)
	case delegWrite:
		got.delegation = readDelegation(r, true)
	case delegNoneExt:
		if why := r.Uint32(); why == whyContention || why == whyResource {
			r.Bool()
		}
	default:
		r.Fail()
	}
}

func readDelegation(r *results, write bool) *stateID {
	id := readStateID(r)
	r.Bool()
	if write {
		r.Uint32() // whatever the kind of limit, it takes as much room
		r.Uint64()
	}
	r.Uint32()
	r.Uint32()
	r.Uint32()
	r.Opaque(maxName)
	return &id
}

// adopt makes the result of an OPEN the file's state.
func (f *File) adopt() error {
	a := &f.got.attr
	if a.has.has(attrFileID) && a.has.has(attrFSID) && a.ID != f.id || a.has.has(attrType) && a.Type != remote.Regular {
		return fmt.Errorf("the server's handle is another file's now%w", quiet{block.IO})
	}
	f.id = a.ID
	state := f.got.state
	f.state.Store(&state)
	f.lost.Store(false)
	f.tell(nil)
	return nil
}

// tell wakes those who wait for the state, and says what is wrong for good.
func (f *File) tell(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// fail ends the file: all calls give the error.
func (f *File) fail(err error) {
	f.tell(err)
	f.lost.Store(true) // so that calls look
}

func (f *File) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func lostFile(err error) error {
	if statusOf(err) == nfsstat.ShareDenied {
		return fmt.Errorf("another client has opened it while the server had lost our state (%w)%w", err, quiet{block.Fenced})
	}
	return fmt.Errorf("it could not be opened again after the server had lost our state: %w", err)
}

// isLost reports whether the file has to be opened again.
func (f *File) isLost() bool { return f.lost.Load() && f.failed() == nil }

// stateID is the last one known.
func (f *File) stateID() stateID { return *f.state.Load() }

// lose notes that the server does not know a stateid any more.
func (f *File) lose(id stateID) {
	if f.stateID() == id {
		f.lost.Store(true)
		f.c.rouse()
	}
}

// do carries out an operation that needs the file open.
func (f *File) do(ctx context.Context, op operation) error {
	if !f.gate.Enter() {
		return block.Closed
	}
	defer f.gate.Leave()
	patience := patience{closing: f.closing}
	for {
		if f.lost.Load() {
			if err := f.await(ctx, &patience); err != nil {
				return err
			}
		}
		before := f.state.Load()
		err := f.c.try(ctx, op, &patience)
		if err == nil || !stateLost(statusOf(err)) {
			return f.ended(err)
		}
		if f.state.Load() == before {
			f.lose(*before)
		}
		if !patience.wait(ctx, f.c.cfg.Patience) {
			return transient(err)
		}
	}
}

// ended is the error of a call: Closed is what counts where it was given up for that.
func (f *File) ended(err error) error {
	if err != nil {
		select {
		case <-f.closing:
			return block.Closed
		default:
		}
	}
	return err
}

// stateLost reports whether a status says that the open is not there any more.
func stateLost(s nfsstat.Status) bool {
	switch s {
	case nfsstat.BadStateID, nfsstat.OldStateID, nfsstat.StaleStateID, nfsstat.Expired, nfsstat.AdminRevoked, nfsstat.DelegRevoked:
		return true
	}
	return false
}

// await waits until the file is open again.
func (f *File) await(ctx context.Context, p *patience) error {
	for {
		f.mu.Lock()
		err, changed := f.err, f.changed
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if !f.lost.Load() {
			return nil
		}
		left := p.left(f.c.cfg.Patience)
		if left <= 0 {
			return transient(errors.New("the server has lost the open and does not give it back yet"))
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-p.closing:
			err = block.Closed
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// returnDelegation gives back what was not asked for.
func (f *File) returnDelegation(ctx context.Context) {
	if f.got.delegation == nil {
		return
	}
	id := *f.got.delegation
	f.got.delegation = nil
	_ = f.c.do(ctx, &chain{steps: []step{
		putFH(f.fh), {op: opDelegReturn, args: func(b []byte) []byte { return appendStateID(b, id) }},
	}})
}

// probe finds out what the server can do with the file.
func (f *File) probe(ctx context.Context) error {
	c, granted, a := f.c, f.c.granted.Load(), &f.got.attr
	f.limits = remote.Limits{
		Read:  ioLimit(c.cfg.MaxIO, a.has.has(attrMaxRead), a.maxRead, granted.maxResponse),
		Write: ioLimit(c.cfg.MaxIO, a.has.has(attrMaxWrite), a.maxWrite, granted.maxRequest),
	}
	if c.minor < 2 {
		return nil
	}
	f.limits.Copy = true
	_, _, err := f.Seek(ctx, 0, false)
	if f.limits.Seek, err = can(err); err != nil {
		return err
	}
	if !f.opts.Write {
		return nil
	}
	// Beyond the end there is nothing to free.
	err = f.Deallocate(ctx, f.got.attr.Size, 1)
	f.limits.Allocate, err = can(err)
	return err
}

// can takes the outcome of a probe: an error that is one of the server's refusals
// says no.
func can(err error) (bool, error) {
	if err == nil {
		return true, nil
	}
	if statusOf(err) != nfsstat.OK {
		return false, nil
	}
	return false, err
}

// ioLimit is how long a payload can be.
func ioLimit(asked int, told bool, limit uint64, channel uint32) int {
	n := min(asked, int(channel)-overhead)
	if told && limit > 0 && limit < uint64(n) {
		n = int(limit)
	}
	if n > 4096 {
		n &^= 4095
	}
	return max(n, 512)
}

// Limits implements remote.Limiter.
func (f *File) Limits() remote.Limits { return f.limits }

// Attr implements remote.File.
func (f *File) Attr(ctx context.Context) (remote.Attr, error) {
	var a attributes
	err := f.do(ctx, &chain{steps: []step{putFH(f.fh), getAttr(fileAttrs, &a)}})
	return a.Attr, err
}

// Truncate implements remote.File.
func (f *File) Truncate(ctx context.Context, size int64) error {
	return f.do(ctx, &chain{changes: true, steps: []step{putFH(f.fh), {
		op:     opSetAttr,
		args:   func(b []byte) []byte { return appendSet(appendStateID(b, f.stateID()), remote.SetAttr{Size: &size}) },
		result: func(r *results) { readBitmap(&r.Reader) },
	}}})
}

// closeTime is how long a server has to answer CLOSE.
const closeTime = time.Second

// Close implements remote.File.
func (f *File) Close() error {
	f.once.Do(func() {
		close(f.closing)
		f.c.abandonStarted(f)
	})
	return f.gate.Close(f.release)
}

// release closes the file at the server, or leaves that to keep: an open that stays
// would be in the way of the next.
func (f *File) release() error {
	c := f.c
	if f.state.Load() == nil || f.failed() != nil {
		c.forget(f)
		return nil
	}
	if s := c.current.Load(); s != nil && !f.lost.Load() && c.transports[0].Connected() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := c.do(ctx, f.closeOp()); err == nil || statusOf(err) != nfsstat.OK {
			c.forget(f)
			return nil
		}
	}
	f.left.Store(true)
	c.rouse()
	return nil
}

// closeOp is CLOSE of the file's open, which can become another while it is tried.
func (f *File) closeOp() *chain { return f.closeOf(f.stateID) }

// closeOf is CLOSE of an open.
func (f *File) closeOf(id func() stateID) *chain {
	return &chain{steps: []step{putFH(f.fh), {
		op:     opClose,
		args:   func(b []byte) []byte { return appendStateID(xdr.AppendUint32(b, 0), id()) },
		result: func(r *results) { readStateID(r) },
	}}}
}
