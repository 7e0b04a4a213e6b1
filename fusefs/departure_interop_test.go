//go:build interop

package fusefs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// within gives what f gives, or lets go of what it waits for and fails the test.
func within(t *testing.T, limit time.Duration, letGo func(), f func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		letGo()
		t.Fatalf("not within %v", limit)
		return nil
	}
}

// A file whose client waits in a write, which holds the kernel's lock of it, is
// taken away by force all the same.
func TestForceEndsAWrite(t *testing.T) {
	for what, change := range map[string]func(f *os.File) error{
		"write": func(f *os.File) error { return second(f.WriteAt(make([]byte, 4096), 0)) },
		"punch": func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		},
	} {
		fs := mounted(t)
		d, hold := newScripted(1<<20), make(chan struct{})
		f := opened(t, add(t, fs, File{Name: what, Device: d}), os.O_RDWR)
		d.set(nil, hold)
		changed := make(chan error, 1)
		go func() { changed <- change(f) }()
		<-d.calls
		if err := within(t, 10*time.Second, func() { close(hold) }, func() error { return fs.Remove(ctx, what, true) }); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := <-changed; !errors.Is(err, unix.EIO) {
			t.Errorf("the %s in flight: %v", what, err)
		}
		if _, err := os.Stat(f.Name()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", what, err)
		}
	}
}

