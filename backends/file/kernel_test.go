package file

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// fake is the kernel with faults in it.
type fake struct {
	linux
	most      int          // transfers no more than this at once; 0: all
	interrupt atomic.Int64 // so many calls fail with EINTR first
	fail      atomic.Pointer[unix.Errno]
	failSync  atomic.Pointer[unix.Errno]
	failAlloc func(mode uint32) error
	syncs     atomic.Int64
	inSync    func()
}

func (f *fake) before(p []byte) ([]byte, error) {
	if f.interrupt.Add(-1) >= 0 {
		return nil, unix.EINTR
	}
	if e := f.fail.Load(); e != nil {
		return nil, *e
	}
	if f.most > 0 && len(p) > f.most {
		p = p[:f.most]
	}
	return p, nil
}

func (f *fake) pread(fd int, p []byte, off int64) (int, error) {
	p, err := f.before(p)
	if err != nil {
		return -1, err
	}
	return f.linux.pread(fd, p, off)
}

func (f *fake) pwrite(fd int, p []byte, off int64, dsync bool) (int, error) {
	p, err := f.before(p)
	if err != nil {
		return -1, err
	}
	return f.linux.pwrite(fd, p, off, dsync)
}

func (f *fake) fallocate(fd int, mode uint32, off, n int64) error {
	if f.failAlloc != nil {
		if err := f.failAlloc(mode); err != nil {
			return err
		}
	}
	return f.linux.fallocate(fd, mode, off, n)
}

func (f *fake) fdatasync(fd int) error {
	f.syncs.Add(1)
	if f.inSync != nil {
		f.inSync()
	}
	if e := f.failSync.Load(); e != nil {
		return *e
	}
	return f.linux.fdatasync(fd)
}

func withFake(t *testing.T, opts block.OpenOptions) (*Device, *fake) {
	t.Helper()
	d := openFile(t, newFile(t, t.TempDir(), 1<<20), opts)
	k := new(fake)
	d.kern = k
	t.Cleanup(func() { _ = d.Close() })
	return d, k
}

func errno(e unix.Errno) *unix.Errno { return &e }

func TestShortAndInterruptedTransfers(t *testing.T) {
	for _, direct := range []bool{false, true} {
		d, k := withFake(t, block.OpenOptions{Direct: direct})
		k.most = 4096
		k.interrupt.Store(3)
		want := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		if err := d.WriteAt(ctx, want, 8192, block.FUA); err != nil {
			t.Fatal(err)
		}
		k.interrupt.Store(3)
		got := make([]byte, len(want)+1)[1:] // at an odd address
		if err := d.ReadAt(ctx, got, 8192); err != nil || !bytes.Equal(got, want) {
			t.Errorf("direct %v: bytes differ (%v)", direct, err)
		}
	}
}

func TestErrorsNamePathOffsetAndCause(t *testing.T) {
	d, k := withFake(t, block.OpenOptions{})
	k.fail.Store(errno(unix.EIO))
	err := d.ReadAt(ctx, make([]byte, 10), 77)
	var e *block.Error
	if !errors.As(err, &e) || e.Kind != block.IO || e.Off != 77 || e.Object != d.path || !errors.Is(err, unix.EIO) {
		t.Errorf("got %#v", err)
	}
	k.fail.Store(errno(unix.ENOSPC))
	if err := d.WriteAt(ctx, make([]byte, 10), 5, 0); !errors.Is(err, block.NoSpace) {
		t.Errorf("got %v", err)
	}
}

