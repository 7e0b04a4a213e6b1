//go:build interop

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// TestForceEndsAHeldWriter: an export whose storage is away is removed by force while
// a FUSE client waits in a write; other files stay usable meanwhile.
func TestForceEndsAHeldWriter(t *testing.T) {
	file, mount := filepath.Join(t.TempDir(), "c.toml"), t.TempDir()
	if err := os.WriteFile(file, []byte("allow_faults = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemonAt(t, "--config", file, "--fuse", mount)
	d.add("held", 1, spec.Settings{Faults: []string{"any:error=transient"}})
	d.add("fine", 1, spec.Settings{})
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
