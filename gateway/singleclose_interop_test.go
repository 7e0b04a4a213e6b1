//go:build interop

package gateway

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/fusefs"
	"sluice/internal/lab"
)

// TestSingleUnmountsThoughItsDeviceIsDeaf: the client of the file gets an error, and
// nothing dead is left at the folder.
func TestSingleUnmountsThoughItsDeviceIsDeaf(t *testing.T) {
	dir := t.TempDir()
	files, err := fusefs.Mount(fusefs.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	stuck := newDeaf("write")
	r := serve(t, SingleConfig{Device: stuck, DrainTimeout: 300 * time.Millisecond, Files: files, File: "disk"})
	client := lab.Start(t, "dd", "if=/dev/zero", "of="+filepath.Join(dir, "disk"), "bs=4k", "count=1", "oflag=direct", "conv=notrunc")
	<-stuck.arrived
	r.stop()
	select {
	case <-r.ended:
	case <-time.After(15 * time.Second):
		t.Error("it does not end")
	}
	if err := client.Wait(); err == nil {
		t.Error("a write that hangs was answered")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("the folder has %v, %v", names, err)
	}
	close(stuck.let)
	<-stuck.closed
	if err := files.Close(); err != nil {
		t.Error(err)
	}
}
