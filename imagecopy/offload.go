package imagecopy

import (
	"context"

	"sluice/block"
)

// offloadPiece is the longest job of data where the storage copies: a bound on how long
// an interrupt waits.
const offloadPiece = 64 << 20

// clone lets the destination share the source's space, where the storage can do that.
// done means that nothing is left to do.
func (c *copier) clone(ctx context.Context) (done bool, err error) {
	if !c.offload.Load() || c.opts.Allocate || c.size == 0 {
		return false, nil
	}
	err = c.dst.Copier.CloneRange(ctx, c.src.Device, 0, 0, c.size)
	switch block.KindOf(err) {
	case block.OK:
		c.begin()
		c.done(&c.data, c.size)
		return true, nil
	case block.Unsupported:
		return false, nil
	}
	c.begin()
	return false, block.Wrap(err, "clone", "the source", -1)
}

// copyInside has the storage copy a job of data, and gives how much it has done when it
// cannot do more.
func (c *copier) copyInside(ctx context.Context, j job) (done int64, err error) {
	for done < j.n && c.offload.Load() {
		n, err := c.dst.Copier.CopyRange(ctx, c.src.Device, j.off+done, j.off+done, j.n-done)
		switch block.KindOf(err) {
		case block.OK:
			c.begin()
			c.done(&c.data, n)
			done += n
		case block.Unsupported:
			c.offload.Store(false)
		default:
			c.begin()
			return done, block.Wrap(err, "copy", "the source", j.off+done)
		}
	}
	return done, nil
}
