package file

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/gate"
)

// Device is an open file or block device.
type Device struct {
	path   string
	kern   kernel
	fd     int
	device bool       // a block device
	info   block.Info // all but Size, fixed when opened
	size   atomic.Int64
	gate   gate.Gate
	lock   *imageLock // nil without one
	syncs  syncer

	// O_DIRECT only. align is what fd's offsets and lengths must be multiples
	// of, 1 without O_DIRECT. Where the size is no multiple of it when opened,
	// Block.Min is 1 and cached is a second descriptor, without O_DIRECT, for the parts
	// that fd cannot move; else it is -1.
	align     int64
	cached    int
	fragments sync.RWMutex

	// What the file system turned out not to have.
	noPunch, noZeroRange atomic.Bool
	zeroAlign            int64 // fallocate needs multiples of this

	resizing sync.Mutex
}

// Info tells what the Device can do.
func (d *Device) Info() block.Info {
	info := d.info
	info.Size = d.size.Load()
	return info
}

// Close waits for the calls in progress and for pinned ranges, and closes the
// descriptor, which gives up the lock. It does not flush.
func (d *Device) Close() error {
	return d.gate.Close(func() error { return block.Wrap(d.closeFDs(), "close", d.path, -1) })
}

func (d *Device) closeFDs() error {
	err := unix.Close(d.fd)
	for _, fd := range [...]int{d.cached, d.syncs.witness} {
		if fd >= 0 {
			err = cmp.Or(err, unix.Close(fd))
		}
	}
	return err
}

// enter begins a call on n bytes at off: it checks them and keeps Close waiting
// until d.gate.Leave.
func (d *Device) enter(op string, off, n int64) error {
	if !d.gate.Enter() {
		return block.Errorf(block.Closed, op, d.path, off, "")
	}
	if err := block.CheckRange(d.Info(), op, off, n); err != nil {
		d.gate.Leave()
		return d.named(err)
	}
	return nil
}

// enterChange is enter for a request that changes the image and knows the flags
// in known.
func (d *Device) enterChange(op string, off, n int64, flags, known block.Flags) error {
	if err := d.enter(op, off, n); err != nil {
		return err
	}
	err := block.CheckChange(d.info.ReadOnly, op, d.path, off, flags&^known)
	if err != nil {
		d.gate.Leave()
	}
	return err
}

// named puts the path into an error that has none.
func (d *Device) named(err error) error {
	var e *block.Error
	if errors.As(err, &e) && e.Object == "" {
		e.Object = d.path
	}
	return err
}

// fail makes the error of a system call.
func (d *Device) fail(op string, off int64, err error) error { return block.Wrap(err, op, d.path, off) }

// Prefetch asks the kernel to read the range into the page cache.
func (d *Device) Prefetch(_ context.Context, off, n int64) error {
	if err := d.enter("prefetch", off, n); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n == 0 { // to the kernel that means: up to the end
		return nil
	}
	return d.fail("prefetch", off, retry(func() error { return unix.Fadvise(d.fd, off, n, unix.FADV_WILLNEED) }))
}

// PinRange gives the range itself: the whole image lies in the file as it is.
func (d *Device) PinRange(off, n int64) (block.FileRange, bool) {
	if n <= 0 || d.enter("pin", off, n) != nil {
		return block.FileRange{}, false
	}
	return block.FileRange{FD: d.fd, Off: off, Len: n, Resident: d.resident(off, n)}, true
}

// UnpinRange ends what PinRange began; until then Close waits.
func (d *Device) UnpinRange(block.FileRange) { d.gate.Leave() }
