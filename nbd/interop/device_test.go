//go:build interop

package interop

import (
	"context"
	"os"

	"sluice/block"
)

// dirtyDevice has a bitmap "backup" whose third 64 KiB are dirty.
type dirtyDevice struct{ block.Device }

func (d *dirtyDevice) Info() block.Info {
	info := d.Device.Info()
	info.Caps = info.Caps&(block.CapFlush|block.CapMultiConn) | block.CapBitmaps
	return info
}

func (d *dirtyDevice) Bitmaps() []string { return []string{"backup"} }

func (d *dirtyDevice) BitmapExtents(_ context.Context, _ string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	for _, run := range []struct {
		end   int64
		state block.ExtentState
	}{{128 << 10, 0}, {192 << 10, block.Dirty}, {1 << 40, 0}} {
		if length := min(run.end-off, n); length > 0 && len(dst) < cap(dst) {
			dst = append(dst, block.Extent{Len: length, State: run.state})
			off, n = off+length, n-length
		}
	}
	return dst, nil
}

func truncate(path string, size int64) error { return os.Truncate(path, size) }
