//go:build interop

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// newHeldDaemon starts a daemon with a mount and two exports: "held", whose storage is
// away from the first request on, and "fine".
func newHeldDaemon(t *testing.T) (d *daemonAt, mount string) {
	t.Helper()
	file, mount := filepath.Join(t.TempDir(), "c.toml"), t.TempDir()
	if err := os.WriteFile(file, []byte("allow_faults = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = newDaemonAt(t, "--config", file, "--fuse", mount)
	d.add("held", 1, spec.Settings{Faults: []string{"any:error=transient"}})
	d.add("fine", 1, spec.Settings{})
	return d, mount
}

// TestForceEndsAHeldWriter: an export whose storage is away is removed by force while
// a FUSE client waits in a write; other files stay usable meanwhile.
func TestForceEndsAHeldWriter(t *testing.T) {
	d, mount := newHeldDaemon(t)
	write := func(name string) *lab.Proc {
		return lab.Start(t, "dd", "if=/dev/zero", "of="+filepath.Join(mount, name), "bs=4k", "count=1", "oflag=direct", "conv=notrunc,fsync")
	}
	writer := write("held")
	d.awaitState("held", gateway.Held)
	begin := time.Now()
	remove := lab.Start(t, lab.Sluice(t), "export", "--api", "unix:"+d.at("api"), "remove", "held", "--force")
	if err := write("fine").Wait(); err != nil {
		t.Errorf("a client of another file: %v", err)
	}
	select {
	case <-remove.Done():
	case <-time.After(30 * time.Second):
		d.proc.Kill9() // or nobody ever lets go of the writer
		t.Fatal("the removal does not end")
	}
	_ = remove.Wait() // that the image could not be flushed is an error
	t.Logf("removed within %v: %s", time.Since(begin), remove.Output())
	if err := writer.Wait(); err == nil || !strings.Contains(writer.Output(), "Input/output error") {
		t.Errorf("the writer: %v, %s", err, writer.Output())
	}
	if list, err := d.client().List(t.Context()); err != nil || len(list) != 1 || list[0].Spec.Name != "fine" {
		t.Errorf("what is left: %+v, %v", list, err)
	}
	if names, err := os.ReadDir(mount); err != nil || len(names) != 1 || names[0].Name() != "fine" {
		t.Errorf("the folder: %v, %v", names, err)
	}
	if err := d.proc.Stop(); err != nil {
		t.Error(err)
	}
}

// TestEndBesideAHeldWriter: a FUSE client whose storage is away keeps NBD clients of
// other exports from nothing, and the end of the daemon from no more than a moment of
// the 30 seconds that it may take.
func TestEndBesideAHeldWriter(t *testing.T) {
	d, mount := newHeldDaemon(t)
	writer := lab.Start(t, "dd", "if=/dev/zero", "of="+filepath.Join(mount, "held"), "bs=4k", "count=1", "oflag=direct", "conv=notrunc")
	d.awaitState("held", gateway.Held)
	client, err := net.Dial("unix", d.at("nbd"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := io.ReadFull(client, make([]byte, 18)); err != nil { // the greeting
		t.Fatal(err)
	}
	begin := time.Now()
	d.proc.Signal(syscall.SIGTERM)
	if n, err := io.Copy(io.Discard, client); n > 0 || err != nil {
		t.Errorf("the NBD client got %d bytes, %v", n, err)
	}
	select {
	case <-writer.Done():
		t.Error("the NBD client was sent away after the FUSE client")
	default:
	}
	if err := d.proc.Wait(); err == nil || !strings.Contains(d.proc.Output(), "flush held") {
		t.Errorf("the end: %v, %s", err, d.proc.Output())
	}
	took := time.Since(begin)
	t.Logf("it took %v", took)
	if took > 20*time.Second {
		t.Error("it waited for the storage")
	}
	if err := writer.Wait(); err == nil || !strings.Contains(writer.Output(), "Input/output error") {
		t.Errorf("the writer: %v, %s", err, writer.Output())
	}
}
