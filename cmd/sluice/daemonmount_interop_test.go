//go:build interop

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/lab"
)

// What became of a mount while nobody served it, and the manager kept it.

// kept counts what the manager keeps of the mount.
func (d *managed) kept() (mounts, states int) {
	for _, name := range d.m.Stored() {
		switch name {
		case "fuse":
			mounts++
		case "fuse-state":
			states++
		}
	}
	return mounts, states
}

// TestDeadMountIsMountedAnew: somebody has ended the connection that the manager
// keeps. The next process finds that out before it is ready, gives it up and mounts
// again; it goes on, and so do NBD clients.
func TestDeadMountIsMountedAnew(t *testing.T) {
	lab.Need(t, "qemu-io")
	for name, inUse := range map[string]bool{"unmounted": false, "aborted": true} {
		t.Run(name, func(t *testing.T) {
			d := newManaged(t)
			image := d.image("disk")
			file, uri := filepath.Join(d.mount, "disk"), "nbd+unix:///disk?socket="+d.at("nbd")
			qemuIO(t, file, "write -P 0x11 1M 64k")
			if inUse { // the dead mount stays where it is
				client := lab.Start(t, "sh", "-c", `exec 3<>"$0"; echo open; exec sleep 1000`, file)
				client.Expect("open")
			}
			d.m.Kill9()
			if err := unix.Unmount(d.mount, unix.MNT_FORCE); inUse != errors.Is(err, unix.EBUSY) {
				t.Fatalf("umount -f: %v", err)
			}
			d.m.Restart()
			qemuIO(t, file, "read -P 0x11 1M 64k", "write -P 0x22 2M 64k", "flush")
			qemuIO(t, uri, "read -P 0x11 1M 64k", "read -P 0x22 2M 64k")
			if mounts, states := d.kept(); mounts != 1 || states != 1 {
				t.Errorf("stored: %q", d.m.Stored())
			}
			// What is kept now is the new mount.
			d.m.Kill9()
			d.m.Restart()
			qemuIO(t, file, "read -P 0x22 2M 64k")
			if err := d.m.End(); err != nil {
				t.Errorf("the end: %v", err)
			}
			qemuIO(t, image, "read -P 0x22 2M 64k")
		})
	}
}

// TestOthersMountIsLeft: where the mount was, something else is mounted by now, and
// the configuration has another folder.
func TestOthersMountIsLeft(t *testing.T) {
	lab.Need(t, "qemu-io")
	for name, mount := range map[string]func(t *testing.T, dir string) (file string){
		"tmpfs": func(t *testing.T, dir string) string {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			path := filepath.Join(dir, "somebodys")
			if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		},
		"sluice serve": func(t *testing.T, dir string) string {
			image, _ := imageFile(t, t.TempDir(), "somebodys", 1<<20)
			p := lab.Start(t, lab.Sluice(t), "serve", image, "--fuse", dir)
			return strings.TrimPrefix(p.Ready(), "fuse ")
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newManaged(t)
			d.image("disk")
			d.m.Kill9()
			if err := unix.Unmount(d.mount, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			others := mount(t, d.mount)
			other := t.TempDir()
			t.Cleanup(func() { _ = unix.Unmount(other, unix.MNT_DETACH) })
			args := slices.Clone(d.args)
			args[slices.Index(args, "--fuse")+1] = other
			d.m.Start(lab.Sluice(t), args...)
			d.m.Ready()
			qemuIO(t, others, "write -P 0x33 0 4k", "read -P 0x33 0 4k")
			qemuIO(t, filepath.Join(other, "disk"), "write -P 0x44 0 4k", "read -P 0x44 0 4k")
			if mounts, states := d.kept(); mounts != 1 || states != 1 {
				t.Errorf("stored: %q", d.m.Stored())
			}
			if err := d.m.Stop(); err != nil {
				t.Errorf("the end: %v", err)
			}
			if _, err := os.Stat(others); err != nil {
				t.Errorf("the other mount, after the end: %v", err)
			}
		})
	}
}

// TestStoppedMountIsInTheWay: somebody's mount whose server does not answer is left, and
// nobody waits for it.
func TestStoppedMountIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	image, _ := imageFile(t, t.TempDir(), "disk", 1<<20)
	server := lab.Start(t, lab.Sluice(t), "serve", image, "--fuse", dir)
	server.Ready()
	server.Signal(unix.SIGSTOP)
	t.Cleanup(func() { server.Signal(unix.SIGCONT) })
	for _, args := range [][]string{
		{"daemon", "--state", t.TempDir(), "--api", "unix:" + lab.Socket(t), "--nbd", "unix:" + lab.Socket(t), "--fuse", dir, "--metrics", "none"},
		{"serve", "mem://1M", "--fuse", dir},
	} {
		p := lab.Start(t, lab.Sluice(t), args...)
		if err := p.WaitFor(30 * time.Second); err == nil || !strings.Contains(p.Output(), "something is mounted there already") {
			t.Errorf("%v: %v\n%s", args, err, p.Output())
		}
	}
}
