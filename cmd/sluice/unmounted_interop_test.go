//go:build interop

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/gateway"
	"sluice/gateway/apiclient"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// unmount takes a mount away as an administrator does.
func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatalf("unmount %s: %v", dir, err)
	}
}

// await waits until there was an event of that kind.
func (d *daemonAt) await(kind gateway.EventKind) {
	d.t.Helper()
	for ev, err := range d.client().Events(d.t.Context(), 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if ev.Kind == kind {
			return
		}
	}
	d.t.Fatalf("no event %s", kind)
}

// starts checks what a file begins with.
func starts(t *testing.T, path string, with byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{with}, len(got))) {
		t.Errorf("%s begins with %d (want %d): %v", path, got[0], with, err)
	}
}

// TestDaemonOutlivesItsMount: unmounting from outside leaves NBD as it is, is told
// wherever somebody looks, and a reload mounts again, with what was added meanwhile.
func TestDaemonOutlivesItsMount(t *testing.T) {
	lab.Need(t, "qemu-io")
	mount := t.TempDir()
	d := newDaemonAt(t, "--fuse", mount)
	c := d.client()
	uri := d.add("a", 1, spec.Settings{})
	lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 4k", uri)
	starts(t, filepath.Join(mount, "a"), 7)
	client := lab.Start(t, "qemu-io", "-f", "raw", "-c", "write -P 8 0 4k", "-c", "sleep 100000", uri)
	unmount(t, mount)
	d.proc.Expect("the FUSE mount was unmounted from outside; exports go on without files, a reload (SIGHUP) mounts it again")
	d.await(gateway.Unmounted)

	state, err := c.Daemon(t.Context())
	if err != nil || state.Addresses.FUSE != "" || len(state.Problems) != 1 || !strings.HasPrefix(state.Problems[0], mount+" was unmounted; reload") {
		t.Errorf("%+v, %v", state, err)
	}
	shown := lab.Run(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "show", "a")
	if !strings.Contains(shown, "none: "+mount+" was unmounted; reload the daemon to mount it again") || !strings.Contains(shown, "serving since") {
		t.Errorf("show: %s", shown)
	}
	other := d.add("b", 1, spec.Settings{})
	lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 9 0 4k", other)
	d.add("gone", 1, spec.Settings{})
	if err := c.Remove(t.Context(), "gone", false); err != nil {
		t.Error(err)
	}

	d.proc.Signal(syscall.SIGHUP)
	d.await(gateway.Reloaded)
	if st, err := c.Show(t.Context(), "a"); err != nil || st.File != filepath.Join(mount, "a") || st.FileError != "" || st.Connections != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if state, err := c.Daemon(t.Context()); err != nil || state.Addresses.FUSE != mount || len(state.Problems) > 0 {
		t.Errorf("%+v, %v", state, err)
	}
	starts(t, filepath.Join(mount, "a"), 8)
	starts(t, filepath.Join(mount, "b"), 9)
	if names, err := os.ReadDir(mount); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
	client.Kill9()
	unmount(t, mount) // and again
	d.proc.Expect("the FUSE mount was unmounted from outside")
	if err := d.proc.Stop(); err != nil {
		t.Error(err)
	}
	if isMounted(mount) {
		t.Error("mounted after the end")
	}
}

// TestDaemonMountsAgainLater: a folder that cannot be mounted at is told of, and the
// next reload tries again.
func TestDaemonMountsAgainLater(t *testing.T) {
	mount := t.TempDir()
	d := newDaemonAt(t, "--fuse", mount)
	d.add("a", 1, spec.Settings{})
	unmount(t, mount)
	d.proc.Expect("the FUSE mount was unmounted from outside")
	litter := filepath.Join(mount, "litter")
	if err := os.WriteFile(litter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.client().Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "mount "+mount+": the folder is not empty (litter is in it)") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(litter); err != nil {
		t.Fatal(err)
	}
	if err := d.client().Reload(t.Context()); err != nil {
		t.Error(err)
	}
	starts(t, filepath.Join(mount, "a"), 0)
	if err := d.proc.Stop(); err != nil {
		t.Error(err)
	}
	if isMounted(mount) {
		t.Error("still mounted")
	}
}

// TestUnmountedUnderAManager: the manager does not keep a mount that is gone, and
// keeps the next one, which outlives the process as the first would have.
func TestUnmountedUnderAManager(t *testing.T) {
	d := newManaged(t)
	d.image("a", "--passthrough")
	file := filepath.Join(d.mount, "a")
	kept := func() (n int) {
		for _, name := range d.m.Stored() {
			if name == "fuse" || name == "fuse-state" {
				n++
			}
		}
		return n
	}
	starts(t, file, 0)
	unmount(t, d.mount)
	d.m.Await("FDNAME=fuse-state")
	if n := kept(); n != 0 {
		t.Errorf("%d descriptors are kept of a mount that is gone", n)
	}
	c, err := apiclient.New(apiclient.Config{Address: "unix:" + d.at("api")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Show(t.Context(), "a"); err != nil || !st.Passthrough {
		t.Errorf("%+v, %v", st, err)
	}
	if n := kept(); n != 2 {
		t.Errorf("%d descriptors are kept of the new mount", n)
	}
	d.m.Kill9()
	d.m.Restart()
	starts(t, file, 0)
	unmount(t, d.mount)
	if err := d.m.Stop(); err != nil {
		t.Error(err)
	}
}

// TestPassthroughComesBack: the kernel, which has the image open, does not keep the
// next process from locking it.
func TestPassthroughComesBack(t *testing.T) {
	lab.Need(t, "qemu-io")
	d := newManaged(t)
	d.image("a", "--passthrough")
	file := filepath.Join(d.mount, "a")
	put := func(with string) { // in a process of its own: see the package comment of fusefs
		t.Helper()
		lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P "+with+" 0 4k", file)
	}
	put("5")
	d.m.Kill9()
	d.m.Restart()
	starts(t, file, 5)
	put("6")
	starts(t, file, 6)
	if err := d.m.Stop(); err != nil {
		t.Error(err)
	}
}

// TestServeEndsWithItsMount: with NBD beside as well.
func TestServeEndsWithItsMount(t *testing.T) {
	for _, more := range [][]string{nil, {"--nbd", "unix:" + lab.Socket(t)}} {
		mount := t.TempDir()
		p := lab.Start(t, lab.Sluice(t), append([]string{"serve", "mem://1M", "--fuse", mount}, more...)...)
		p.Expect("ready fuse")
		unmount(t, mount)
		_ = p.Wait()
		if p.ExitCode() != exitFailure || !strings.Contains(p.Output(), "sluice: serve "+mount+": it was unmounted") {
			t.Errorf("exit code %d, %s", p.ExitCode(), p.Output())
		}
	}
}
