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

// notRead is a page cache in which some pages wait for their bytes.
type notRead struct {
	fake
	pages map[int64]bool
}

func (n *notRead) cached(fd int, off int64) bool { return !n.pages[off/page] && n.fake.cached(fd, off) }

// A page that is in place is not resident until its bytes are there.
func TestPageThatIsStillBeingReadIsNotResident(t *testing.T) {
	d := openFile(t, newFile(t, t.TempDir(), 1<<20), block.OpenOptions{})
	if err := d.WriteAt(ctx, make([]byte, 1<<20), 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		page   int64
		off, n int64
		want   bool
	}{
		{1, 0, 8192, false}, {1, 4096, 1, false}, {1, 4095, 1, true}, {1, 8191, 1, false}, {1, 8192, 4096, true},
		{0, 0, 4096, false}, {255, 0, 1 << 20, false}, {255, 0, 255 * page, true}, {255, 255*page - 1, 2, false},
	} {
		d.kern = &notRead{pages: map[int64]bool{c.page: true}}
		r, ok := d.PinRange(c.off, c.n)
		if !ok || r.Resident != c.want {
			t.Errorf("page %d under way, %d bytes at %d: %v, %v", c.page, c.n, c.off, r.Resident, ok)
		}
		d.UnpinRange(r)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
