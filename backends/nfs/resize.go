package nfs

import (
	"context"

	"sluice/block"
)

// Resize sets the length of the file, which is durable when it returns (RFC 1813,
// section 3.3.2; RFC 8881, section 18.30).
func (d *Device) Resize(ctx context.Context, size int64) error {
	if err := d.enterChange("resize", 0, 0, 0, 0); err != nil {
		return err
	}
	defer d.gate.Leave()
	if size < 0 {
		return block.Errorf(block.Invalid, "resize", d.url, -1, "size %d", size)
	}
	if err := d.commits.take(ctx); err != nil {
		return d.fail("resize", -1, err)
	}
	defer d.commits.give()
	return d.fail("resize", -1, d.truncate(ctx, size))
}

// truncate makes all durable before the file shrinks: what is cut off must not be
// written again later, and until it is cut off it must not be forgotten.
func (d *Device) truncate(ctx context.Context, size int64) error {
	old := d.size.Load()
	if size < old {
		if c := &d.commits; c.durable.Load() < c.changes.Load() {
			if err := d.commit(ctx); err != nil {
				return err
			}
		}
		d.size.Store(size) // while it shrinks nobody reads what goes away
		d.log.Truncate(size)
	}
	if err := d.file.Truncate(ctx, size); err != nil {
		d.size.Store(old)
		return err
	}
	d.size.Store(size)
	return nil
}
