package swap

import (
	"context"

	"sluice/block"
)

// The calls that move data, each on the generation that it entered. A Device
// that came later may lack what the first one had: see doc.go.

// ReadAt implements block.Device.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	g, err := d.enter(ctx, "read", off)
	if err != nil {
		return err
	}
	defer g.leave()
	return g.dev.ReadAt(ctx, p, off)
}

// ReadNowait implements block.Nowaiter; during an exchange it would wait.
func (d *Device) ReadNowait(p []byte, off int64) error {
	g := d.current.Load()
	if !g.gate.Enter() {
		if g.closed {
			return closedError("read", off)
		}
		return block.ErrWouldBlock
	}
	defer g.leave()
	if g.dev.Nowaiter == nil {
		if err := block.CheckRange(g.dev.Device.Info(), "read", off, int64(len(p))); err != nil {
			return err
		}
		return block.ErrWouldBlock
	}
	return g.dev.Nowaiter.ReadNowait(p, off)
}

// WriteAt implements block.Device.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	g, err := d.enter(ctx, "write", off)
	if err != nil {
		return err
	}
	defer g.leave()
	return g.durable(ctx, flags, g.dev.WriteAt(ctx, p, off, g.known(flags)))
}

// known takes FUA out of flags where the Device does not have it; durable makes
// up for it.
func (g *generation) known(flags block.Flags) block.Flags {
	if g.dev.Info.Has(block.CapFUA) {
		return flags
	}
	return flags &^ block.FUA
}

// durable ends a change that was made with known(flags).
func (g *generation) durable(ctx context.Context, flags block.Flags, err error) error {
	if err != nil || flags&block.FUA == 0 || g.dev.Info.Has(block.CapFUA) {
		return err
	}
	return g.dev.Flush(ctx)
}

// Flush implements block.Device.
func (d *Device) Flush(ctx context.Context) error {
	g, err := d.enter(ctx, "flush", -1)
	if err != nil {
		return err
	}
	defer g.leave()
	return g.dev.Flush(ctx)
}

// WriteZeroes implements block.Zeroer.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	g, err := d.enter(ctx, "write zeroes", off)
	if err != nil {
		return err
	}
	defer g.leave()
	if g.dev.Zeroer != nil {
		return g.durable(ctx, flags, g.dev.Zeroer.WriteZeroes(ctx, off, n, g.known(flags)))
	}
	if err := g.check("write zeroes", off, n, flags&^(block.FUA|block.MayUnmap|block.FastOnly)); err != nil {
		return err
	}
	return g.durable(ctx, flags, g.dev.ZeroRange(ctx, off, n, g.known(flags)))
}

// Discard implements block.Discarder. A Device that cannot ignores it.
func (d *Device) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	g, err := d.enter(ctx, "discard", off)
	if err != nil {
		return err
	}
	defer g.leave()
	if g.dev.Discarder == nil {
		return g.check("discard", off, n, flags&^block.FUA)
	}
	return g.durable(ctx, flags, g.dev.Discarder.Discard(ctx, off, n, g.known(flags)))
}

// check is what a Device does before a change, where there is none to do it.
func (g *generation) check(op string, off, n int64, unknown block.Flags) error {
	info := g.dev.Device.Info()
	if err := block.CheckRange(info, op, off, n); err != nil {
		return err
	}
	return block.CheckChange(info.ReadOnly, op, "", off, unknown)
}

// Extents implements block.Extenter.
func (d *Device) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	g, err := d.enter(ctx, "extents", off)
	if err != nil {
		return dst, err
	}
	defer g.leave()
	return g.dev.ExtentsAt(ctx, off, n, dst)
}

// Prefetch implements block.Prefetcher.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	g, err := d.enter(ctx, "prefetch", off)
	if err != nil {
		return err
	}
	defer g.leave()
	if g.dev.Prefetch == nil {
		return block.CheckRange(g.dev.Device.Info(), "prefetch", off, n)
	}
	return g.dev.Prefetch.Prefetch(ctx, off, n)
}

// Bitmaps implements block.Bitmapper.
func (d *Device) Bitmaps() []string {
	if b := d.current.Load().dev.Bitmapper; b != nil {
		return b.Bitmaps()
	}
	return nil
}

// BitmapExtents implements block.Bitmapper. A bitmap that did not come along is
// NotFound.
func (d *Device) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	g, err := d.enter(ctx, "bitmap extents", off)
	if err != nil {
		return dst, err
	}
	defer g.leave()
	if g.dev.Bitmapper == nil {
		return dst, block.Errorf(block.NotFound, "bitmap extents", name, off, "")
	}
	return g.dev.Bitmapper.BitmapExtents(ctx, name, off, n, dst)
}
