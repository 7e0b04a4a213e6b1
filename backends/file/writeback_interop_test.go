//go:build interop

package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// thin gives a loop device that is larger than what its file system has room for,
// like a volume of a thin pool, and a function that makes more room.
func thin(t *testing.T) (dev string, extend func()) {
	t.Helper()
	dir := mountSmall(t, "ext4")
	ballast := newFile(t, dir, 0)
	run(t, "fallocate", "--length", "12M", ballast)
	backing := newFile(t, dir, 256<<20)
	dev = run(t, "losetup", "--direct-io=on", "--find", "--show", backing)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev, func() { run(t, "rm", ballast) }
}

// More is written to a file than the volume beneath has room for. Write-back
// fails, and a write with FUA beside it is told first. Then the volume is given
// room, the write is repeated and succeeds: the flush must still fail, for the
// bytes that were acknowledged are gone.
func TestLossOnAThinVolumeIsNotForgotten(t *testing.T) {
	dev, extend := thin(t)
	dir := t.TempDir()
	run(t, "mkfs.ext4", "-q", "-E", "nodiscard", "-O", "^has_journal", dev)
	run(t, "mount", "-o", "errors=continue", dev, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "--size", "128M", path)
	run(t, "sync", path)
	d := openFile(t, path, block.OpenOptions{})
	p := bytes.Repeat([]byte{7}, 1<<20)
	for off := int64(1 << 20); off < 65<<20; off += int64(len(p)) {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	kernelWritesBack(t, path)
	fua := func() error { return d.WriteAt(ctx, p[:4096], 0, block.FUA) }
	if err := fua(); !errors.Is(err, block.IO) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the write with FUA: %v", err)
	}
	extend()
	if err := fua(); err == nil {
		t.Error("the write with FUA, repeated, hides that others are lost")
	}
	if err := d.Flush(ctx); err == nil {
		t.Error("the flush says that all is well")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if !lost(t, path, p) {
		t.Error("nothing was lost: the test tests nothing")
	}
}

// kernelWritesBack makes the kernel write all dirty pages, which must fail, and
// tells nobody else.
func kernelWritesBack(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fdatasync(fd); err != unix.ENOSPC {
		t.Fatalf("write-back: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

// lost reports whether the medium lacks what was written from 1 to 65 MiB.
func lost(t *testing.T, path string, p []byte) bool {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	for off := int64(1 << 20); off < 65<<20; off += int64(len(p)) {
		if n, err := unix.Pread(fd, got, off); err != nil || n < len(got) || !bytes.Equal(got, p) {
			return true
		}
	}
	return false
}
