package file

import (
	"context"
	"os"
	"path/filepath"
	"testing"

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
	resident := func() bool {
		r, ok := d.Ranger.PinRange(4096, size/2)
		if !ok {
			t.Fatal("no range")
		}
		d.Ranger.UnpinRange(r)
		return r.Resident
	}
	if !resident() {
		t.Error("what was just written is not resident")
	}
	if err := d.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	evict(t, opened.(*Device).fd, func() bool { return !resident() })
}
