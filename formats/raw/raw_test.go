package raw

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"sluice/backends/file"
	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

var ctx = context.Background()

func openWindow(t testing.TB, dev block.Device, cfg Config) block.Device {
	t.Helper()
	w, err := Open(ctx, dev, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func memory(t testing.TB, size int64) block.Device {
	t.Helper()
	d, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSuiteOnMemory(t *testing.T) {
	blocktest.Suite{
		Open: func(t testing.TB) block.Device {
			return openWindow(t, memory(t, 3<<20), Config{Offset: 4097, Size: 1<<20 + 5})
		},
		OddSize: true,
	}.Run(t)
}

// A window on a file: offsets of file ranges and of the neighbours count.
func TestSuiteOnFile(t *testing.T) {
	for _, direct := range []bool{false, true} {
		var path string
		open := func(t testing.TB) block.Device {
			d, err := file.Open(ctx, path, block.OpenOptions{Share: true, Direct: direct})
			if err != nil {
				t.Fatal(err)
			}
			return openWindow(t, d, Config{Offset: 64 << 10, Size: 1 << 20})
		}
		blocktest.Suite{
			Open: func(t testing.TB) block.Device {
				path = filepath.Join(t.TempDir(), "a.img")
				if err := os.WriteFile(path, make([]byte, 2<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				return open(t)
			},
			Reopen: open,
		}.Run(t)
	}
}

func TestNeighboursStay(t *testing.T) {
	dev := memory(t, 3000)
	before := bytes.Repeat([]byte{1}, 3000)
	if err := dev.WriteAt(ctx, before, 0, 0); err != nil {
		t.Fatal(err)
	}
	w := openWindow(t, dev, Config{Offset: 1000, Size: 1000})
	if err := block.Resolve(w).Zeroer.WriteZeroes(ctx, 0, 1000, 0); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, 1000, 1 << 62} {
		if err := w.WriteAt(ctx, []byte{2}, off, 0); block.KindOf(err) != block.OutOfRange {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	got := make([]byte, 3000)
	if err := dev.ReadAt(ctx, got, 0); err != nil {
		t.Fatal(err)
	}
	clear(before[1000:2000])
	if !bytes.Equal(got, before) {
		t.Error("a window changed what lies beside it")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dev := memory(t, 3000)
	for _, cfg := range []Config{{Offset: -1}, {Offset: 3001}, {Offset: 1, Size: 3000}, {Size: -1}, {Offset: 1 << 62, Size: 1 << 62}} {
		if w, err := Open(ctx, dev, cfg); err == nil {
			t.Errorf("%+v: %v", cfg, w)
		}
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

func TestWindowAllocatesNothing(t *testing.T) {
	w := openWindow(t, memory(t, 1<<20), Config{Offset: 4096})
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		if w.WriteAt(ctx, p, 0, 0) != nil || w.ReadAt(ctx, p, 0) != nil {
			t.Error("failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
