//go:build interop

package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// partitioned gives a loop device with one partition.
func partitioned(t *testing.T) (dev, part string) {
	t.Helper()
	dev = loop(t, 32<<20, "--partscan")
	run(t, "addpart", dev, "1", "2048", "63488")
	t.Cleanup(func() { run(t, "delpart", dev, "1") })
	return dev, dev + "p1"
}

// Nobody writes under a mounted file system, neither through a path nor through
// a store; to look at it is allowed, and so is to write for whoever insists.
func TestMountedDeviceIsNotWritten(t *testing.T) {
	dev, dir, content := loop(t, 32<<20), t.TempDir(), bytes.Repeat([]byte("content"), 1000)
	run(t, "mkfs.ext4", "-q", dev)
	run(t, "mount", dev, dir)
	t.Cleanup(func() { run(t, "e2fsck", "-f", "-n", dev) })
	t.Cleanup(func() { run(t, "umount", dir) })
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, "/dev")
	openers := map[string]func(opts block.OpenOptions) (block.Device, error){
		"path":  func(opts block.OpenOptions) (block.Device, error) { return Open(ctx, dev, opts) },
		"url":   func(opts block.OpenOptions) (block.Device, error) { return Open(ctx, "file://"+dev+"?lock=on", opts) },
		"store": func(opts block.OpenOptions) (block.Device, error) { return store.Open(ctx, filepath.Base(dev), opts) },
	}
	for name, open := range openers {
		for _, direct := range []bool{false, true} {
			_, err := open(block.OpenOptions{Direct: direct})
			wantKind(t, err, block.Busy, name)
			if err != nil && !(strings.Contains(err.Error(), dev) && strings.Contains(err.Error(), "unmount")) {
				t.Errorf("%s: %v", name, err)
			}
			d, err := open(block.OpenOptions{ReadOnly: true, Direct: direct})
			wantKind(t, err, block.OK, name+" to read")
			if err == nil {
				wantKind(t, d.Close(), block.OK, "close")
			}
		}
	}
	for _, insist := range []string{"?share=on", "?lock=off"} {
		d, err := Open(ctx, "file://"+dev+insist, block.OpenOptions{})
		wantKind(t, err, block.OK, insist)
		if err == nil {
			wantKind(t, d.Close(), block.OK, "close")
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file in it changed (%v)", err)
	}
}

// A disk of which a partition is mounted is in use as well.
func TestDiskWithAMountedPartitionIsNotWritten(t *testing.T) {
	dev, part := partitioned(t)
	dir := t.TempDir()
	run(t, "mkfs.ext4", "-q", part)
	run(t, "mount", part, dir)
	mounted := true
	unmount := func() {
		if mounted {
			run(t, "umount", dir)
		}
		mounted = false
	}
	t.Cleanup(unmount)
	for _, path := range []string{dev, part} {
		_, err := Open(ctx, path, block.OpenOptions{})
		wantKind(t, err, block.Busy, path)
	}
	unmount()
	for _, path := range []string{dev, part} {
		d, err := Open(ctx, path, block.OpenOptions{})
		wantKind(t, err, block.OK, path)
		if err == nil {
			wantKind(t, d.Close(), block.OK, "close")
		}
	}
}

// While we write a device, nobody mounts it; and our own second openings of it
// work: those of an odd size with O_DIRECT, of the witness, of who shares.
func TestWrittenDeviceIsNotMounted(t *testing.T) {
	dev := loop(t, 32<<20+512)
	run(t, "mkfs.ext4", "-q", dev)
	dir := t.TempDir()
	for _, opts := range []block.OpenOptions{{}, {Direct: true}} {
		d := openFile(t, dev, opts)
		p := alignedBytes(512)
		if err := d.ReadAt(ctx, p, 32<<20-512); err != nil {
			t.Error(err)
		}
		if err := d.WriteAt(ctx, p, 32<<20-512, block.FUA); err != nil {
			t.Error(err)
		}
		if err := unix.Mount(dev, dir, "ext4", 0, ""); !errors.Is(err, unix.EBUSY) {
			t.Errorf("mounted: %v", err)
		}
		second, err := Open(ctx, dev, block.OpenOptions{})
		wantKind(t, err, block.Busy, "a second writer")
		if err == nil {
			_ = second.Close()
		}
		if got, err := InUse(dev); !got || err != nil {
			t.Errorf("in use: %v, %v", got, err)
		}
		wantKind(t, d.Close(), block.OK, "close")
	}
	share := block.OpenOptions{Share: true}
	a, b := openFile(t, dev, share), openFile(t, dev, share)
	wantKind(t, a.Close(), block.OK, "close")
	wantKind(t, b.Close(), block.OK, "close")
	if err := unix.Mount(dev, dir, "ext4", 0, ""); err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	run(t, "umount", dir)
}
