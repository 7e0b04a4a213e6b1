//go:build interop

package file

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/blocktest"
)

// These tests need root, qemu-io, qemu-nbd, qemu-system-x86_64, losetup, mount
// and mkfs.ext4.

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// qemuIO runs one qemu-io command on the image and gives its error text.
func qemuIO(t *testing.T, path, command string, args ...string) string {
	t.Helper()
	out, err := exec.Command("qemu-io", append(args, "-f", "raw", "-c", command, path)...).CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func TestQEMUIsRefusedWhileWeHoldTheImage(t *testing.T) {
	path := newFile(t, t.TempDir(), 1<<20)
	cases := []struct {
		opts          block.OpenOptions
		write, read   string // what qemu-io says
		writer, shown string
	}{
		{block.OpenOptions{}, `Failed to get "write" lock`, "", "we write", ""},
		{block.OpenOptions{ReadOnly: true}, `Failed to get "write" lock`, "", "we read", ""},
		{block.OpenOptions{Share: true}, "", "", "we share", ""},
		{block.OpenOptions{Unlocked: true}, "", "", "we hold no lock", ""},
	}
	for _, c := range cases {
		d := openFile(t, path, c.opts)
		if got := qemuIO(t, path, "write 0 512"); (c.write == "") != (got == "") || !strings.Contains(got, c.write) {
			t.Errorf("%s: qemu-io writing says %q, want %q", c.writer, got, c.write)
		}
		if got := qemuIO(t, path, "read 0 512", "-r"); got != c.read {
			t.Errorf("%s: qemu-io reading says %q, want %q", c.writer, got, c.read)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if got := qemuIO(t, path, "write 0 512"); got != "" {
			t.Errorf("%s, closed: qemu-io says %q", c.writer, got)
		}
	}
}

// qemu starts a virtual machine, stopped, with the image as a disk, and returns
// when it has opened it.
func qemu(t *testing.T, path, drive, device string) (stop func()) {
	t.Helper()
	cmd := exec.Command("qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-machine", "accel=tcg", "-monitor", "stdio",
		"-drive", "if=none,id=d,format=raw,file="+path+drive, "-device", "virtio-blk-pci,drive=d"+device)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "info block\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "Attached to:") {
	}
	return func() {
		_, _ = io.WriteString(in, "quit\n")
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("qemu: %v", err)
		}
	}
}

