//go:build interop

package fusefs

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writing is a file with a client whose write is in the device.
func writing(t *testing.T, fs *FS) (f *os.File, hold chan struct{}, written chan error) {
	t.Helper()
	d := newScripted(1 << 20)
	hold, written = make(chan struct{}), make(chan error, 1)
	f = opened(t, add(t, fs, File{Name: "disk", Device: d}), os.O_RDWR)
	d.set(nil, hold)
	go func() { written <- second(f.WriteAt(make([]byte, 4096), 0)) }()
	<-d.calls
	return f, hold, written
}

// A process that ends in order lets the requests end that have arrived.
func TestCloseWithinLetsRequestsEnd(t *testing.T) {
	fs := mounted(t)
	_, hold, written := writing(t, fs)
	disk := fs.tree.named("disk")
	closed := make(chan error, 1)
	go func() { closed <- fs.CloseWithin(ctx) }()
	for disk.gate.Enter() { // until nobody is let in any more
		disk.gate.Leave()
	}
	select {
	case err := <-written:
		t.Fatalf("the write ended before the device answered: %v", err)
	default:
	}
	close(hold)
	if err := <-written; err != nil {
		t.Errorf("the write: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Requests are told to give up when the time is over.
func TestCloseWithinItsTime(t *testing.T) {
	fs := mounted(t)
	_, hold, written := writing(t, fs)
	defer close(hold)
	soon, done := context.WithTimeout(ctx, 100*time.Millisecond)
	defer done()
	if err := fs.CloseWithin(soon); err != nil {
		t.Error(err)
	}
	if err := <-written; !errors.Is(err, unix.EIO) {
		t.Errorf("the write: %v", err)
	}
}

// A client's pages that cannot be written keep nobody from the rest of the mount when
// their file becomes smaller, nor from ending it.
func TestShrinkWhileTheDeviceHangs(t *testing.T) {
	fs := mounted(t)
	d, hold := newScripted(1<<20), make(chan struct{})
	f := opened(t, add(t, fs, File{Name: "disk", Device: d}), os.O_RDWR)
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	// A page fault would hold a thread that runs goroutines, and the server may need it;
	// a system call does not.
	if err := unix.Madvise(m, unix.MADV_POPULATE_WRITE); err != nil {
		t.Fatal(err)
	}
	m[0] = 1
	for len(d.calls) > 0 { // the page was read
		<-d.calls
	}
	d.set(nil, hold)
	d.mu.Lock()
	d.size = 512 << 10
	d.mu.Unlock()
	resized := make(chan error, 1)
	go func() { resized <- fs.Resized("disk") }()
	if what := <-d.calls; what != "write" {
		t.Fatalf("the kernel asked for a %s", what)
	}
	other := within(t, 10*time.Second, func() { close(hold) }, func() error {
		return fs.Add(File{Name: "other", Device: memDevice(t, "1M")})
	})
	if other != nil {
		t.Error(other)
	}
	soon, done := context.WithTimeout(ctx, 100*time.Millisecond)
	defer done()
	if err := within(t, 10*time.Second, func() { close(hold) }, func() error { return fs.CloseWithin(soon) }); err != nil {
		t.Error(err)
	}
	if err := <-resized; err != nil {
		t.Error(err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Error(err)
	}
}

// When the connection has been aborted nobody waits for what is in the device any more.
func TestCloseWithinAfterAnAbort(t *testing.T) {
	fs := mounted(t)
	_, hold, written := writing(t, fs)
	defer close(hold)
	if err := unix.Unmount(fs.Dir(), unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err == nil {
		t.Error("the write was answered")
	}
	<-fs.Done()
	if err := within(t, 10*time.Second, func() {}, func() error { return fs.CloseWithin(ctx) }); err != nil {
		t.Error(err)
	}
}
