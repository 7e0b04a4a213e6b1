package mem

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"sluice/block"
)

var ctx = context.Background()

func open(t testing.TB, url string) *Device {
	t.Helper()
	d, err := Open(ctx, url, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d.(*Device)
}

func TestParseConfig(t *testing.T) {
	for url, want := range map[string]int64{"mem://0": 0, "mem://10G": 10 << 30, "mem://1.5K/": 1536, "mem://1P": MaxSize} {
		if cfg, err := ParseConfig(url); err != nil || cfg.Size != want {
			t.Errorf("%s: %d, %v", url, cfg.Size, err)
		}
	}
	for _, url := range []string{
		"mem://", "mem:///", "mem://x", "mem://1G/x", "mem://u@1G", "mem://1G?x=1", "mem://2P", "mem://-1", "mem://1G#f", "mem://%zz",
	} {
		if cfg, err := ParseConfig(url); block.KindOf(err) != block.Invalid {
			t.Errorf("%s: %v, %v", url, cfg, err)
		}
	}
}

func TestWritesNeedNoWaiting(t *testing.T) {
	if !open(t, "mem://1M").Info().Has(block.CapNowait | block.CapNowaitWrites) {
		t.Error("an exporter will wake a worker for every request")
	}
	d, err := Open(ctx, "mem://1M", block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if d.Info().Has(block.CapNowaitWrites) {
		t.Error("a read-only disk takes writes")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestLargeDiskCostsNothing(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := open(t, "mem://10T")
	if err := d.WriteAt(ctx, []byte("end"), 10<<40-3, 0); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []block.Flags{block.MayUnmap, 0} {
		if err := d.WriteZeroes(ctx, 0, 10<<40-4096, flags); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.WriteAt(ctx, []byte("middle"), 5<<40, 0); err != nil {
		t.Fatal(err)
	}
	got, err := d.Extents(ctx, 5<<40-1, 2*chunkSize, make([]block.Extent, 0, 9))
	want := []block.Extent{{Len: 1, State: block.Zero, Depth: 1}, {Len: chunkSize, Depth: 1}, {Len: chunkSize - 1, State: block.Zero, Depth: 1}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes for a disk with 9 bytes on it", used)
	}
}

func TestDiscardGivesMemoryBack(t *testing.T) {
	d := open(t, "mem://64M")
	p := bytes.Repeat([]byte{7}, 1<<20)
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Discard(ctx, 0, 64<<20, 0); err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 32<<20 {
		t.Errorf("%d bytes still in use", m.HeapAlloc)
	}
}

func TestExtents(t *testing.T) {
	d := open(t, "mem://600M")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.WriteAt(ctx, make([]byte, 100), 256<<20, 0))
	must(d.WriteZeroes(ctx, 256<<20+chunkSize, 2*chunkSize, 0))
	got, err := d.Extents(ctx, 1, 600<<20-1, make([]block.Extent, 0, 10))
	must(err)
	want := []block.Extent{
		{Len: 256<<20 - 1, State: block.Hole | block.Zero, Depth: 1},
		{Len: chunkSize, Depth: 1},
		{Len: 2 * chunkSize, State: block.Zero, Depth: 1},
		{Len: 344<<20 - 3*chunkSize, State: block.Hole | block.Zero, Depth: 1},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("extent %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestShrinkForgetsAndGrowReadsZero(t *testing.T) {
	d := open(t, "mem://1G")
	data := bytes.Repeat([]byte{9}, 200)
	for _, off := range []int64{0, 1000, 512<<20 - 100, 1<<30 - 200} {
		if err := d.WriteAt(ctx, data, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int64{1100, 2 << 30} {
		if err := d.Resize(ctx, size); err != nil {
			t.Fatal(err)
		}
	}
	for off, want := range map[int64]byte{199: 9, 1099: 9, 1100: 0, 512 << 20: 0, 1<<30 - 1: 0} {
		var b [1]byte
		if err := d.ReadAt(ctx, b[:], off); err != nil || b[0] != want {
			t.Errorf("at %d: %d, %v; want %d", off, b[0], err, want)
		}
	}
}

// Writers own interleaved stripes; zeroing, discarding, growing and shrinking
// behind them must not lose a byte of what they wrote.
func TestConcurrentStripes(t *testing.T) {
	const stripe, stripes, space = 5000, 4, 1 << 20
	d := open(t, "mem://1M")
	var wg sync.WaitGroup
	for s := range stripes {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(s)))
			p, q := make([]byte, stripe), make([]byte, stripe)
			for range 2000 {
				slot := r.Int64N(space/stripe/stripes)*stripes + int64(s)
				for i := range p {
					p[i] = byte(r.Uint32())
				}
				if err := d.WriteAt(ctx, p, slot*stripe, 0); err != nil {
					t.Error(err)
				}
				if r.IntN(3) == 0 {
					clear(p)
					if err := d.WriteZeroes(ctx, slot*stripe, stripe, block.Flags(r.IntN(2))*block.MayUnmap); err != nil {
						t.Error(err)
					}
				}
				if err := d.ReadAt(ctx, q, slot*stripe); err != nil || !bytes.Equal(p, q) {
					t.Errorf("slot %d differs (%v)", slot, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 500 {
			if err := d.Resize(ctx, space+int64(i%3)*tableSize); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func TestReadOnly(t *testing.T) {
	d, err := Open(ctx, "mem://1M", block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	r := block.Resolve(d)
	if err := r.WriteAt(ctx, []byte{1}, 0, 0); !errors.Is(err, block.ReadOnly) {
		t.Errorf("write: %v", err)
	}
	if r.Resizer != nil || r.Zeroer != nil || r.Discarder != nil {
		t.Error("a read-only device offers changes")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, block.Closed) {
		t.Errorf("read after close: %v", err)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	d := open(t, "mem://1M")
	p := make([]byte, 4096)
	dst := make([]block.Extent, 0, 16)
	for name, f := range map[string]func() error{
		"read":    func() error { return d.ReadAt(ctx, p, 8192) },
		"nowait":  func() error { return d.ReadNowait(p, 8192) },
		"write":   func() error { return d.WriteAt(ctx, p, 8192, block.FUA) },
		"flush":   func() error { return d.Flush(ctx) },
		"zeroes":  func() error { return d.WriteZeroes(ctx, 8192, 4096, 0) },
		"extents": func() error { _, err := d.Extents(ctx, 0, 1<<20, dst); return err },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func benchmark(b *testing.B, n int, f func(d *Device, p []byte, off int64) error) {
	d := open(b, "mem://64M")
	p := bytes.Repeat([]byte{1}, n)
	for off := int64(0); off < 64<<20; off += int64(n) {
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if err := f(d, p, off); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(n)) % (64 << 20)
	}
}

func BenchmarkRead4K(b *testing.B) {
	benchmark(b, 4096, func(d *Device, p []byte, off int64) error { return d.ReadAt(ctx, p, off) })
}

func BenchmarkRead1M(b *testing.B) {
	benchmark(b, 1<<20, func(d *Device, p []byte, off int64) error { return d.ReadAt(ctx, p, off) })
}

func BenchmarkWrite4K(b *testing.B) {
	benchmark(b, 4096, func(d *Device, p []byte, off int64) error { return d.WriteAt(ctx, p, off, 0) })
}
