package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
)

var ctx = context.Background()

// tmpfs gives a folder on a file system in RAM.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "disk-*.img")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func openFile(t testing.TB, url string, opts block.OpenOptions) *Device {
	t.Helper()
	d, err := Open(ctx, url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Device)
}

// suite runs the conformance suite on files of that size.
func suite(t *testing.T, name string, dir func(t testing.TB) string, size int64, opts block.OpenOptions) {
	var path string
	opts.Share = true
	s := blocktest.Suite{
		Name: name,
		Open: func(t testing.TB) block.Device {
			path = newFile(t, dir(t), size)
			return openFile(t, path, opts)
		},
		Reopen:  func(t testing.TB) block.Device { return openFile(t, path, opts) },
		OddSize: size%512 != 0,
	}
	if opts.Direct && size%512 != 0 {
		s.Reopen = nil // the smallest block depends on the size that Resize left
	}
	s.Run(t)
}

func TestSuite(t *testing.T) {
	disk := func(t testing.TB) string { return t.TempDir() }
	const odd = 1<<20 + 777
	suite(t, "cached", disk, 1<<20, block.OpenOptions{})
	suite(t, "cached odd", disk, odd, block.OpenOptions{})
	suite(t, "direct", disk, 1<<20, block.OpenOptions{Direct: true})
	suite(t, "direct odd", disk, odd, block.OpenOptions{Direct: true})
	suite(t, "tmpfs odd", tmpfs, odd, block.OpenOptions{})
}

func TestSuiteReadOnly(t *testing.T) {
	content := make([]byte, 1<<20+100)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	for _, direct := range []bool{false, true} {
		blocktest.Suite{
			Name: fmt.Sprint("direct ", direct),
			Open: func(t testing.TB) block.Device {
				path := filepath.Join(t.TempDir(), "a.img")
				if err := os.WriteFile(path, content, 0o444); err != nil {
					t.Fatal(err)
				}
				return openFile(t, path, block.OpenOptions{ReadOnly: true, Direct: direct})
			},
			Content:  content,
			ReadOnly: true,
			OddSize:  true,
		}.Run(t)
	}
}
