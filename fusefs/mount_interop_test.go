//go:build interop

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	localfile "sluice/backends/file"
	"sluice/backends/mem"
	"sluice/block"
)

var ctx = context.Background()

// logged sends a log to the test's.
type logged struct{ t testing.TB }

func (l logged) Write(p []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// mounted mounts at a new folder. It is unmounted at the test's end.
func mounted(t testing.TB, change ...func(*Config)) *FS {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(logged{t}, nil))}
	for _, f := range change {
		f(&cfg)
	}
	fs, err := Mount(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return fs
}

// add puts a file in and gives its path.
func add(t testing.TB, fs *FS, f File) string {
	t.Helper()
	if err := fs.Add(f); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(fs.Dir(), f.Name)
}

// localDevice is a device on a new local file.
func localDevice(t testing.TB, size int64) (d block.Device, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := localfile.Open(ctx, path, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, path
}

func memDevice(t testing.TB, size string) block.Device {
	t.Helper()
	d, err := mem.Open(ctx, "mem://"+size, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func opened(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestBytesGoThere(t *testing.T) {
	fs := mounted(t)
	local, _ := localDevice(t, 8<<20+777)
	for name, d := range map[string]block.Device{"local": local, "mem": memDevice(t, "9M")} {
		path := add(t, fs, File{Name: name, Device: d})
		f := opened(t, path, os.O_RDWR)
		want := random(3<<20 + 5)
		if n, err := f.WriteAt(want, 1001); err != nil || n != len(want) {
			t.Fatalf("%s: wrote %d: %v", name, n, err)
		}
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, 1001); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read back: %v, equal %v", name, err, bytes.Equal(got, want))
		}
		direct := make([]byte, len(want))
		if err := d.ReadAt(ctx, direct, 1001); err != nil || !bytes.Equal(direct, want) {
			t.Errorf("%s: the device: %v, equal %v", name, err, bytes.Equal(direct, want))
		}
		if err := f.Sync(); err != nil {
			t.Errorf("%s: fsync: %v", name, err)
		}
		size := d.Info().Size
		if n, err := f.ReadAt(got[:100], size-10); n != 10 || err != io.EOF {
			t.Errorf("%s: at the end: %d, %v", name, n, err)
		}
		if n, err := unix.Pwrite(int(f.Fd()), got[:100], size-10); n != 10 || err != nil {
			t.Errorf("%s: written over the end: %d, %v", name, n, err)
		}
		if _, err := unix.Pwrite(int(f.Fd()), got[:100], size); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: written at the end: %v", name, err)
		}
	}
}
