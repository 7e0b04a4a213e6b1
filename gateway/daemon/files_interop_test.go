//go:build interop

package daemon

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/backends/file"
	"sluice/block"
	"sluice/fusefs"
)

// What the daemon does to its files after it has left the mount to the next process
// does not reach that: it finds the kernel's numbers of passthrough files.
func TestLeftFilesAreTheNextProcess(t *testing.T) {
	ctx := t.Context()
	image := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<20)); err != nil {
		t.Fatal(err)
	}
	dev, err := file.Open(ctx, image, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	fs, err := fusefs.Mount(fusefs.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(fs.Dir(), unix.MNT_DETACH) }()
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	f := &files{fs: fs, memory: m, d: &daemon{Options: Options{Log: slog.New(slog.DiscardHandler)}}}
	if err := fs.Add(fusefs.File{Name: "disk", Device: dev, ID: 77, Passthrough: true}); err != nil {
		t.Fatal(err)
	}
	f.save()
	kept := func() int32 {
		t.Helper()
		var rec mountRecord
		var state struct{ Backing map[uint64]int32 }
		if err := json.Unmarshal(again(t, m).content, &rec); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(rec.State, &state); err != nil || rec.Dir != fs.Dir() {
			t.Fatalf("%+v, %v", rec, err)
		}
		return state.Backing[77]
	}
	number := kept()
	if number == 0 || !fs.Passthrough("disk") {
		t.Fatalf("passthrough %v, the kernel's number is %d", fs.Passthrough("disk"), number)
	}
	if err := f.leave(ctx); err != nil {
		t.Error(err)
	}
	if err := fs.Remove(ctx, "disk", true); err != nil { // as the gateway does when it closes
		t.Error(err)
	}
	f.save()
	if got := kept(); got != number {
		t.Errorf("the next process finds the number %d, want %d", got, number)
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
}
