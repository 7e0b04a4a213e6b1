//go:build interop

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/lab"
)

// managed is a daemon under a service manager that keeps its sockets, and its FUSE
// mount, while it is restarted.
type managed struct {
	t     *testing.T
	m     *lab.ServiceManager
	dir   string
	mount string
	args  []string
}

// newManaged starts a daemon with a FUSE mount. Its sockets are its own: it gives
// them to the manager to keep.
func newManaged(t *testing.T, more ...string) *managed {
	t.Helper()
	d := &managed{t: t, m: lab.NewServiceManager(t), dir: filepath.Dir(lab.Socket(t)), mount: t.TempDir()}
	d.m.Setenv("FDSTORE", "64")
	d.args = append([]string{"daemon", "--state", filepath.Join(d.dir, "state"), "--api", "unix:" + d.at("api"), "--nbd", "unix:" + d.at("nbd"),
		"--fuse", d.mount, "--metrics", "none"}, more...)
	d.m.Start(lab.Sluice(t), d.args...)
	d.m.Ready()
	t.Cleanup(func() { _ = unix.Unmount(d.mount, unix.MNT_DETACH) })
	return d
}

func (d *managed) at(name string) string { return filepath.Join(d.dir, name) }

// image makes an image and an export of it.
func (d *managed) image(name string, flags ...string) (image string) {
	d.t.Helper()
	image = filepath.Join(d.t.TempDir(), name+".img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		d.t.Fatal(err)
	}
	lab.Run(d.t, lab.Sluice(d.t), append([]string{"export", "--api", "unix:" + d.at("api"), "add", name, image}, flags...)...)
	return image
}

// restarts has a guest work on a disk while the daemon is killed, and asked to
// end, and started again.
func (d *managed) restarts(disk string) {
	d.t.Helper()
	guest := lab.StartGuestLoad(d.t, lab.GuestConfig{Disks: []string{disk}, Reconnect: 30})
	guest.BearRestarts(func() {
		d.m.Kill9()
		d.m.Restart()
	}, func() {
		if err := d.m.End(); err != nil {
			d.t.Errorf("the daemon's end: %v", err)
		}
		d.m.Restart()
	})
}

// guestWrote fails unless the first thing that the guest wrote is in the image.
func guestWrote(t *testing.T, image string) {
	t.Helper()
	data, err := os.ReadFile(image)
	if err != nil || !bytes.HasPrefix(data[64<<10:], fmt.Appendf(nil, "%-512d", 1)) {
		t.Errorf("the first thing that the guest wrote is not in the image: %v", err)
	}
}

// TestGuestBearsADaemonThatDies: over NBD, with QEMU's reconnect-delay.
func TestGuestBearsADaemonThatDies(t *testing.T) {
	d := newManaged(t)
	image := d.image("disk")
	d.restarts("nbd+unix:///disk?socket=" + d.at("nbd"))
	guestWrote(t, image)
}

// TestGuestOnAFileBearsADaemonThatDies: the disk is a file of the daemon's mount,
// which the manager keeps.
func TestGuestOnAFileBearsADaemonThatDies(t *testing.T) {
	d := newManaged(t)
	image := d.image("disk")
	d.restarts(filepath.Join(d.mount, "disk"))
	guestWrote(t, image)
}

// TestFileWaitsForItsImage: the storage is away when the daemon is started again.
// A client that has the file open, and one that comes then, wait until it is back.
func TestFileWaitsForItsImage(t *testing.T) {
	d := newManaged(t)
	image := filepath.Join(t.TempDir(), "far.img")
	if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	far := func() *lab.Proc {
		p := lab.Start(t, lab.Sluice(t), "serve", image, "--nbd", "unix:"+d.at("far"))
		p.Ready()
		return p
	}
	server := far()
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "add", "far", "nbd+unix:///?timeout=1s&socket="+d.at("far"))
	file := filepath.Join(d.mount, "far")
	sign, goOn := gate(t)
	early := lab.Start(t, "sh", "-c", `exec 3<>"$0"; echo open; read -r _ <"$1"; printf early >&3 && echo written`, file, sign)
	early.Expect("open")
	server.Kill9()
	d.m.Kill9()
	d.m.Restart()
	goOn()
	late := lab.Start(t, "dd", "if=/dev/zero", "of="+file, "bs=4k", "count=1", "seek=1", "oflag=direct", "conv=notrunc")
	early.Until("it waits in the kernel", waitsIn(early, unix.SYS_WRITE))
	late.Until("it waits in the kernel", waitsIn(late, unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_WRITE))
	server = far()
	early.Expect("written")
	if err := late.Wait(); err != nil {
		t.Errorf("the late client: %v", err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(image); err != nil || !bytes.HasPrefix(data, []byte("early")) {
		t.Errorf("what was written is not there: %q, %v", data[:8], err)
	}
}

// gate is a fifo where a shell waits, and what lets it go on. No other process has
// to run for that, which would close the shell's files.
func gate(t *testing.T) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return path, func() {
		if _, err := f.WriteString("go\n"); err != nil {
			t.Error(err)
		}
	}
}

// waitsIn tells whether a process is in one of these system calls, and was in the same
// one when it was asked before.
func waitsIn(p *lab.Proc, calls ...int) func() bool {
	last := ""
	return func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", p.Pid())) // "running", or the call and its arguments
		was := last
		last = string(text)
		var call int
		_, err := fmt.Sscan(last, &call)
		return err == nil && last == was && slices.Contains(calls, call)
	}
}

// TestFailedStartLeavesTheMount: a process that takes the mount over and cannot go on
// leaves it to the one after it.
func TestFailedStartLeavesTheMount(t *testing.T) {
	d := newManaged(t)
	d.image("disk")
	file := filepath.Join(d.mount, "disk")
	sign, goOn := gate(t)
	client := lab.Start(t, "sh", "-c", `exec 3<>"$0"; echo open; read -r _ <"$1"; printf hello >&3 && echo written`, file, sign)
	client.Expect("open")
	d.m.Kill9()
	failing := d.m.Start(lab.Sluice(t), append(d.args, "--nbd", "unix:"+d.at("none/s"))...)
	if err := failing.Wait(); err == nil {
		t.Error("a daemon without a folder for its socket has started")
	}
	d.m.Start(lab.Sluice(t), d.args...)
	d.m.Ready()
	goOn()
	client.Expect("written")
	if err := client.Wait(); err != nil {
		t.Error(err)
	}
}

// TestHeldRequestOutlivesARestart: what waits for its storage when the daemon is
// told to end neither keeps it nor fails: the next process answers it.
func TestHeldRequestOutlivesARestart(t *testing.T) {
	d := newManaged(t, "--allow-faults")
	d.image("disk", "--fault", "any:error=transient")
	d.image("other")
	client := lab.Start(t, "dd", "if=/dev/zero", "of="+filepath.Join(d.mount, "disk"), "bs=4k", "count=1", "oflag=direct", "conv=notrunc")
	awaitHeld := func() {
		client.Until("its request is held", func() bool {
			text, _ := exec.Command(lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "show", "disk").Output()
			return bytes.Contains(text, []byte("held"))
		})
	}
	awaitHeld()
	begin := time.Now()
	_ = d.m.End() // it says that an image could not be flushed
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the end took %v", took)
	}
	d.m.Restart()
	awaitHeld() // by the next process
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "set", "disk", "--no-faults")
	if err := client.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
}
