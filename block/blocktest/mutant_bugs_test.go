package blocktest

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/block"
)

// bugs are the broken devices, each with the checks that have to notice.
var bugs = []bug{
	{"info: minimum is no power of two", []string{"info"}, func() *mutant {
		return &mutant{info: func(i *block.Info) { i.Block.Min = 3 }}
	}, false},
	{"info: preferred below minimum", []string{"info"}, func() *mutant {
		return &mutant{info: func(i *block.Info) { i.Block.Preferred = 256 }}
	}, false},
	{"short read", []string{"edges", "large", "model"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			if len(p) > 4096 {
				if err := d.ReadAt(background, p[:4096], off); err != nil {
					return err
				}
				return nil
			}
			return d.ReadAt(background, p[:len(p)/2], off)
		}}
	}, false},
	{"first image not zero", []string{"initial-content", "empty-requests"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			err := d.ReadAt(background, p, off)
			if err == nil && off == 0 && len(p) > 0 && p[0] == 0 {
				p[0] = 1
			}
			return err
		}}
	}, false},
	{"last block lost", []string{"edges"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			if off+int64(len(p)) == d.info.Size && len(p) > 0 {
				return d.WriteAt(background, p[:len(p)-512], off, f)
			}
			return d.WriteAt(background, p, off, f)
		}}
	}, false},
	{"writes round down to sectors", []string{"odd-offsets"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			return d.WriteAt(background, p, off/512*512, f)
		}}
	}, false},
	{"no upper bound", []string{"out-of-range"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if off > d.info.Size-int64(len(p)) && off >= 0 && off < 1<<40 {
				return d.store(p, off)
			}
			return d.writeLocked(p, off, f)
		}}
	}, false},
	{"bound overflows", []string{"out-of-range"}, func() *mutant {
		return &mutant{fetch: func(d *ref, off, n int64) error {
			if off >= 0 && n >= 0 && off+n <= d.info.Size { // wraps around
				return nil
			}
			return d.Prefetch(background, off, n)
		}}
	}, false},
	{"partial move before the bound is met", []string{"out-of-range"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			err := d.ReadAt(background, p, off)
			if block.KindOf(err) == block.OutOfRange && len(p) > 0 {
				p[0] = 0
			}
			return err
		}}
	}, false},
	{"wrong kind out of range", []string{"out-of-range"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			err := d.ReadAt(background, p, off)
			if block.KindOf(err) == block.OutOfRange {
				return errors.New("out of bounds")
			}
			return err
		}}
	}, false},
	{"alignment not checked", []string{"misaligned"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			d.mu.RLock()
			defer d.mu.RUnlock()
			info := d.info
			info.Block.Min = 1
			if err := block.CheckRange(info, "read", off, int64(len(p))); err != nil {
				return err
			}
			return d.fill(p, off)
		}}
	}, false},
	{"empty read beyond the end", []string{"empty-requests"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			if len(p) == 0 {
				return nil
			}
			return d.ReadAt(background, p, off)
		}}
	}, false},
	{"unknown flags ignored", []string{"unknown-flags"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			return d.WriteAt(background, p, off, f&block.FUA)
		}}
	}, false},
	{"discard takes flags of zeroing", []string{"unknown-flags"}, func() *mutant {
		return &mutant{discard: func(d *ref, off, n int64, f block.Flags) error {
			return d.Discard(background, off, n, f&block.FUA)
		}}
	}, false},
	{"FUA claimed and refused", []string{"fua"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			if f != 0 {
				return block.Errorf(block.Invalid, "write", "", off, "")
			}
			return d.WriteAt(background, p, off, f)
		}}
	}, false},
	{"FUA not claimed and taken", []string{"fua"}, func() *mutant {
		return &mutant{info: func(i *block.Info) { i.Caps &^= block.CapFUA }}
	}, false},
	{"write changes its buffer", []string{"buffers"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			err := d.WriteAt(background, p, off, f)
			if err == nil && len(p) > 4096 {
				p[17] ^= 0xff
			}
			return err
		}}
	}, true},
	{"write keeps its buffer", []string{"buffers"}, func() *mutant {
		var kept []byte
		var keptOff int64
		return &mutant{
			write: func(d *ref, p []byte, off int64, f block.Flags) error {
				if len(p) == 4096 {
					kept, keptOff = p, off
				}
				return d.WriteAt(background, p, off, f)
			},
			flush: func(d *ref) error {
				if kept != nil {
					return d.WriteAt(background, kept, keptOff, 0)
				}
				return d.Flush(background)
			},
		}
	}, false},
	{"read fills the capacity", []string{"buffers"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			if cap(p) >= len(p)+16 {
				clear(p[len(p) : len(p)+16])
			}
			return d.ReadAt(background, p, off)
		}}
	}, false},
	{"zeroing stops short", []string{"zeroes", "model"}, func() *mutant {
		return &mutant{zero: func(d *ref, off, n int64, f block.Flags) error {
			return d.WriteZeroes(background, off, n/1024*512, f)
		}}
	}, false},
	{"zeroing rounds up to 4 KiB", []string{"zeroes", "model"}, func() *mutant {
		return &mutant{zero: func(d *ref, off, n int64, f block.Flags) error {
			end := min((off+n+4095)/4096*4096, d.info.Size)
			if n <= 0 || off < 0 || off+n > d.info.Size {
				end = off + n
			}
			return d.WriteZeroes(background, off, end-off, f)
		}}
	}, false},
	{"fast zeroing claimed and refused", []string{"zeroes"}, func() *mutant {
		return &mutant{zero: func(d *ref, off, n int64, f block.Flags) error {
			if f&block.FastOnly != 0 {
				return block.Errorf(block.Unsupported, "write zeroes", "", off, "")
			}
			return d.WriteZeroes(background, off, n, f)
		}}
	}, false},
	{"fast zeroing fails halfway", []string{"zeroes", "model"}, func() *mutant {
		return &mutant{
			info: func(i *block.Info) { i.Caps &^= block.CapFastZero },
			zero: func(d *ref, off, n int64, f block.Flags) error {
				if f&block.FastOnly == 0 || n <= 512 {
					return d.WriteZeroes(background, off, n, f)
				}
				if err := d.WriteZeroes(background, off, 512, f); err != nil {
					return err
				}
				return block.Errorf(block.Unsupported, "write zeroes", "", off, "")
			},
		}
	}, false},
	{"zeroing refused without FastOnly", []string{"zeroes"}, func() *mutant {
		return &mutant{zero: func(d *ref, off, n int64, f block.Flags) error {
			if n >= 16384 {
				return block.Errorf(block.Unsupported, "write zeroes", "", off, "")
			}
			return d.WriteZeroes(background, off, n, f)
		}}
	}, false},
	{"zeroing unmaps unasked", []string{"zeroes", "zeroes-allocate"}, func() *mutant {
		return &mutant{zero: func(d *ref, off, n int64, f block.Flags) error {
			return d.WriteZeroes(background, off, n, f|block.MayUnmap)
		}}
	}, false},
	{"discard too much", []string{"discard", "model"}, func() *mutant {
		return &mutant{discard: func(d *ref, off, n int64, f block.Flags) error {
			if off >= 512 && n > 0 && off+n <= d.info.Size {
				off, n = off-512, n+512
			}
			return d.Discard(background, off, n, f)
		}}
	}, false},
	{"discard sticks", []string{"discard", "model"}, func() *mutant {
		gone := map[int64]bool{}
		return &mutant{
			discard: func(d *ref, off, n int64, f block.Flags) error {
				err := d.Discard(background, off, n, f)
				if err == nil {
					gone[off] = true
				}
				return err
			},
			read: func(d *ref, p []byte, off int64) error {
				err := d.ReadAt(background, p, off)
				if err == nil && gone[off] {
					clear(p)
				}
				return err
			},
		}
	}, false},
	{"extents: everything is zero", []string{"extents-truth", "model"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			if _, err := d.Extents(background, off, n, dst); err != nil || n == 0 {
				return dst, err
			}
			return append(dst, block.Extent{Len: n, State: block.Hole | block.Zero}), nil
		}}
	}, false},
	{"extents: data is a hole", []string{"extents-truth"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return mapExtents(d, off, n, dst, func(e *block.Extent) { e.State |= block.Hole })
		}}
	}, false},
	{"extents past the end", []string{"extents"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return mapExtents(d, off, n, dst, func(e *block.Extent) { e.Len = (e.Len + 8191) / 4096 * 4096 })
		}}
	}, false},
	{"extents that end inside a block", []string{"extents"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			out, err := d.Extents(background, off, n, dst)
			if last := len(out) - 1; last >= len(dst) && out[last].Len > 100 && len(out) < cap(out) {
				out[last].Len -= 100
				out = append(out, block.Extent{Len: 100, State: out[last].State})
			}
			return out, err
		}}
	}, false},
	{"extents of length zero", []string{"extents"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return append(dst, block.Extent{}), nil
		}}
	}, false},
	{"extents outgrow dst", []string{"extents-truth", "model"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			out, err := d.Extents(background, off, n, append(make([]block.Extent, 0, 4096), dst...))
			return out, err
		}}
	}, false},
	{"extents stop early", []string{"extents-truth", "model"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			out, err := d.Extents(background, off, n, dst[:len(dst):min(len(dst)+1, cap(dst))])
			return append(dst, out[len(dst):]...), err
		}}
	}, false},
	{"extents replace dst", []string{"extents"}, func() *mutant {
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return d.Extents(background, off, n, dst[:0])
		}}
	}, false},
	{"extents keep a stale map", []string{"extents-truth"}, func() *mutant {
		var held map[int64]bool // as it was at the first call
		return &mutant{extents: func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			d.mu.RLock()
			defer d.mu.RUnlock()
			if held == nil {
				held = maps.Clone(d.held)
			}
			return d.runs(off, n, dst, func(u int64) block.Extent {
				if held[u] {
					return block.Extent{Depth: 1}
				}
				return block.Extent{State: block.Hole | block.Zero}
			}), nil
		}}
	}, false},
	{"prefetch beyond the end", []string{"out-of-range"}, func() *mutant {
		return &mutant{fetch: func(*ref, int64, int64) error { return nil }}
	}, false},
	{"prefetch refuses", []string{"prefetch"}, func() *mutant {
		return &mutant{fetch: func(d *ref, off, n int64) error {
			return block.Errorf(block.Unsupported, "prefetch", "", off, "")
		}}
	}, false},
	{"resize reveals old data", []string{"resize", "model"}, func() *mutant {
		return &mutant{resize: func(d *ref, size int64) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if size < 0 || size%512 != 0 || d.closed {
				return block.Errorf(block.Invalid, "resize", "", -1, "")
			}
			d.info.Size = size
			return nil
		}}
	}, false},
	{"resize forgets Info", []string{"resize", "model"}, func() *mutant {
		return &mutant{resize: func(d *ref, size int64) error {
			old := d.Info().Size
			if err := d.Resize(background, size); err != nil {
				return err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.info.Size = old
			return nil
		}}
	}, false},
	{"resize to an odd size", []string{"resize-refusals"}, func() *mutant {
		return &mutant{resize: func(d *ref, size int64) error { return d.Resize(background, size/512*512) }}
	}, false},
	{"nowait returns other bytes", []string{"nowait"}, func() *mutant {
		return &mutant{nowait: func(d *ref, p []byte, off int64) error {
			err := d.ReadNowait(p, off)
			if err == nil && off == 16384 && len(p) > 0 {
				p[0]++
			}
			return err
		}}
	}, false},
	{"nowait fails for good", []string{"nowait"}, func() *mutant {
		return &mutant{nowait: func(d *ref, p []byte, off int64) error {
			return block.Errorf(block.Unsupported, "read nowait", "", off, "")
		}}
	}, false},
	{"a started read gives other bytes", []string{"start"}, func() *mutant {
		return &mutant{startRead: func(d *ref, p []byte, off int64, done block.Done) bool {
			err := d.ReadAt(background, p, off)
			if err == nil && off == 16384 {
				p[0]++
			}
			return tell(done, err)
		}}
	}, false},
	{"a started write is not done", []string{"start"}, func() *mutant {
		return &mutant{startWrite: func(d *ref, p []byte, off int64, flags block.Flags, done block.Done) bool {
			if off == 8192 {
				return tell(done, nil)
			}
			return d.StartWrite(p, off, flags, done)
		}}
	}, false},
	{"a started read beyond the end works", []string{"start"}, func() *mutant {
		return &mutant{startRead: func(d *ref, p []byte, off int64, done block.Done) bool {
			if off == d.Info().Size {
				return tell(done, nil)
			}
			return d.StartRead(p, off, done)
		}}
	}, false},
	{"pinned range elsewhere", []string{"file-range"}, func() *mutant {
		return &mutant{pin: func(d *ref, off, n int64) (block.FileRange, bool) {
			r, ok := d.PinRange(off, n)
			r.Off = max(r.Off-512, 0)
			return r, ok
		}}
	}, false},
	{"pinned range beyond the end", []string{"file-range"}, func() *mutant {
		return &mutant{pin: func(d *ref, off, n int64) (block.FileRange, bool) {
			if off >= d.info.Size {
				return block.FileRange{FD: int(d.f.Fd()), Off: off, Len: n}, true
			}
			return d.PinRange(off, n)
		}}
	}, false},
	{"bitmap under any name", []string{"bitmaps"}, func() *mutant {
		return &mutant{bitmap: func(d *ref, _ string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return d.BitmapExtents(background, "since-open", off, n, dst)
		}}
	}, false},
	{"bitmap tells holes", []string{"bitmaps"}, func() *mutant {
		return &mutant{bitmap: func(d *ref, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
			return d.Extents(background, off, n, dst)
		}}
	}, false},
	{"parallel writes share a buffer", []string{"parallel-disjoint"}, func() *mutant {
		var mu sync.Mutex
		shared := make([]byte, 512<<10)
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			mu.Lock()
			copy(shared, p)
			mu.Unlock()
			for range 20 {
				runtime.Gosched()
			}
			mu.Lock()
			mine := slices.Clone(shared[:len(p)])
			mu.Unlock()
			return d.WriteAt(background, mine, off, f)
		}}
	}, false},
	{"write goes through zeroes", []string{"parallel-overlap"}, func() *mutant {
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			if err := d.WriteAt(background, make([]byte, len(p)), off, f); err != nil {
				return err
			}
			for range 20 {
				runtime.Gosched()
			}
			return d.WriteAt(background, p, off, f)
		}}
	}, false},
	{"write returns before it is visible", []string{"parallel-overlap", "edges", "cancel-in-flight"}, func() *mutant {
		var late func()
		var mu sync.Mutex
		return &mutant{write: func(d *ref, p []byte, off int64, f block.Flags) error {
			mu.Lock()
			defer mu.Unlock()
			if late != nil {
				late()
			}
			own := slices.Clone(p)
			if err := d.WriteAt(background, nil, off, f); err != nil {
				return err
			}
			late = func() { _ = d.WriteAt(background, own, off, f) }
			return nil
		}}
	}, false},
	{"second close fails", []string{"close"}, func() *mutant {
		return &mutant{close: func(d *ref) error {
			d.mu.Lock()
			was := d.closed
			d.mu.Unlock()
			if was {
				return block.Errorf(block.Closed, "close", "", -1, "")
			}
			return d.Close()
		}}
	}, false},
	{"calls work after close", []string{"close"}, func() *mutant {
		return &mutant{flush: func(*ref) error { return nil }}
	}, false},
	{"wrong kind after close", []string{"close", "close-in-use"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			err := d.ReadAt(background, p, off)
			if block.KindOf(err) == block.Closed {
				return errors.New("bad file descriptor")
			}
			return err
		}}
	}, false},
	{"close does not wait", []string{"close-in-use"}, func() *mutant {
		var closed atomic.Bool
		return &mutant{
			read: func(d *ref, p []byte, off int64) error {
				if closed.Load() {
					return block.Errorf(block.Closed, "read", "", off, "")
				}
				own := make([]byte, len(p))
				if err := d.ReadAt(background, own, off); err != nil {
					return err
				}
				for range 3000 {
					runtime.Gosched()
				}
				copy(p, own)
				return nil
			},
			close: func(d *ref) error {
				closed.Store(true)
				return nil
			},
		}
	}, true},
	{"close lets calls in progress return other data", []string{"close-in-use"}, func() *mutant {
		return &mutant{read: func(d *ref, p []byte, off int64) error {
			err := d.ReadAt(background, p, off)
			if block.KindOf(err) == block.Closed {
				clear(p)
				return nil
			}
			return err
		}}
	}, false},
}

// writeLocked is WriteAt for a caller that holds mu.
func (d *ref) writeLocked(p []byte, off int64, flags block.Flags) error {
	if err := d.begin("write", off, int64(len(p)), flags, block.FUA); err != nil {
		return err
	}
	return d.store(p, off)
}

// mapExtents changes each extent that the right Device tells.
func mapExtents(d *ref, off, n int64, dst []block.Extent, f func(*block.Extent)) ([]block.Extent, error) {
	out, err := d.Extents(background, off, n, dst)
	for i := len(dst); i < len(out); i++ {
		f(&out[i])
	}
	return out, err
}