// After a failed flush the kernel may report success though pages are gone.
func TestFailedFlushIsNeverForgotten(t *testing.T) {
	d, k := withFake(t, block.OpenOptions{})
	if err := d.WriteAt(ctx, []byte("gone"), 0, 0); err != nil {
		t.Fatal(err)
	}
	k.failSync.Store(errno(unix.EIO))
	if err := d.Flush(ctx); !errors.Is(err, block.IO) || !errors.Is(err, unix.EIO) {
		t.Fatalf("got %v", err)
	}
	k.failSync.Store(nil)
	for name, f := range map[string]func() error{
		"flush":  func() error { return d.Flush(ctx) },
		"write":  func() error { return d.WriteAt(ctx, []byte{1}, 0, block.FUA) },
		"zeroes": func() error { return d.WriteZeroes(ctx, 0, 100, block.FUA) },
	} {
		if err := f(); !errors.Is(err, block.IO) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s after a failed flush: %v", name, err)
		}
	}
	if err := d.WriteAt(ctx, []byte{1}, 0, 0); err != nil {
		t.Errorf("a plain write promises nothing: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	again := openFile(t, d.path, block.OpenOptions{})
	if err := again.Flush(ctx); err != nil {
		t.Errorf("after opening again: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestFailedFUAPoisonsFlush(t *testing.T) {
	d, k := withFake(t, block.OpenOptions{})
	k.fail.Store(errno(unix.ENOSPC))
	if err := d.WriteAt(ctx, []byte{1}, 0, block.FUA); !errors.Is(err, block.NoSpace) {
		t.Errorf("got %v", err)
	}
	k.fail.Store(nil)
	if err := d.Flush(ctx); err != nil {
		t.Errorf("a full disk is no lost data: %v", err)
	}
	k.fail.Store(errno(unix.EIO))
	if err := d.WriteAt(ctx, []byte{1}, 0, block.FUA); !errors.Is(err, block.IO) {
		t.Errorf("got %v", err)
	}
	k.fail.Store(nil)
	if err := d.Flush(ctx); !errors.Is(err, block.IO) {
		t.Errorf("flush after failed write-back: %v", err)
	}
}

func TestFUAWithoutDsync(t *testing.T) {
	d, _ := withFake(t, block.OpenOptions{})
	k := &noDsync{}
	d.kern = k
	if err := d.WriteAt(ctx, []byte{1}, 0, block.FUA); err != nil || k.syncs.Load() != 1 {
		t.Errorf("%v, %d syncs", err, k.syncs.Load())
	}
}

type noDsync struct{ fake }

func (n *noDsync) pwrite(fd int, p []byte, off int64, dsync bool) (int, error) {
	if dsync {
		return -1, unix.EOPNOTSUPP
	}
	return n.fake.pwrite(fd, p, off, false)
}

// Flushes that come while one runs share the next one.
func TestFlushesShareASync(t *testing.T) {
	d, k := withFake(t, block.OpenOptions{})
	running, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k.inSync = func() { once.Do(func() { close(running); <-release }) }
	var wg sync.WaitGroup
	flush := func() {
		wg.Go(func() {
			if err := d.Flush(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	flush()
	<-running
	for range 20 {
		flush()
	}
	for d.gate.Inside() < 21 { // until all have come
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := k.syncs.Load(); n < 2 || n > 10 {
		t.Errorf("%d syncs for 21 flushes", n)
	}
}

func TestZeroingWithoutFallocate(t *testing.T) {
	none := func(uint32) error { return unix.EOPNOTSUPP }
	noRange := func(mode uint32) error {
		if mode&unix.FALLOC_FL_ZERO_RANGE != 0 {
			return unix.EOPNOTSUPP
		}
		return nil
	}
	for name, failing := range map[string]func(uint32) error{"none": none, "no zero range": noRange} {
		d, k := withFake(t, block.OpenOptions{})
		k.failAlloc = failing
		want := bytes.Repeat([]byte{3}, 1<<20)
		if err := d.WriteAt(ctx, want, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteZeroes(ctx, 5000, 300000, block.FastOnly); !errors.Is(err, block.Unsupported) {
			t.Errorf("%s: fast zeroing: %v", name, err)
		}
		got := make([]byte, 1<<20)
		if err := d.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: refused zeroing changed bytes (%v)", name, err)
		}
		for _, flags := range []block.Flags{0, block.MayUnmap, block.FUA} {
			if err := d.WriteZeroes(ctx, 5000, 300000, flags); err != nil {
				t.Errorf("%s: zeroing, flags %d: %v", name, flags, err)
			}
		}
		clear(want[5000:305000])
		if err := d.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: not zeroed (%v)", name, err)
		}
		if err := d.Discard(ctx, 0, 1<<20, block.FUA); err != nil {
			t.Errorf("%s: discard: %v", name, err)
		}
	}
}

// Somebody else cuts the file off.
func TestTruncatedFileIsAnIOError(t *testing.T) {
	for _, direct := range []bool{false, true} {
		d, _ := withFake(t, block.OpenOptions{Direct: direct})
		if err := os.Truncate(d.path, 5000); err != nil {
			t.Fatal(err)
		}
		err := d.ReadAt(ctx, make([]byte, 16384), 0)
		if !errors.Is(err, block.IO) || !strings.Contains(err.Error(), d.path) {
			t.Errorf("direct %v: %v", direct, err)
		}
		if !direct {
			if err := d.ReadNowait(make([]byte, 4096), 4096); err != block.ErrWouldBlock {
				t.Errorf("nowait: %v", err)
			}
		}
	}
}

// What a file that was cut off no longer has is not told as zeroes: a copy that
// leaves out holes would make a good image of half an image.
func TestTruncatedFileHasNoHoleBehindItsEnd(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for _, end := range []int64{0, 5000, 64 << 10, 200<<10 + 1} {
			d, _ := withFake(t, block.OpenOptions{Direct: direct})
			if err := d.WriteAt(ctx, make([]byte, 128<<10), 0, block.FUA); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(d.path, end); err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < 1<<20; off += 32 << 10 {
				got, err := d.Extents(ctx, off, 1<<20-off, make([]block.Extent, 0, 8))
				if err != nil {
					t.Fatal(err)
				}
				pos := off
				for _, e := range got {
					pos += e.Len
					if e.State != 0 && pos > end {
						t.Errorf("direct %v, ends at %d, asked at %d: %+v", direct, end, off, got)
					}
				}
				if pos != 1<<20 {
					t.Errorf("direct %v, ends at %d: told up to %d", direct, end, pos)
				}
			}
			got, err := d.Extents(ctx, 128<<10, 896<<10, make([]block.Extent, 0, 8))
			if hole := end > 128<<10; err != nil || (got[0].State&block.Hole != 0) != hole {
				t.Errorf("direct %v, ends at %d: %+v, %v", direct, end, got, err)
			}
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, direct := range []bool{false, true} {
		d := openFile(t, newFile(t, t.TempDir(), 1<<20), block.OpenOptions{Direct: direct})
		p := alignedBytes(8192)
		calls := map[string]func() error{
			"read":  func() error { return d.ReadAt(ctx, p, 8192) },
			"write": func() error { return d.WriteAt(ctx, p, 8192, 0) },
			"fua":   func() error { return d.WriteAt(ctx, p, 8192, block.FUA) },
			"flush": func() error { return d.Flush(ctx) },
		}
		if !direct {
			calls["nowait"] = func() error { return d.ReadNowait(p, 8192) }
			calls["pin"] = func() error {
				r, ok := d.PinRange(0, 4096)
				if !ok {
					return errors.New("not pinned")
				}
				d.UnpinRange(r)
				return nil
			}
		}
		for name, f := range calls {
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := testing.AllocsPerRun(20, func() { _ = f() }); n != 0 {
				t.Errorf("direct %v, %s: %v allocations", direct, name, n)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReadNowaitAnswersFromTheCacheOnly(t *testing.T) {
	d := openFile(t, newFile(t, t.TempDir(), 8<<20), block.OpenOptions{})
	if !d.Info().Has(block.CapNowait) {
		t.Fatal("the file system of the temporary folder has no RWF_NOWAIT: set TMPDIR to one on a disk")
	}
	p := bytes.Repeat([]byte{9}, 1<<20)
	for off := int64(0); off < 8<<20; off += 1 << 20 {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.ReadNowait(p[:4096], 4<<20); err != nil {
		t.Errorf("cached: %v", err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	evict(t, d.fd, func() bool {
		err := d.ReadNowait(p[:4096], 4<<20)
		if err != nil && err != block.ErrWouldBlock {
			t.Fatalf("not cached: %v", err)
		}
		return err == block.ErrWouldBlock
	})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
