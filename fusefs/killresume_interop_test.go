//go:build interop

package fusefs

import (
	"bytes"
	"context"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/internal/lab"
)

// A server stops with requests in a device that hangs, and another goes on: the
// write of a client that was let go before is not asked for again, and a client
// that was killed in between is let go by the next server, whose device hangs too.
func TestKilledAcrossARestart(t *testing.T) {
	lab.Need(t, "dd")
	const n = 64 << 10
	ones := patterned(t, 1, n)
	cfg := Config{Dir: t.TempDir()}
	before, after := newHanging(t), newHanging(t)
	fs, err := Mount(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(cfg.Dir, unix.MNT_FORCE|unix.MNT_DETACH) // when the test failed
		_ = fs.Close()
	})
	t.Cleanup(before.release)
	path := add(t, fs, File{Name: "disk", Device: before, ID: resumedID})
	before.hang("write")
	writer := lab.Start(t, "dd", "if="+ones, "of="+path, "bs=64k", "conv=notrunc")
	<-before.calls
	killed(t, writer, syscall.SIGKILL)
	reader := lab.Start(t, "dd", "if="+path, "of=/dev/null", "bs=64k")
	until(t, "the read", func() bool { return waitingInLine(fs, "disk") > 0 })
	state, err := fs.State()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(uintptr(fs.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	leave(t, fs)
	reader.Signal(syscall.SIGKILL)

	next, err := Resume(cfg, fd, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	t.Cleanup(after.release)
	after.hang("read")
	add(t, next, File{Name: "disk", Device: after, ID: resumedID})
	if err := next.Serve(); err != nil {
		t.Fatal(err)
	}
	killed(t, reader, syscall.SIGKILL)
	after.release()
	before.release() // its replies are not sent
	if !bytes.Equal(readAll(t, path, n), make([]byte, n)) {
		t.Error("the write of a client that had been let go was carried out again")
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// waitingInLine is how many requests of a file have no place.
func waitingInLine(fs *FS, name string) int {
	w := &fs.tree.named(name).work
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.n
}

// leave detaches a file system whose device hangs: it does not wait for that.
func leave(t *testing.T, fs *FS) {
	t.Helper()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	detached := make(chan error)
	go func() { detached <- fs.Detach(ctx) }()
	until(t, "the end of the readers that wait", func() bool { return fs.loop.leaving.Load() && !fs.loop.waiting.Load() })
	giveUp()
	if err := <-detached; block.KindOf(err) != block.Canceled {
		t.Fatalf("detach: %v", err)
	}
}
