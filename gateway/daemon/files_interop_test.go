//go:build interop

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/backends/file"
	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/endpoint"
)

// manager answers as a service manager that stores descriptors does, after it has
// called stored for each.
func manager(t *testing.T, stored func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	go func() {
		defer close(ended)
		text, control := make([]byte, 4096), make([]byte, 4096)
		for {
			n, k, _, _, err := conn.ReadMsgUnix(text, control)
			if err != nil {
				return
			}
			if bytes.HasPrefix(text[:n], []byte("FDSTORE=1")) {
				stored()
			}
			messages, _ := unix.ParseSocketControlMessage(control[:k])
			for _, m := range messages {
				fds, _ := unix.ParseUnixRights(&m)
				for _, fd := range fds {
					_ = unix.Close(fd) // a barrier's answer
				}
			}
		}
	}()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "16")
}

// TestFilesAreSavedWhileMounting: exports with passthrough come whenever they like,
// and the new mount is known to all as soon as it is there.
func TestFilesAreSavedWhileMounting(t *testing.T) {
	seen, stop := make(chan struct{}), make(chan struct{})
	manager(t, func() { <-seen })
	r := prepared(t)
	r.Config.FUSE = t.TempDir()
	var saving sync.WaitGroup
	saving.Go(func() {
		for tell := sync.OnceFunc(func() { close(seen) }); ; {
			if f := r.files.Load(); f != nil {
				f.save()
				tell()
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	r.keeper = &keeper{handed: &endpoint.Handed{}}
	err := r.openFiles(t.Context())
	close(stop)
	saving.Wait()
	f := r.files.Load()
	if f == nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(f.fs.Dir(), unix.MNT_DETACH) }()
	if err != nil || !f.kept() {
		t.Fatalf("the mount is kept: %v, %v", f.kept(), err)
	}
	var rec mountRecord
	if err := json.Unmarshal(again(t, f.memory).content, &rec); err != nil || rec.Dir != f.fs.Dir() || rec.Device == "" {
		t.Errorf("the next process finds %+v, %v", rec, err)
	}
	if err := errors.Join(f.leave(t.Context()), f.close()); err != nil {
		t.Error(err)
	}
}

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
	defer func() { _ = fs.Close() }() // before the device
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
		var state struct{ Backing map[uint64]struct{ ID int32 } }
		if err := json.Unmarshal(again(t, m).content, &rec); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(rec.State, &state); err != nil || rec.Dir != fs.Dir() {
			t.Fatalf("%+v, %v", rec, err)
		}
		return state.Backing[77].ID
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
