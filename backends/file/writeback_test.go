package file

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// writeBack is the kernel with its memory of failed write-back: each failure is
// told to each descriptor once.
type writeBack struct {
	fake
	mu     sync.Mutex
	failed int // failures so far
	err    unix.Errno
	told   map[int]int // to each descriptor, so many

	afterConsumed func(off int64) // a synced write was told, and has not returned yet
}

func (w *writeBack) fails(e unix.Errno) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed, w.err = w.failed+1, e
}

func (w *writeBack) tell(fd int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told[fd] == w.failed {
		return nil
	}
	w.told[fd] = w.failed
	return w.err
}

func (w *writeBack) pwrite(fd int, p []byte, off int64, dsync bool) (int, error) {
	n, err := w.fake.pwrite(fd, p, off, dsync)
	if err == nil && dsync {
		if err := w.tell(fd); err != nil {
			if w.afterConsumed != nil {
				w.afterConsumed(off)
			}
			return 0, err
		}
	}
	return n, err
}

func (w *writeBack) fdatasync(fd int) error {
	if err := w.tell(fd); err != nil {
		return err
	}
	return w.fake.fdatasync(fd)
}

func (w *writeBack) writeBackError(fd int, _ int64) error { return w.tell(fd) }

func withWriteBack(t *testing.T) (*Device, *writeBack) {
	t.Helper()
	d := openFile(t, newFile(t, t.TempDir(), 1<<20), block.OpenOptions{})
	k := &writeBack{told: map[int]int{}}
	d.kern = k
	t.Cleanup(func() { _ = d.Close() })
	return d, k
}

// A write with FUA may be the first to be told that an acknowledged write is
// gone, whatever the cause. That it fails is not enough: the guest repeats it and
// flushes.
func TestFUAWriteDoesNotSwallowTheLossOfAnother(t *testing.T) {
	for _, e := range []unix.Errno{
		unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.ETIMEDOUT, unix.ENOLINK, unix.ENODATA, unix.EREMOTEIO, unix.ENODEV, unix.ENXIO,
		unix.EBADE, unix.EILSEQ, unix.ESTALE, unix.EFBIG,
	} {
		d, k := withWriteBack(t)
		if err := d.WriteAt(ctx, []byte("acknowledged"), 0, 0); err != nil {
			t.Fatal(err)
		}
		k.fails(e)
		fua := func() error { return d.WriteAt(ctx, []byte("another"), 4096, block.FUA) }
		if err := fua(); !errors.Is(err, e) {
			t.Errorf("%v: the write with FUA says %v", e, err)
		}
		if err := fua(); !errors.Is(err, e) {
			t.Errorf("%v: repeated: %v", e, err)
		}
		if err := d.Flush(ctx); !errors.Is(err, e) {
			t.Errorf("%v: the flush says %v", e, err)
		}
	}
}

// What holds requests until the storage is back, or until there is room, must not
// take a loss for something that passes, whatever the cause.
func TestLossIsNothingToWaitFor(t *testing.T) {
	for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.ETIMEDOUT, unix.ESTALE, unix.EHOSTDOWN, unix.EIO} {
		d, k := withWriteBack(t)
		if err := d.WriteAt(ctx, []byte("acknowledged"), 0, 0); err != nil {
			t.Fatal(err)
		}
		k.fails(e)
		for _, what := range []string{"first", "second"} {
			if err := d.Flush(ctx); block.KindOf(err) != block.IO {
				t.Errorf("%v: the %s flush has kind %v: %v", e, what, block.KindOf(err), err)
			}
			if err := d.WriteAt(ctx, []byte{1}, 4096, block.FUA); block.KindOf(err) != block.IO {
				t.Errorf("%v: after the %s flush a write with FUA has kind %v: %v", e, what, block.KindOf(err), err)
			}
		}
	}
}

// While the file system is full, writes fail for a reason of their own; that
// does not hide a loss, and is none.
func TestFullFileSystemAndLossAreToldApart(t *testing.T) {
	for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.ENOMEM} {
		for _, loss := range []bool{false, true} {
			d, k := withWriteBack(t)
			k.fail.Store(errno(e))
			if loss {
				k.fails(unix.ENOSPC)
			}
			if err := d.WriteAt(ctx, []byte{1}, 0, block.FUA); err == nil {
				t.Errorf("%v, loss %v: the write worked", e, loss)
			}
			k.fail.Store(nil)
			err, flush := d.WriteAt(ctx, []byte{1}, 0, block.FUA), d.Flush(ctx)
			if (err != nil) != loss || (flush != nil) != loss {
				t.Errorf("%v, loss %v: then %v, %v", e, loss, err, flush)
			}
		}
	}
}

// Write-back of two writes with FUA fails, one of them is told. The other must
// not succeed in the time until the first has returned.
func TestFUAWritesThatFailTogether(t *testing.T) {
	d, k := withWriteBack(t)
	k.fails(unix.EIO)
	second := make(chan error, 1)
	k.afterConsumed = func(off int64) {
		if off == 0 {
			second <- d.WriteAt(ctx, []byte{2}, 4096, block.FUA)
		}
	}
	if err := d.WriteAt(ctx, []byte{1}, 0, block.FUA); !errors.Is(err, unix.EIO) {
		t.Errorf("the first: %v", err)
	}
	if err := <-second; !errors.Is(err, unix.EIO) {
		t.Errorf("the second: %v", err)
	}
}

// The real kernel has nothing to tell of a file that is fine, and tells a
// witness nothing of other descriptors' errors.
func TestWitnessOfAHealthyFile(t *testing.T) {
	d := openFile(t, newFile(t, t.TempDir(), 1<<20), block.OpenOptions{})
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			for range 20 {
				if err := d.WriteAt(ctx, []byte{1}, i*8192, block.FUA); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	if err := d.kern.writeBackError(d.syncs.witness, 0); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
