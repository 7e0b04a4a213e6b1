package blocktest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sluice/block"
)

// ref is the plainest right Device with every power: a file, one lock, and a
// map of what is allocated. The suite must pass on it; the mutants break it.
type ref struct {
	mu     sync.RWMutex // readers share it; everything that changes something has it alone
	f      *os.File
	info   block.Info
	held   map[int64]bool // units that are allocated
	dirty  map[int64]bool // units changed since the device was opened
	closed bool
}

const refUnit = 512 // the granularity of allocation

const refCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard |
	block.CapExtents | block.CapPrefetch | block.CapResize | block.CapNowait | block.CapFileRange |
	block.CapBitmaps | block.CapMultiConn | block.CapStart

// newRef makes an image in a file and opens it.
func newRef(t testing.TB, size, unit int64) *ref {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return refOn(f, size, unit)
}

func refOn(f *os.File, size, unit int64) *ref {
	return &ref{
		f: f, held: map[int64]bool{}, dirty: map[int64]bool{},
		info: block.Info{
			Size: size, Block: block.BlockSize{Min: unit, Preferred: max(unit, 4096)}, Caps: refCaps,
		},
	}
}

// reopen opens the image of a ref again; everything counts as allocated then.
func (d *ref) reopen(t testing.TB) *ref {
	t.Helper()
	f, err := os.OpenFile(d.f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	n := refOn(f, st.Size(), d.info.Block.Min)
	n.mark(n.held, 0, st.Size(), true)
	return n
}

func (d *ref) Info() block.Info {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.info
}

// begin checks what every call checks. The caller holds mu.
func (d *ref) begin(op string, off, n int64, flags, known block.Flags) error {
	if d.closed {
		return block.Errorf(block.Closed, op, "", off, "")
	}
	if d.info.ReadOnly && op != "read" && op != "extents" && op != "flush" {
		return block.Errorf(block.ReadOnly, op, "", off, "")
	}
	if flags&^known != 0 {
		return block.Errorf(block.Invalid, op, "", off, "flags %#x", flags)
	}
	return block.CheckRange(d.info, op, off, n)
}

func (d *ref) mark(m map[int64]bool, off, n int64, v bool) {
	for u := off / refUnit; u*refUnit < off+n; u++ {
		m[u] = v
	}
}

func (d *ref) ReadAt(_ context.Context, p []byte, off int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.begin("read", off, int64(len(p)), 0, 0); err != nil {
		return err
	}
	return d.fill(p, off)
}

func (d *ref) fill(p []byte, off int64) error {
	n, err := d.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	return err
}

func (d *ref) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("write", off, int64(len(p)), flags, block.FUA); err != nil {
		return err
	}
	return d.store(p, off)
}

func (d *ref) store(p []byte, off int64) error {
	d.mark(d.held, off, int64(len(p)), true)
	d.mark(d.dirty, off, int64(len(p)), true)
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *ref) Flush(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begin("flush", 0, 0, 0, 0)
}

func (d *ref) WriteZeroes(_ context.Context, off, n int64, flags block.Flags) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("write zeroes", off, n, flags, block.FUA|block.MayUnmap|block.FastOnly); err != nil {
		return err
	}
	if err := d.store(make([]byte, n), off); err != nil {
		return err
	}
	if flags&block.MayUnmap != 0 {
		d.free(off, n)
	}
	return nil
}

// free marks whole units as not allocated.
func (d *ref) free(off, n int64) {
	first, last := (off+refUnit-1)/refUnit, (off+n)/refUnit
	if first < last {
		d.mark(d.held, first*refUnit, (last-first)*refUnit, false)
	}
}

// Discard leaves other bytes than zeroes behind, as it may.
func (d *ref) Discard(_ context.Context, off, n int64, flags block.Flags) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("discard", off, n, flags, block.FUA); err != nil {
		return err
	}
	return d.store(pattern(off, n), off)
}

func (d *ref) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.begin("extents", off, n, 0, 0); err != nil {
		return dst, err
	}
	return d.runs(off, n, dst, func(u int64) block.Extent {
		if d.held[u] {
			return block.Extent{Depth: 1}
		}
		return block.Extent{State: block.Hole | block.Zero}
	}), nil
}

// runs joins units of the same state.
func (d *ref) runs(off, n int64, dst []block.Extent, state func(u int64) block.Extent) []block.Extent {
	start := len(dst)
	for end := off + n; off < end; {
		e := state(off / refUnit)
		e.Len = min(end, (off/refUnit+1)*refUnit) - off
		off += e.Len
		if last := len(dst) - 1; last >= start && dst[last].State == e.State {
			dst[last].Len += e.Len
			continue
		}
		if len(dst) == cap(dst) {
			break
		}
		dst = append(dst, e)
	}
	return dst
}

func (d *ref) Prefetch(_ context.Context, off, n int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.begin("read", off, n, 0, 0)
}

func (d *ref) Resize(_ context.Context, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("resize", 0, 0, 0, 0); err != nil {
		return err
	}
	if size < 0 || size%d.info.Block.Min != 0 {
		return block.Errorf(block.Invalid, "resize", "", -1, "size %d", size)
	}
	if err := d.f.Truncate(size); err != nil {
		return err
	}
	d.info.Size = size
	return nil
}

func (d *ref) ReadNowait(p []byte, off int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.begin("read", off, int64(len(p)), 0, 0); err != nil {
		return err
	}
	if off/4096%8 == 7 {
		return block.ErrWouldBlock
	}
	return d.fill(p, off)
}

func (d *ref) PinRange(off, n int64) (block.FileRange, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if n == 0 || d.begin("read", off, n, 0, 0) != nil {
		return block.FileRange{}, false
	}
	return block.FileRange{FD: int(d.f.Fd()), Off: off, Len: min(n, 64<<10)}, true
}

func (d *ref) UnpinRange(block.FileRange) {}

func (d *ref) Bitmaps() []string { return []string{"since-open"} }

func (d *ref) BitmapExtents(_ context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if name != "since-open" {
		return dst, block.Errorf(block.NotFound, "bitmap", name, -1, "")
	}
	if err := d.begin("extents", off, n, 0, 0); err != nil {
		return dst, err
	}
	return d.runs(off, n, dst, func(u int64) block.Extent {
		if d.dirty[u] {
			return block.Extent{State: block.Dirty}
		}
		return block.Extent{}
	}), nil
}

func (d *ref) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return d.f.Close()
}

// StartRead ends before it returns.
func (d *ref) StartRead(p []byte, off int64, done block.Done) bool {
	return tell(done, d.ReadAt(context.Background(), p, off))
}

func (d *ref) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	return tell(done, d.WriteAt(context.Background(), p, off, flags))
}

func (d *ref) Kick() {}

func tell(done block.Done, err error) bool {
	if p := done.Done(err); p != nil {
		p.Push()
	}
	return true
}
