//go:build interop

package file

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/block"
)

// slow gives a loop device on a file of 16 MiB that takes its time for each read.
// It needs nbdfuse and nbdkit.
func slow(t *testing.T, delay time.Duration) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, "nbdfuse", file, "[", "nbdkit", "--exit-with-parent", "--filter=delay", "pattern", "size=16M",
		"rdelay="+delay.String(), "]")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		run(t, "umount", file)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		cancel()
	})
	for size(t, file) == 0 { // until it is mounted
		select {
		case err := <-ended:
			t.Fatalf("nbdfuse ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	dev := run(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// While read-ahead is under way the page cache counts pages that have no bytes
// yet: to send them would wait.
func TestReadAheadUnderWayIsNotResident(t *testing.T) {
	d := openFile(t, slow(t, 300*time.Millisecond), block.OpenOptions{ReadOnly: true})
	const off, n = 8 << 20, 64 << 10
	if err := d.Prefetch(ctx, off, n); err != nil {
		t.Fatal(err)
	}
	counted, known := d.counted(off, n)
	r, _ := d.PinRange(off, n)
	if r.Resident || counted != known {
		t.Errorf("while it is read: resident %v, counted %v", r.Resident, counted)
	}
	d.UnpinRange(r)
	if err := d.ReadAt(ctx, make([]byte, n), off); err != nil {
		t.Fatal(err)
	}
	if r, _ = d.PinRange(off, n); !r.Resident {
		t.Error("not resident when it was read")
	}
	d.UnpinRange(r)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