func TestWeAreRefusedWhileQEMUHoldsTheImage(t *testing.T) {
	path := newFile(t, t.TempDir(), 1<<20)
	rw, ro := block.OpenOptions{}, block.OpenOptions{ReadOnly: true}
	share, none := block.OpenOptions{Share: true}, block.OpenOptions{Unlocked: true}
	for _, c := range []struct {
		drive, device string
		opts          block.OpenOptions
		busy          bool
	}{
		{"", "", rw, true},
		{"", "", ro, true},
		{"", "", share, true},
		{"", "", none, false},
		{"", ",share-rw=on", rw, true},
		{"", ",share-rw=on", share, false},
		{",readonly=on", "", rw, true},
		{",readonly=on", "", ro, false},
		{",file.locking=off", "", rw, false},
	} {
		stop := qemu(t, path, c.drive, c.device)
		d, err := Open(ctx, path, c.opts)
		if c.busy && !errors.Is(err, block.Busy) || !c.busy && err != nil {
			t.Errorf("qemu %q %q, we %+v: %v", c.drive, c.device, c.opts, err)
		}
		if c.busy && err != nil && (!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("not one line that names the image: %q", err)
		}
		if err == nil {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
		stop()
	}
	d := openFile(t, path, rw)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestQEMUNBDRefusesAndIsRespected(t *testing.T) {
	dir := t.TempDir()
	path, socket := newFile(t, dir, 1<<20), filepath.Join(dir, "s")
	d := openFile(t, path, block.OpenOptions{})
	cmd := exec.Command("qemu-nbd", "-f", "raw", "-k", socket, path)
	cmd.Stderr = new(bytes.Buffer)
	if err := cmd.Run(); err == nil || !strings.Contains(fmt.Sprint(cmd.Stderr), "lock") {
		t.Errorf("qemu-nbd: %v, %s", err, cmd.Stderr)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	pidFile := filepath.Join(dir, "pid")
	run(t, "qemu-nbd", "--fork", "--pid-file", pidFile, "-f", "raw", "-k", socket, path) // back when it serves
	pid, err := strconv.Atoi(run(t, "cat", pidFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, path, block.OpenOptions{}); !errors.Is(err, block.Busy) {
		t.Errorf("while qemu-nbd serves the image: %v", err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after, err := Open(ctx, path, block.OpenOptions{})
	for errors.Is(err, block.Busy) { // until it is gone, and its lock with it
		runtime.Gosched()
		after, err = Open(ctx, path, block.OpenOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := after.Close(); err != nil {
		t.Error(err)
	}
}

// loop gives a loop device on a new file.
func loop(t testing.TB, size int64, args ...string) string {
	t.Helper()
	backing := newFile(t, t.TempDir(), size)
	dev := run(t, "losetup", append(args, "--find", "--show", backing)...)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

func TestSuiteOnLoopDevice(t *testing.T) {
	for _, c := range []struct {
		name   string
		direct bool
		args   []string
	}{{"cached", false, nil}, {"direct", true, nil}, {"direct 4K", true, []string{"--sector-size", "4096"}}} {
		var dev string
		open := func(t testing.TB) block.Device {
			return openFile(t, dev, block.OpenOptions{Direct: c.direct, Share: true})
		}
		blocktest.Suite{
			Name: c.name,
			Open: func(t testing.TB) block.Device {
				dev = loop(t, 2<<20, c.args...)
				return open(t)
			},
			Reopen: open,
		}.Run(t)
	}
}

func TestLoopDeviceTellsItsSizes(t *testing.T) {
	d := openFile(t, loop(t, 2<<20, "--sector-size", "4096"), block.OpenOptions{Direct: true})
	info := d.Info()
	if info.Size != 2<<20 || info.Block.Min != 4096 || info.Has(block.CapResize) || info.Has(block.CapExtents) {
		t.Errorf("%+v", info)
	}
	if err := d.WriteAt(ctx, make([]byte, 512), 512, 0); !errors.Is(err, block.Invalid) {
		t.Errorf("a part of a block: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A loop device on a file system that punches holes frees space on a discard.
func TestLoopDeviceDiscards(t *testing.T) {
	dev := loop(t, 8<<20)
	d := openFile(t, dev, block.OpenOptions{})
	backing := run(t, "losetup", "--noheadings", "--output", "BACK-FILE", dev)
	used := func() string { return run(t, "stat", "--format", "%b", backing) }
	if err := d.WriteAt(ctx, bytes.Repeat([]byte{1}, 8<<20), 0, block.FUA); err != nil {
		t.Fatal(err)
	}
	full := used()
	if err := d.Discard(ctx, 100, 8<<20-200, block.FUA); err != nil {
		t.Fatal(err)
	}
	if now := used(); now == full {
		t.Errorf("still %s blocks", now)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// mountSmall mounts a file system with room for some MiB.
func mountSmall(t *testing.T, kind string) string {
	t.Helper()
	dir := t.TempDir()
	if kind == "tmpfs" {
		run(t, "mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", dir)
	} else {
		image := newFile(t, t.TempDir(), 32<<20)
		run(t, "mkfs.ext4", "-q", "-m", "0", image)
		run(t, "mount", "-o", "loop", image, dir)
	}
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

// A full file system: the write that finds no room says so, what was written
// before is there, and when room appears the device works on.
func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			dir := mountSmall(t, kind)
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			d := openFile(t, newFile(t, dir, 256<<20), block.OpenOptions{})
			p, written := make([]byte, 256<<10), int64(0)
			fill := func() error {
				for ; ; written += int64(len(p)) {
					for i := range p {
						p[i] = byte(written>>18) + 1
					}
					if err := d.WriteAt(ctx, p, written, block.FUA); err != nil {
						return err
					}
				}
			}
			if err := fill(); !errors.Is(err, block.NoSpace) {
				t.Fatalf("after %d bytes: %v", written, err)
			}
			if err := d.Flush(ctx); err != nil {
				t.Errorf("flush: %v", err)
			}
			if err := d.WriteZeroes(ctx, 128<<20, 64<<20, 0); !errors.Is(err, block.NoSpace) {
				t.Errorf("zeroing with allocation: %v", err)
			}
			before := written
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := d.Discard(ctx, 128<<20, 128<<20, 0); err != nil { // what zeroing took before it failed
				t.Fatal(err)
			}
			if err := fill(); !errors.Is(err, block.NoSpace) || written == before {
				t.Errorf("after room was made: %d bytes more, %v", written-before, err)
			}
			for off := int64(0); off < written; off += int64(len(p)) {
				if err := d.ReadAt(ctx, p, off); err != nil || p[0] != byte(off>>18)+1 || p[len(p)-1] != p[0] {
					t.Fatalf("at %d: %d … %d, %v", off, p[0], p[len(p)-1], err)
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Create on a full file system leaves nothing.
func TestCreateOnFullDiskLeavesNothing(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		dir := mountSmall(t, kind)
		s, err := OpenStore(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		_, free, err := s.(block.SpaceTeller).Space(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, pre := range []block.Preallocation{block.PreallocateFalloc, block.PreallocateFull} {
			err := s.Create(ctx, "big", block.CreateOptions{Size: 64 << 20, Preallocate: pre})
			if !errors.Is(err, block.NoSpace) {
				t.Errorf("%s, %s: %v", kind, pre, err)
			}
			if _, err := s.Stat(ctx, "big"); !errors.Is(err, block.NotFound) {
				t.Errorf("%s, %s: %v", kind, pre, err)
			}
		}
		if _, now, err := s.(block.SpaceTeller).Space(ctx); err != nil || now < free-(1<<20) {
			t.Errorf("%s: %d bytes free, were %d (%v)", kind, now, free, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
