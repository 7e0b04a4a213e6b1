package file

import (
	"context"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Resize changes the length of the file and makes that durable. Where the image
// is locked, nobody else may hold it in a way that forbids resizing: any other
// opening by this package does.
func (d *Device) Resize(_ context.Context, size int64) error {
	if err := d.enterChange("resize", 0, 0, 0, 0); err != nil {
		return err
	}
	defer d.gate.Leave()
	if d.device {
		return block.Errorf(block.Unsupported, "resize", d.path, -1, "a block device has the size that it has")
	}
	if size < 0 || size%d.info.Block.Min != 0 {
		return block.Errorf(block.Invalid, "resize", d.path, -1, "size %d is not a multiple of %d", size, d.info.Block.Min)
	}
	d.resizing.Lock()
	defer d.resizing.Unlock()
	return d.lock.withResize(func() error { return d.truncate(size) })
}

func (d *Device) truncate(size int64) error {
	old := d.size.Load()
	d.size.Store(min(old, size)) // while it shrinks nobody reads what goes away
	err := retry(func() error { return unix.Ftruncate(d.fd, size) })
	if err != nil {
		d.size.Store(old)
		return d.fail("resize", -1, err)
	}
	d.size.Store(size)
	return d.sync("resize", -1)
}