// A device that does not even end when it is told to keeps its own file waiting,
// and nothing else: not the folder, not other files, not their removal.
func TestForceBesideADeafDevice(t *testing.T) {
	fs := mounted(t)
	d, hold := newScripted(1<<20), make(chan struct{})
	d.deaf = true
	f := opened(t, add(t, fs, File{Name: "deaf", Device: d}), os.O_RDWR)
	other := add(t, fs, File{Name: "other", Device: memDevice(t, "1M")})
	d.set(nil, hold)
	changed := make(chan error, 1)
	go func() { changed <- second(f.WriteAt(make([]byte, 4096), 0)) }()
	<-d.calls
	ended, end := context.WithCancel(ctx)
	end()
	err := within(t, 10*time.Second, func() { close(hold) }, func() error {
		if err := fs.Remove(ended, "deaf", true); block.KindOf(err) != block.Canceled {
			t.Errorf("removed while its device is in use: %v", err)
		}
		if _, err := os.Stat(filepath.Join(fs.Dir(), "never looked up")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder: %v", err)
		}
		if err := fs.Resized("other"); err != nil {
			t.Error(err)
		}
		if err := fs.Remove(ctx, "other", false); err != nil {
			t.Error(err)
		}
		return second(fs.State())
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other is still there: %v", err)
	}
	close(hold)
	if err := fs.Remove(ctx, "deaf", true); err != nil && block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	if err := <-changed; err != nil {
		t.Errorf("the write that had reached the device: %v", err)
	}
}

// openingsTold tells of each opening and closing.
type openingsTold struct {
	nobody
	told chan int
}

func (o openingsTold) Open(delta int) { o.told <- delta }

// awaitCount waits until the file counts as open so many times. The kernel does not
// wait for us when it closes a file.
func (o openingsTold) awaitCount(t *testing.T, fs *FS, name string, want int) {
	t.Helper()
	for {
		n, err := fs.OpenCount(name)
		if err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		<-o.told
	}
}

// A file that is put back under its ID has its old clients again.
func TestPutBackWhileOpen(t *testing.T) {
	fs := mounted(t)
	counts := openingsTold{told: make(chan int, 64)}
	file := File{Name: "disk", Device: memDevice(t, "1M"), ID: 99, Observer: counts}
	path := add(t, fs, file)
	old, idle := opened(t, path, os.O_RDWR), opened(t, path, os.O_RDWR)
	if err := fs.Remove(ctx, "disk", true); err != nil {
		t.Fatal(err)
	}
	add(t, fs, file)
	if _, err := old.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("the old client: %v", err)
	}
	counts.awaitCount(t, fs, "disk", 1)
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	counts.awaitCount(t, fs, "disk", 0)
	if err := fs.Remove(ctx, "disk", false); block.KindOf(err) != block.Busy {
		t.Fatalf("removed while an idle client has it open: %v", err)
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	next := opened(t, path, os.O_RDWR)
	if err := fs.Remove(ctx, "disk", false); block.KindOf(err) != block.Busy {
		t.Fatalf("removed while open: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	counts.awaitCount(t, fs, "disk", 0)
	if err := fs.Remove(ctx, "disk", false); err != nil {
		t.Errorf("nobody has it open any more: %v", err)
	}
}

// A request whose client has gone keeps a file from going; force, later, ends it.
func TestForceAfterARemovalThatWaits(t *testing.T) {
	fs := mounted(t)
	d, hold := newScripted(1<<20), make(chan struct{})
	add(t, fs, File{Name: "disk", Device: d})
	d.set(nil, hold)
	disk := fs.tree.named("disk")
	if !disk.enter() {
		t.Fatal("it is not there")
	}
	flushed := make(chan error, 1)
	go func() {
		defer disk.leave()
		flushed <- disk.flush()
	}()
	<-d.calls
	ended, end := context.WithCancel(ctx)
	end()
	if err := fs.Remove(ended, "disk", false); block.KindOf(err) != block.Canceled {
		t.Errorf("removed while its device is in use: %v", err)
	}
	if err := within(t, 10*time.Second, func() { close(hold) }, func() error { return fs.Remove(ctx, "disk", true) }); err != nil &&
		block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	if err := <-flushed; !errors.Is(err, context.Canceled) {
		t.Errorf("the flush: %v", err)
	}
}

// openingsSum is how many times files count as open.
type openingsSum struct {
	nobody
	n *atomic.Int64
}

func (o openingsSum) Open(delta int) { o.n.Add(int64(delta)) }

// Who has a file open while it is taken away by force is counted no more, and once
// when the file is there again.
func TestOpeningsOfATakenFile(t *testing.T) {
	fs := mounted(t)
	sum := openingsSum{n: new(atomic.Int64)}
	file := File{Name: "disk", Device: memDevice(t, "1M"), ID: 99, Observer: sum}
	path := add(t, fs, file)
	f, idle := opened(t, path, os.O_RDWR), opened(t, path, os.O_RDWR)
	if n := sum.n.Load(); n != 2 {
		t.Errorf("open %d times", n)
	}
	if err := fs.Remove(ctx, "disk", true); err != nil {
		t.Fatal(err)
	}
	if n := sum.n.Load(); n != 0 {
		t.Errorf("taken away, and open %d times", n)
	}
	add(t, fs, file)
	if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	if n := sum.n.Load(); n != 1 {
		t.Errorf("seen again, and open %d times", n)
	}
	if err := errors.Join(f.Close(), idle.Close()); err != nil {
		t.Error(err)
	}
	until(t, "the last close", func() bool { return sum.n.Load() == 0 })
}

// The target of a copy can be taken away though the source does not answer.
func TestTargetOfACopyThatHangs(t *testing.T) {
	fs := mounted(t)
	d := newHanging(t)
	from := opened(t, add(t, fs, File{Name: "from", Device: d}), os.O_RDONLY)
	to := opened(t, add(t, fs, File{Name: "to", Device: memDevice(t, "4M")}), os.O_RDWR)
	d.hang("read")
	copied := make(chan error, 1)
	go func() {
		_, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 1<<20, 0)
		copied <- err
	}()
	<-d.calls
	if err := within(t, 10*time.Second, d.release, func() error { return fs.Remove(ctx, "to", true) }); err != nil {
		t.Error(err)
	}
	d.release()
	if err := <-copied; !errors.Is(err, unix.EIO) {
		t.Errorf("the copy: %v", err)
	}
}
