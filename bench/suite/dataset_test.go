package suite

import (
	"context"
	"os"
	"slices"
	"testing"
)

func TestDatasetHoldsNoZeroPage(t *testing.T) {
	dir := t.TempDir()
	d, err := newDataset(context.Background(), dir, 5<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(d.disk)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(d.source)
	if err != nil {
		t.Fatal(err)
	}
	if len(disk) != 5<<20 || len(source) != len(disk) || slices.Equal(disk, source) {
		t.Errorf("disk of %d and source of %d bytes", len(disk), len(source))
	}
	zero := string(make([]byte, 4096))
	for off := 0; off < len(disk); off += 4096 {
		if string(disk[off:off+4096]) == zero {
			t.Fatalf("zeroes at %d", off)
		}
	}
	if err := d.cache(context.Background()); err != nil {
		t.Error(err)
	}
	if err := d.settle(); err != nil {
		t.Error(err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDatasetStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, err := newDataset(ctx, t.TempDir(), 5<<20, false)
	if err == nil || d == nil {
		t.Fatalf("got %v, %v; want a data set to remove and an error", d, err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
}
