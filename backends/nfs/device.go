package nfs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
	"sluice/block/gate"
)

// Device is an open file of a server.
type Device struct {
	url    string // for errors; without parameters
	client *shared
	file   remote.File

	// The file's optional powers; nil where the server has them not.
	seeker    remote.Seeker
	allocator remote.Allocator
	copier    remote.Copier
	starter   remote.Starter

	info         block.Info // all but Size, fixed when opened
	size         atomic.Int64
	rsize, wsize int // longest single READ and WRITE

	gate gate.Gate
	once sync.Once // the first Close

	// What turned out not to work.
	noFree, noClone, noCopy atomic.Bool

	log     *unstable.Log // what is written and not committed; nil on a Device that takes no writes
	commits commits
}

// open opens the image that the configuration names.
func open(ctx context.Context, clients *pool, cfg Config, opts block.OpenOptions) (*Device, error) {
	if opts.Held && !cfg.ReconnectAsked {
		cfg.Reconnect = heldReconnect
	}
	client, err := clients.get(ctx, &cfg)
	if err != nil {
		return nil, block.Wrap(err, "open", cfg.url(cfg.Path), -1)
	}
	d := &Device{url: cfg.url(cfg.Path), client: client}
	d.info.ReadOnly = opts.ReadOnly
	if err := d.openFile(ctx, &cfg, opts); err != nil {
		_ = client.release() // the first error is the one to tell
		return nil, openError(d.url, err)
	}
	if !opts.ReadOnly {
		d.commits.start(d)
	}
	return d, nil
}

// openFile opens the file and finds out what it is and can do.
func (d *Device) openFile(ctx context.Context, cfg *Config, opts block.OpenOptions) error {
	ask := remote.OpenOptions{Write: !opts.ReadOnly, Share: cfg.Share.Or(opts.Share) || opts.Unlocked}
	if ask.Write {
		d.log = unstable.New(cfg.Keep)
		d.commits.init()
		ask.Kept = kept{d}
	}
	var err error
	if d.file, err = d.client.client.Open(ctx, cfg.Path, ask); err == nil {
		if err = d.setUp(ctx, cfg); err == nil {
			return nil
		}
		_ = d.file.Close()
	}
	if d.log != nil {
		d.log.Close()
	}
	return err
}

func openError(url string, err error) error {
	if block.KindOf(err) == block.Busy {
		return block.Errorf(block.Busy, "open", url, -1,
			"another has it open and does not share it for writing (--share or share=on shares it, if all of them do): %w", err)
	}
	return block.Wrap(err, "open", url, -1)
}

// setUp fills in the rest.
func (d *Device) setUp(ctx context.Context, cfg *Config) error {
	a, err := d.file.Attr(ctx)
	if err != nil {
		return err
	}
	if a.Size < 0 {
		return block.Errorf(block.IO, "open", d.url, -1, "the server gives its size as %d", a.Size)
	}
	d.size.Store(a.Size)
	limits := remote.Limits{}
	if l, ok := d.file.(remote.Limiter); ok {
		limits = l.Limits()
	}
	d.rsize, d.wsize = cfg.ReadSize, cfg.WriteSize
	if limits.Read > 0 {
		d.rsize = min(d.rsize, limits.Read)
	}
	if limits.Write > 0 {
		d.wsize = min(d.wsize, limits.Write)
	}
	if limits.Seek {
		d.seeker, _ = d.file.(remote.Seeker)
	}
	if limits.Allocate {
		d.allocator, _ = d.file.(remote.Allocator)
	}
	if limits.Copy {
		d.copier, _ = d.file.(remote.Copier)
	}
	d.starter, _ = d.file.(remote.Starter)
	d.info.Block = block.BlockSize{Min: 1, Preferred: 4096}
	d.info.Caps = d.capabilities()
	return nil
}

// capabilities tells what works on the open file.
func (d *Device) capabilities() block.Cap {
	caps := block.CapFlush | block.CapMultiConn
	if d.seeker != nil {
		caps |= block.CapExtents
	}
	if d.starter != nil {
		caps |= block.CapStart
	}
	if d.info.ReadOnly {
		return caps
	}
	caps |= block.CapFUA | block.CapZero | block.CapResize
	if d.allocator != nil {
		caps |= block.CapDiscard
	}
	if d.copier != nil {
		caps |= block.CapCopy
	}
	return caps
}

// Info tells what the Device can do.
func (d *Device) Info() block.Info {
	info := d.info
	info.Size = d.size.Load()
	return info
}

// StorageReport implements block.Reporter.
func (d *Device) StorageReport() block.StorageReport {
	s := d.client.client.Status()
	r := block.StorageReport{
		Protocol: "nfs " + s.Version, Connected: s.Connected, Wanted: s.Wanted,
		Losses: s.Losses, Recoveries: s.Recoveries, Away: s.Away, Cause: s.Cause,
	}
	if d.log != nil {
		r.Kept = d.log.Kept()
	}
	return r
}

// Close ends the calls that the server does not answer, waits for all, and closes the
// file. It does not flush: what is kept is forgotten.
func (d *Device) Close() error {
	var err error
	d.once.Do(func() {
		d.commits.cancel()
		err = d.file.Close()
		d.commits.running.Wait()
		if d.log != nil {
			d.log.Close()
		}
	})
	if e := d.gate.Close(d.client.release); err == nil {
		err = e
	}
	return block.Wrap(err, "close", d.url, -1)
}

// enter begins a call on n bytes at off: it checks them and keeps Close waiting until
// d.gate.Leave.
func (d *Device) enter(op string, off, n int64) error {
	if !d.gate.Enter() {
		return block.Errorf(block.Closed, op, d.url, off, "")
	}
	if err := block.CheckRange(d.Info(), op, off, n); err != nil {
		d.gate.Leave()
		return d.named(err)
	}
	return nil
}

// enterChange is enter for a request that changes the image and knows the flags in
// known.
func (d *Device) enterChange(op string, off, n int64, flags, known block.Flags) error {
	if err := d.enter(op, off, n); err != nil {
		return err
	}
	err := block.CheckChange(d.info.ReadOnly, op, d.url, off, flags&^known)
	if err != nil {
		d.gate.Leave()
	}
	return err
}

// named puts the URL into an error that has none.
func (d *Device) named(err error) error {
	var e *block.Error
	if errors.As(err, &e) && e.Object == "" {
		e.Object = d.url
	}
	return err
}

// fail makes the error of a call to the server.
func (d *Device) fail(op string, off int64, err error) error { return block.Wrap(err, op, d.url, off) }
