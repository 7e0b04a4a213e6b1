package observe

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/file"
	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ram(t testing.TB, size int64) *mem.Device {
	t.Helper()
	d, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// all is a configuration in which everything happens: each request is slow.
func all() Config {
	return Config{Object: "disk", Layer: "storage", Slow: 1, Log: slog.New(slog.DiscardHandler), Observer: &recorder{}}
}

func TestSuiteOnMemory(t *testing.T) {
	blocktest.Suite{Open: func(t testing.TB) block.Device { return New(ram(t, 1<<20), all()) }}.Run(t)
}

func TestSuiteWithCrashes(t *testing.T) {
	for _, unit := range []int64{1, 4096} {
		var last *blocktest.CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		blocktest.Suite{
			Name: fmt.Sprint(unit),
			Open: func(testing.TB) block.Device {
				last = blocktest.NewCrashDevice(512<<10, unit)
				return New(last, all())
			},
			Crash: func(testing.TB) block.Device { return New(last.Crash(rng), all()) },
		}.Run(t)
	}
}

func TestSuiteOnFile(t *testing.T) {
	dir := t.TempDir()
	store, err := file.OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	n := 0
	open := func(t testing.TB) block.Device {
		d, err := file.Open(t.Context(), filepath.Join(dir, fmt.Sprint(n)), block.OpenOptions{Share: true})
		if err != nil {
			t.Fatal(err)
		}
		return New(d, all())
	}
	blocktest.Suite{
		Open: func(t testing.TB) block.Device {
			n++
			if err := store.Create(t.Context(), fmt.Sprint(n), block.CreateOptions{Size: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			return open(t)
		},
		Reopen: open,
	}.Run(t)
}

// plain has the five core methods and no power.
type plain struct{ block.Device }

func (p plain) Info() block.Info {
	info := p.Device.Info()
	info.Caps = 0
	return info
}

func (p plain) WriteAt(ctx context.Context, b []byte, off int64, flags block.Flags) error {
	if flags != 0 {
		return block.Invalid
	}
	return p.Device.WriteAt(ctx, b, off, 0)
}

func TestSuiteOnFewPowers(t *testing.T) {
	blocktest.Suite{Open: func(t testing.TB) block.Device { return New(plain{ram(t, 512<<10)}, Config{}) }}.Run(t)
}

// every is a Device that claims what it is told to.
type every struct {
	*mem.Device
	caps block.Cap
}

func (e every) Info() block.Info {
	info := e.Device.Info()
	info.Caps = e.caps
	return info
}

func (every) PinRange(_, n int64) (block.FileRange, bool) { return block.FileRange{Len: n / 2}, n > 1 }
func (every) UnpinRange(block.FileRange)                  {}
func (every) Bitmaps() []string                           { return []string{"b"} }

func (e every) BitmapExtents(_ context.Context, _ string, _, n int64, dst []block.Extent) ([]block.Extent, error) {
	return append(dst, block.Extent{Len: n}), nil
}

func TestPowers(t *testing.T) {
	known := block.CapNowaitWrites<<1 - 1
	if got := New(every{ram(t, 4096), known}, Config{}).Info().Caps; got != known {
		t.Errorf("powers %v, want %v", got, known)
	}
	if got := New(every{ram(t, 4096), 1 << 31}, Config{}).Info().Caps; got != 0 {
		t.Error("a power that nobody knows was passed on")
	}
}

func TestNoAllocations(t *testing.T) {
	d := New(ram(t, 1<<20), Config{Slow: time.Hour, Observer: &recorder{}})
	r := block.Resolve(d)
	p, ext := make([]byte, 4096), make([]block.Extent, 0, 8)
	if n := testing.AllocsPerRun(1000, func() {
		if d.WriteAt(t.Context(), p, 4096, 0) != nil || d.ReadAt(t.Context(), p, 4096) != nil ||
			d.Flush(t.Context()) != nil || r.Nowaiter.ReadNowait(p, 4096) != nil ||
			r.Zeroer.WriteZeroes(t.Context(), 4096, 4096, 0) != nil {
			t.Error("failed")
		}
		if _, err := r.Extenter.Extents(t.Context(), 0, 4096, ext); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, c := range []struct {
		name string
		wrap func(block.Device) block.Device
	}{
		{"plain", func(d block.Device) block.Device { return d }},
		{"observed", func(d block.Device) block.Device { return New(d, Config{}) }},
		{"watched", func(d block.Device) block.Device { return New(d, Config{Slow: time.Second}) }},
	} {
		d := c.wrap(ram(b, 1<<20))
		b.Run(c.name, func(b *testing.B) {
			p, ctx := make([]byte, 512), b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if err := d.ReadAt(ctx, p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				p, ctx := make([]byte, 512), b.Context()
				for pb.Next() {
					if err := d.ReadAt(ctx, p, 0); err != nil {
						b.Error(err)
					}
				}
			})
		})
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	}
}
