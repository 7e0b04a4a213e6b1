package swap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sluice/backends/file"
	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

var ctx = context.Background()

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFile(t testing.TB, size int64) block.Device {
	t.Helper()
	d, err := file.Open(ctx, filtertest.NewImage(t, size), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// few makes a Device without the powers that are made up for after an exchange.
func few(t testing.TB, size int64) block.Device {
	t.Helper()
	return filtertest.Poor{Device: filtertest.NewMem(t, size), Keep: block.CapFlush | block.CapMultiConn}
}

// swapped puts the filter on a Device.
func swapped(below block.Device) block.Device { return New(below) }

func TestSuite(t *testing.T) {
	filtertest.Ways{"mem": swapped}.OnMemory(t)
	filtertest.Ways{"few": swapped}.OnFewPowers(t)
	filtertest.Ways{"file": swapped}.OnFile(t, block.OpenOptions{})
	filtertest.Ways{"crash": swapped}.WithCrashes(t, 4096)
}

// The suite again on a Device that came in the place of one with other powers.
func TestSuiteAfterExchange(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, next func(testing.TB) block.Device
	}{
		{"powers lost", ram, without},
		{"powers gained", without, ram},
		{"file gained", without, func(t testing.TB) block.Device { return newFile(t, 1<<20) }},
	} {
		blocktest.Suite{
			Name: c.name,
			Open: func(t testing.TB) block.Device {
				d := New(c.first(t))
				if err := d.Swap(ctx, c.next(t), nil); err != nil {
					t.Fatal(err)
				}
				return settled{d}
			},
		}.Run(t)
	}
}

func ram(t testing.TB) block.Device     { return filtertest.NewMem(t, 1<<20) }
func without(t testing.TB) block.Device { return few(t, 1<<20) }

// settled is a Device that is not resized: whether it can be depends on the first.
type settled struct{ *Device }

func (s settled) Info() block.Info {
	info := s.Device.Info()
	info.Caps &^= block.CapResize
	return info
}

// A thousand exchanges while writers write and read back: every one sees its own
// writes, whichever Device they went to.
func TestExchangeUnderLoad(t *testing.T) {
	const size, part, workers = 64 << 10, 16 << 10, 4
	d := New(filtertest.NewMem(t, size))
	defer func() { _ = d.Close() }()
	var stop atomic.Bool
	var load sync.WaitGroup
	for w := range workers {
		load.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			want := make([]byte, part)
			got := make([]byte, part)
			for n := 0; !stop.Load(); n++ {
				off := rng.IntN(part/512) * 512
				rest := want[off:min(part, off+2048)]
				for i := range rest {
					rest[i] = byte(n + i)
				}
				at := int64(w*part + off)
				if err := d.WriteAt(ctx, rest, at, block.Flags(n%2)*block.FUA); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				if err := d.ReadAt(ctx, got, int64(w*part)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read: %v, or not what was written", err)
					return
				}
			}
		})
	}
	for n := range 1000 {
		next := block.Device(filtertest.NewMem(t, size))
		if n%3 == 1 {
			next = few(t, size)
		}
		err := d.Exchange(ctx, func(ctx context.Context, old block.Device) (block.Device, error) {
			return next, errors.Join(copyAll(ctx, next, old), old.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	load.Wait()
	if s := d.Stats(); s.Exchanges != 1000 || s.Longest < s.Last || s.Last <= 0 {
		t.Errorf("stats %+v", s)
	} else {
		t.Logf("longest stall %v", s.Longest)
	}
}

// copyAll copies what nobody writes.
func copyAll(ctx context.Context, dst, src block.Device) error {
	p := make([]byte, src.Info().Size)
	if err := src.ReadAt(ctx, p, 0); err != nil {
		return err
	}
	return dst.WriteAt(ctx, p, 0, 0)
}

func TestExchangeFlushesFirst(t *testing.T) {
	old := blocktest.NewCrashDevice(1<<20, 1)
	d := New(old)
	want := bytes.Repeat([]byte("durable "), 512)
	if err := d.WriteAt(ctx, want, 4096, 0); err != nil {
		t.Fatal(err)
	}
	var survived *blocktest.CrashDevice
	err := d.Exchange(ctx, func(context.Context, block.Device) (block.Device, error) {
		survived = old.Crash(rand.New(rand.NewPCG(1, 2)))
		return survived, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := d.ReadAt(ctx, got, 4096); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a write from before the exchange was not durable in it (%v)", err)
	}
	_ = old.Close()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// Whatever goes wrong in an exchange, the old Device goes on, with its content.
func TestFailedExchange(t *testing.T) {
	boom := errors.New("boom")
	noFlush := blocktest.NewToggle(blocktest.On(blocktest.Always(boom), blocktest.OpFlush))
	d := New(blocktest.NewFaultDevice(filtertest.NewMem(t, 1<<20), noFlush, nil))
	defer func() { _ = d.Close() }()
	want := []byte("stays")
	if err := d.WriteAt(ctx, want, 10, 0); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err, expected error) {
		t.Helper()
		if !errors.Is(err, expected) {
			t.Errorf("%s: %v, want %v", what, err, expected)
		}
		got := make([]byte, len(want))
		if err := d.ReadAt(ctx, got, 10); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: then %q, %v", what, got, err)
		}
	}
	noFlush.On()
	check("a failed flush", d.Swap(ctx, filtertest.Poor{}, nil), boom)
	noFlush.Off()
	check("a failed step", d.Exchange(ctx, func(context.Context, block.Device) (block.Device, error) { return nil, boom }), boom)
	small := filtertest.NewMem(t, 1<<19)
	check("a smaller device", d.Swap(ctx, small, nil), block.Invalid)
	if n := d.Stats().Exchanges; n != 0 {
		t.Errorf("%d exchanges counted", n)
	}
	if err := small.WriteAt(ctx, want, 0, 0); err != nil {
		t.Errorf("the refused device is not the caller's any more: %v", err)
	}
	_ = small.Close()
}

func TestCompatible(t *testing.T) {
	base := block.Info{Size: 1 << 20, Block: block.BlockSize{Min: 512, Preferred: 4096}, Caps: block.CapMultiConn}
	for _, c := range []struct {
		name   string
		change func(*block.Info)
		fits   bool
	}{
		{"same", func(*block.Info) {}, true},
		{"larger", func(i *block.Info) { i.Size *= 2 }, true},
		{"smaller", func(i *block.Info) { i.Size -= 512 }, false},
		{"read-only", func(i *block.Info) { i.ReadOnly = true }, false},
		{"finer", func(i *block.Info) { i.Block.Min = 1 }, true},
		{"coarser", func(i *block.Info) { i.Block.Min = 4096 }, false},
		{"as long as NBD's", func(i *block.Info) { i.Block.Max = 32 << 20 }, true},
		{"shorter", func(i *block.Info) { i.Block.Max = 1 << 20 }, false},
		{"one connection", func(i *block.Info) { i.Caps = 0 }, false},
		{"more powers", func(i *block.Info) { i.Caps |= block.CapZero }, true},
	} {
		next := base
		c.change(&next)
		err := Compatible(base, next)
		if c.fits != (err == nil) || err != nil && block.KindOf(err) != block.Invalid {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A request that does not end keeps an exchange waiting for as long as its
// caller wants, and nothing breaks.
func TestExchangeGivesUp(t *testing.T) {
	stuck := blocktest.NewGate()
	d := New(blocktest.NewFaultDevice(filtertest.NewMem(t, 1<<20), blocktest.OnRange(0, 1, blocktest.On(stuck, blocktest.OpRead)), nil))
	defer func() { _ = d.Close() }()
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := d.ReadAt(ctx, make([]byte, 1), 0); err != nil {
			t.Errorf("the stuck read: %v", err)
		}
	})
	if err := stuck.Await(ctx, 1); err != nil {
		t.Fatal(err)
	}
	next := filtertest.NewMem(t, 1<<20)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := d.Swap(short, next, nil); block.KindOf(err) != block.Canceled {
		t.Errorf("exchange with a stuck request: %v", err)
	}
	if err := d.WriteAt(ctx, []byte("x"), 100, 0); err != nil {
		t.Errorf("after the exchange was given up: %v", err)
	}
	// The next exchange waits for the request that the first did not wait for.
	done := make(chan error)
	go func() { done <- d.Swap(ctx, next, nil) }()
	select {
	case err := <-done:
		t.Fatalf("exchanged over the head of a request: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	// A call that arrives meanwhile waits, and can be cancelled.
	if err := d.ReadNowait(make([]byte, 1), 9); !errors.Is(err, block.ErrWouldBlock) {
		t.Errorf("read nowait during an exchange: %v", err)
	}
	if _, ok := d.PinRange(0, 1); ok {
		t.Error("pinned during an exchange")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.ReadAt(cancelled, make([]byte, 1), 9); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call during an exchange: %v", err)
	}
	stuck.Open(nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
	reading.Wait()
}

// A pinned range keeps its bytes and its descriptor over an exchange.
func TestPinsOverExchange(t *testing.T) {
	old := newFile(t, 1<<20)
	d := New(old)
	want := bytes.Repeat([]byte("pin"), 4096)
	if err := d.WriteAt(ctx, want, 4096, 0); err != nil {
		t.Fatal(err)
	}
	r, ok := d.PinRange(4096, int64(len(want)))
	if !ok {
		t.Fatal("not pinned")
	}
	next := newFile(t, 1<<20)
	closed := make(chan error, 1)
	if err := d.Swap(ctx, next, func(err error) { closed <- err }); err != nil {
		t.Fatal(err)
	}
	r2, ok := d.PinRange(0, 4096)
	if !ok || r2.FD == r.FD {
		t.Fatalf("pinned %+v, %v", r2, ok)
	}
	if err := d.WriteAt(ctx, make([]byte, 4096), 4096, 0); err != nil { // to the new one
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if n, err := unix.Pread(r.FD, got, r.Off); n != len(got) || err != nil || !bytes.Equal(got, want) {
		t.Errorf("the pinned range: %d, %v", n, err)
	}
	select {
	case err := <-closed:
		t.Errorf("the old device was closed under a pinned range: %v", err)
	default:
	}
	d.UnpinRange(r2)
	d.UnpinRange(r)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestResize(t *testing.T) {
	d := New(filtertest.NewMem(t, 1<<20))
	defer func() { _ = d.Close() }()
	for _, size := range []int64{2 << 20, 512 << 10, 1 << 20} {
		if err := d.Resize(ctx, size); err != nil || d.Info().Size != size {
			t.Errorf("resize to %d: %v, size %d", size, err, d.Info().Size)
		}
	}
	if err := d.WriteAt(ctx, []byte("end"), 1<<20-3, 0); err != nil {
		t.Error(err)
	}
	e := New(few(t, 1<<20))
	defer func() { _ = e.Close() }()
	for _, size := range []int64{2 << 20, 512 << 10} {
		if err := e.Resize(ctx, size); block.KindOf(err) != block.Unsupported {
			t.Errorf("resize of what cannot be resized: %v", err)
		}
	}
}

func TestClosed(t *testing.T) {
	d := New(filtertest.NewMem(t, 1<<20))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"exchange": d.Swap(ctx, filtertest.Poor{}, nil),
		"resize":   d.Resize(ctx, 1<<20),
		"grow":     d.Resize(ctx, 1<<21),
		"read":     d.ReadNowait(make([]byte, 1), 0),
	} {
		if block.KindOf(err) != block.Closed {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, ok := d.PinRange(0, 1); ok {
		t.Error("pinned")
	}
}

func TestAllocations(t *testing.T) {
	d := New(newFile(t, 1<<20))
	defer func() { _ = d.Close() }()
	p := make([]byte, 4096)
	for name, call := range map[string]func() error{
		"read":   func() error { return d.ReadAt(ctx, p, 0) },
		"nowait": func() error { _ = d.ReadNowait(p, 0); return nil },
		"write":  func() error { return d.WriteAt(ctx, p, 0, 0) },
		"pin": func() error {
			r, ok := d.PinRange(0, 4096)
			if !ok {
				return fmt.Errorf("not pinned")
			}
			d.UnpinRange(r)
			return nil
		},
	} {
		n := testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRead(b *testing.B) { filtertest.Ways{"swap": swapped}.BenchmarkRead(b) }
