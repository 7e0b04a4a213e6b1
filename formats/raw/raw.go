// Package raw is the format without a format: the bytes of the Device are the
// bytes of the disk. Package formats calls it.
//
// An image that fills its Device is the Device itself, at no cost. One that lies
// in a part of it (a partition, a fixed VHD without its footer) is a window:
// every power is passed on by name with its offset moved, file ranges included,
// so that the window costs an addition. The window has no state of its own and
// no lock; the Device below keeps Close waiting for the calls in progress.
package raw

import (
	"context"

	"sluice/block"
)

// Config says where in the Device the image lies.
type Config struct {
	Offset int64 // bytes, a multiple of the Device's Block.Min
	Size   int64 // bytes, a multiple of it too; 0: all that follows Offset
}

// Open opens the image. The result owns dev; when Open fails, dev is still the
// caller's.
func Open(_ context.Context, dev block.Device, cfg Config) (block.Device, error) {
	info := dev.Info()
	if cfg.Size == 0 {
		cfg.Size = info.Size - cfg.Offset
	}
	if err := block.CheckRange(info, "open", cfg.Offset, cfg.Size); err != nil {
		return nil, err
	}
	if cfg.Offset == 0 && cfg.Size == info.Size {
		return dev, nil
	}
	w := &window{dev: block.Resolve(dev), start: cfg.Offset, info: info}
	w.info.Size = cfg.Size
	w.info.Caps &= forwarded
	return w, nil
}

// forwarded are the powers that a window passes on. Its size is fixed.
const forwarded = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapDepth | block.CapPrefetch | block.CapNowait | block.CapFileRange | block.CapBitmaps | block.CapMultiConn |
	block.CapSerialWrites

// window is a part of a Device.
type window struct {
	dev   *block.Resolved
	start int64
	info  block.Info
}

func (w *window) Info() block.Info { return w.info }

func (w *window) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(w.info, "read", off, int64(len(p))); err != nil {
		return err
	}
	return w.dev.ReadAt(ctx, p, w.start+off)
}

func (w *window) ReadNowait(p []byte, off int64) error {
	if err := block.CheckRange(w.info, "read", off, int64(len(p))); err != nil {
		return err
	}
	return w.dev.Nowaiter.ReadNowait(p, w.start+off)
}

func (w *window) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if err := block.CheckRange(w.info, "write", off, int64(len(p))); err != nil {
		return err
	}
	return w.dev.WriteAt(ctx, p, w.start+off, flags)
}

func (w *window) Flush(ctx context.Context) error { return w.dev.Flush(ctx) }

func (w *window) Close() error { return w.dev.Close() }

func (w *window) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := block.CheckRange(w.info, "write zeroes", off, n); err != nil {
		return err
	}
	return w.dev.Zeroer.WriteZeroes(ctx, w.start+off, n, flags)
}

func (w *window) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := block.CheckRange(w.info, "discard", off, n); err != nil {
		return err
	}
	return w.dev.Discarder.Discard(ctx, w.start+off, n, flags)
}

func (w *window) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := block.CheckRange(w.info, "extents", off, n); err != nil {
		return dst, err
	}
	return w.dev.Extenter.Extents(ctx, w.start+off, n, dst)
}

func (w *window) Prefetch(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(w.info, "prefetch", off, n); err != nil {
		return err
	}
	return w.dev.Prefetch.Prefetch(ctx, w.start+off, n)
}

func (w *window) PinRange(off, n int64) (block.FileRange, bool) {
	if block.CheckRange(w.info, "pin", off, n) != nil {
		return block.FileRange{}, false
	}
	return w.dev.Ranger.PinRange(w.start+off, n)
}

func (w *window) UnpinRange(r block.FileRange) { w.dev.Ranger.UnpinRange(r) }

func (w *window) Bitmaps() []string { return w.dev.Bitmapper.Bitmaps() }

func (w *window) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := block.CheckRange(w.info, "bitmap", off, n); err != nil {
		return dst, err
	}
	return w.dev.Bitmapper.BitmapExtents(ctx, name, w.start+off, n, dst)
}
