package hold

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
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

func TestSuiteOnMemory(t *testing.T) {
	blocktest.Suite{Open: func(t testing.TB) block.Device { return New(ram(t, 1<<20), Config{}) }}.Run(t)
}

func TestSuiteWithCrashes(t *testing.T) {
	for _, unit := range []int64{1, 4096} {
		var last *blocktest.CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		blocktest.Suite{
			Name: fmt.Sprint(unit),
			Open: func(testing.TB) block.Device {
				last = blocktest.NewCrashDevice(512<<10, unit)
				return New(last, Config{})
			},
			Crash: func(testing.TB) block.Device { return New(last.Crash(rng), Config{}) },
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
		return New(d, Config{})
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

// Storage that fails now and then, before or after its effect, looks whole.
func TestSuiteOnFlakyStorage(t *testing.T) {
	var calls atomic.Int64
	flaky := blocktest.InjectorFunc(func(op blocktest.Op) error {
		if op.Kind != blocktest.OpClose && calls.Add(1)%17 == 0 {
			return block.Transient
		}
		return nil
	})
	var last *blocktest.CrashDevice
	rng := rand.New(rand.NewPCG(2, 2))
	blocktest.Suite{
		Open: func(testing.TB) block.Device {
			last = blocktest.NewCrashDevice(512<<10, 512)
			d := New(blocktest.NewFaultDevice(last, flaky, flaky), Config{})
			d.away.pace = pace{first: 20 * time.Microsecond, last: 20 * time.Microsecond}
			return d
		},
		Crash: func(testing.TB) block.Device { return last.Crash(rng) },
	}.Run(t)
}

// every is a Device that claims every power.
type every struct {
	*mem.Device
	caps block.Cap
}

func (e every) Info() block.Info {
	info := e.Device.Info()
	info.Caps = e.caps
	return info
}

func (every) PinRange(_, n int64) (block.FileRange, bool) { return block.FileRange{Len: n}, true }
func (every) UnpinRange(block.FileRange)                  {}
func (every) Bitmaps() []string                           { return nil }

func (every) BitmapExtents(context.Context, string, int64, int64, []block.Extent) ([]block.Extent, error) {
	return nil, block.NotFound
}

// Of what a Device claims, all goes through but what would wait here.
func TestPowers(t *testing.T) {
	all := block.CapNowaitWrites<<1 - 1
	below := every{ram(t, 4096), all}
	d := New(below, Config{})
	if got, want := d.Info().Caps, all&^block.CapNowaitWrites; got != want {
		t.Errorf("powers %v, want %v", got, want)
	}
	if New(every{ram(t, 4096), 1 << 31}, Config{}).Info().Caps != 0 {
		t.Error("a power that nobody knows was passed on")
	}
}

func TestNoAllocationsWhileAllIsWell(t *testing.T) {
	d := New(ram(t, 1<<20), Config{})
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
}

func BenchmarkRead(b *testing.B) {
	below := ram(b, 1<<20)
	for name, d := range map[string]block.Device{"plain": below, "held": New(below, Config{})} {
		p, ctx := make([]byte, 512), b.Context()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.ReadAt(ctx, p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
