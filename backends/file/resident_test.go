package file

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
)

func TestPinRangeTellsWhatThePageCacheHolds(t *testing.T) {
	for _, old := range []bool{false, true} {
		noCachestat.Store(old)
		t.Cleanup(func() { noCachestat.Store(false) })
		testResident(t)
	}
}

func testResident(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(context.Background(), path, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := block.Resolve(opened)
	defer func() { _ = d.Close() }()
	check := func(want bool) {
		t.Helper()
		r, ok := d.Ranger.PinRange(4096, size/2)
		if !ok {
			t.Fatal("no range")
		}
		d.Ranger.UnpinRange(r)
		if r.Resident != want {
			t.Errorf("resident %v, want %v", r.Resident, want)
		}
	}
	check(true) // just written
	if err := d.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, _ := d.Ranger.PinRange(0, 1)
	if err := unix.Fadvise(r.FD, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	d.Ranger.UnpinRange(r)
	check(false)
}
