//go:build interop

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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
	file, sign := filepath.Join(d.mount, "far"), d.at("go")
	early := lab.Start(t, "sh", "-c", `exec 3<>"$0"; echo open; while [ ! -e "$1" ]; do sleep 0.02; done; printf early >&3 && echo written`, file, sign)
	early.Expect("open")
	server.Kill9()
	d.m.Kill9()
	d.m.Restart()
	if err := os.WriteFile(sign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	late := lab.Start(t, "dd", "if=/dev/zero", "of="+file, "bs=4k", "count=1", "seek=1", "oflag=direct", "conv=notrunc")
	select {
	case <-late.Done():
		t.Errorf("the late client did not wait: %s", late.Output())
	case <-early.Done():
		t.Errorf("the early client did not wait: %s", early.Output())
	case <-time.After(300 * time.Millisecond): // nothing tells that somebody waits in the kernel
	}
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

// TestFailedStartLeavesTheMount: a process that takes the mount over and cannot go on
// leaves it to the one after it.
func TestFailedStartLeavesTheMount(t *testing.T) {
	d := newManaged(t)
	d.image("disk")
	file, sign := filepath.Join(d.mount, "disk"), d.at("go")
	client := lab.Start(t, "sh", "-c", `exec 3<>"$0"; echo open; while [ ! -e "$1" ]; do sleep 0.02; done; printf hello >&3 && echo written`, file, sign)
	client.Expect("open")
	d.m.Kill9()
	failing := d.m.Start(lab.Sluice(t), append(d.args, "--nbd", "unix:"+d.at("none/s"))...)
	if err := failing.Wait(); err == nil {
		t.Error("a daemon without a folder for its socket has started")
	}
	d.m.Start(lab.Sluice(t), d.args...)
	d.m.Ready()
	if err := os.WriteFile(sign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
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
	lab.Run(t, "sh", "-c", `until "$0" export --api unix:"$1" show disk | grep -q held; do sleep 0.05; done`, lab.Sluice(t), d.at("api"))
	begin := time.Now()
	_ = d.m.End() // it says that an image could not be flushed
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("the end took %v", took)
	}
	d.m.Restart()
	select {
	case <-client.Done():
		t.Errorf("the client did not wait: %s", client.Output())
	default:
	}
	lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "set", "disk", "--no-faults")
	if err := client.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
}
