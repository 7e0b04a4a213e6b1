package imagecopy

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shaped is RAM with a block size, limits and extents of its own. It refuses
// what breaks its block size and counts the calls in progress.
type shaped struct {
	*mem.Device
	block   block.BlockSize
	hidden  block.Cap
	extents []block.Extent // nil: those of RAM

	running, most atomic.Int64
}

func (s *shaped) Info() block.Info {
	info := s.Device.Info()
	info.Block = s.block
	info.Caps &^= s.hidden
	return info
}

func (s *shaped) enter(op string, off, n int64) error {
	if now := s.running.Add(1); now > s.most.Load() {
		s.most.Store(now)
	}
	if m := s.block.Max; m > 0 && n > m {
		return block.Errorf(block.Invalid, op, "shaped", off, "%d bytes are more than %d", n, m)
	}
	return block.CheckRange(s.Info(), op, off, n)
}

func (s *shaped) ReadAt(ctx context.Context, p []byte, off int64) error {
	defer s.running.Add(-1)
	if err := s.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	return s.Device.ReadAt(ctx, p, off)
}

func (s *shaped) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	defer s.running.Add(-1)
	if err := s.enter("write", off, int64(len(p))); err != nil {
		return err
	}
	return s.Device.WriteAt(ctx, p, off, flags)
}

func (s *shaped) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := block.CheckRange(s.Info(), "write zeroes", off, n); err != nil {
		return err
	}
	return s.Device.WriteZeroes(ctx, off, n, flags)
}

func (s *shaped) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if s.extents == nil {
		return s.Device.Extents(ctx, off, n, dst)
	}
	var at int64
	for _, e := range s.extents {
		begin, end := max(at, off), min(at+e.Len, off+n)
		if at += e.Len; begin < end && len(dst) < cap(dst) {
			dst = append(dst, block.Extent{Len: end - begin, State: e.State, Depth: e.Depth})
		}
	}
	return dst, nil
}

func ram(t testing.TB, content []byte) *mem.Device {
	t.Helper()
	d, err := mem.New(int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	write(t, d, content)
	return d
}

func write(t testing.TB, d block.Device, content []byte) {
	t.Helper()
	if err := d.WriteAt(t.Context(), content, 0, 0); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d block.Device) []byte {
	t.Helper()
	p := make([]byte, d.Info().Size)
	if err := d.ReadAt(context.Background(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// disk draws a disk made of runs of data and zeroes, and extents that tell the
// truth about it: a run of zeroes may be called data, but not the reverse.
func disk(t *rapid.T, least int64) (content []byte, extents []block.Extent) {
	rng := rand.New(rand.NewPCG(uint64(rapid.Uint64().Draw(t, "seed")), 0))
	for range rapid.IntRange(1, 12).Draw(t, "runs") {
		n := least * int64(rapid.IntRange(1, int((200<<10)/least)).Draw(t, "blocks"))
		run := make([]byte, n)
		state := block.ExtentState(0)
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			state = block.Hole | block.Zero
		case 1:
			state = block.Zero
		case 2: // zeroes inside data
		default:
			for i := range run {
				run[i] = byte(rng.IntN(255) + 1)
			}
		}
		content = append(content, run...)
		extents = append(extents, block.Extent{Len: n, State: state})
	}
	return content, extents
}

func TestCopyIsTheSource(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sizes := []int64{1, 512, 4096, 65536}
		from := rapid.SampledFrom(sizes).Draw(rt, "source's block")
		to := rapid.SampledFrom(sizes).Draw(rt, "destination's block")
		content, extents := disk(rt, from)
		whole := max(from, to) // the size fills whole blocks of both
		if n := roundUp(int64(len(content)), whole) - int64(len(content)); n > 0 {
			content = append(content, make([]byte, n)...)
			extents = append(extents, block.Extent{Len: n, State: block.Zero})
		}
		src := &shaped{Device: ram(t, content), block: block.BlockSize{Min: from, Preferred: 65536}, extents: extents}
		if rapid.Bool().Draw(rt, "source without extents") {
			src.hidden = block.CapExtents
		}
		tail := int64(rapid.IntRange(0, 2).Draw(rt, "tail")) * 65536
		old := bytes.Repeat([]byte{0xEE}, len(content)+int(tail))
		fresh := rapid.Bool().Draw(rt, "fresh")
		if fresh {
			clear(old)
		}
		dst := &shaped{Device: ram(t, old), block: block.BlockSize{Min: to, Preferred: 65536}}
		if rapid.Bool().Draw(rt, "destination without zeroing") {
			dst.hidden = block.CapZero | block.CapFastZero
		}
		if rapid.Bool().Draw(rt, "limited") {
			src.block.Max, dst.block.Max = 128<<10, 64<<10
		}
		var progress atomic.Int64
		result, err := Copy(t.Context(), dst, src, Options{
			Requests:        rapid.IntRange(1, 8).Draw(rt, "requests"),
			RequestSize:     4096 * rapid.IntRange(1, 80).Draw(rt, "request size"),
			Grain:           rapid.SampledFrom([]int64{-1, 0, 512, 4096, 65536}).Draw(rt, "grain"),
			IgnoreExtents:   rapid.Bool().Draw(rt, "ignore extents"),
			Allocate:        rapid.Bool().Draw(rt, "allocate"),
			DestinationZero: fresh,
			Progress:        func(n int64) { progress.Add(n) },
		})
		if err != nil {
			rt.Fatal(err)
		}
		got := read(t, dst.Device)
		if !bytes.Equal(got[:len(content)], content) {
			rt.Fatal("the copy is not the source")
		}
		if !bytes.Equal(got[len(content):], old[len(content):]) {
			rt.Fatal("bytes behind the source's end were changed")
		}
		if result.Copied() != int64(len(content)) || progress.Load() != result.Copied() {
			rt.Fatalf("%d bytes counted, %d reported, %d are there", result.Copied(), progress.Load(), len(content))
		}
	})
}

func TestFreshDestinationStaysSparse(t *testing.T) {
	content := make([]byte, 64<<20)
	copy(content[10<<20:], bytes.Repeat([]byte{1}, 1<<20))
	src, dst := ram(t, content), ram(t, make([]byte, 0))
	if err := dst.Resize(t.Context(), 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, opts := range []Options{{DestinationZero: true}, {DestinationZero: true, IgnoreExtents: true}} {
		result, err := Copy(t.Context(), dst, src, opts)
		if err != nil || result != (Result{Data: 1 << 20, Skipped: 63 << 20, Begun: true}) {
			t.Fatalf("%+v: %+v, %v", opts, result, err)
		}
		extents, err := dst.Extents(t.Context(), 0, 64<<20, make([]block.Extent, 0, 8))
		if err != nil || len(extents) != 3 || extents[0].State&block.Hole == 0 || extents[1].Len != 1<<20 {
			t.Fatalf("%+v: extents %v, %v", opts, extents, err)
		}
	}
}

func TestMemoryAndRequestsAreBounded(t *testing.T) {
	src := &shaped{Device: ram(t, bytes.Repeat([]byte{7}, 32<<20)), block: block.BlockSize{Min: 1, Preferred: 4096}}
	dst := ram(t, make([]byte, 32<<20))
	if _, err := Copy(t.Context(), dst, src, Options{Requests: 3, RequestSize: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	if most := src.most.Load(); most > 3 {
		t.Errorf("%d reads at once, 3 were allowed", most)
	}
}

// TestRequestsAreInFlightTogether: no read and no write is answered before as
// many as were asked for are under way, so that one after the other never ends.
func TestRequestsAreInFlightTogether(t *testing.T) {
	for _, c := range []struct{ asked, want int }{{3, 3}, {0, defaultRequests}} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		content := bytes.Repeat([]byte{7}, c.want*64<<10) // a request for each
		src := blocktest.NewFaultDevice(ram(t, content), blocktest.On(together(ctx, c.want), blocktest.OpRead), nil)
		dst := blocktest.NewFaultDevice(ram(t, make([]byte, len(content))), blocktest.On(together(ctx, c.want), blocktest.OpWrite), nil)
		if _, err := Copy(ctx, dst, src, Options{Requests: c.asked, RequestSize: 64 << 10}); err != nil {
			t.Errorf("%d requests asked for: never were %d in flight: %v", c.asked, c.want, err)
		}
		cancel()
	}
}

// together keeps calls waiting until n of them are there, or ctx ends.
func together(ctx context.Context, n int) blocktest.Injector {
	var calls atomic.Int64
	all := make(chan struct{})
	return blocktest.InjectorFunc(func(blocktest.Op) error {
		if calls.Add(1) == int64(n) {
			close(all)
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

func TestRefusals(t *testing.T) {
	big, small := ram(t, make([]byte, 8192)), ram(t, make([]byte, 4096))
	sectors := &shaped{Device: ram(t, make([]byte, 8192)), block: block.BlockSize{Min: 4096, Preferred: 4096}}
	for _, c := range []struct {
		dst, src block.Device
		opts     Options
		kind     block.Kind
	}{
		{small, big, Options{}, block.NoSpace},
		{sectors, ram(t, make([]byte, 4097)), Options{}, block.Invalid},
		{big, small, Options{RequestSize: 1000}, block.Invalid},
		{big, small, Options{Requests: -1}, block.Invalid},
		{big, small, Options{RequestSize: 64 << 20}, block.Invalid},
	} {
		write(t, big, bytes.Repeat([]byte{1}, 8192))
		if _, err := Copy(t.Context(), c.dst, c.src, c.opts); block.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.opts, err)
		}
		if !bytes.Equal(read(t, small), make([]byte, 4096)) {
			t.Fatal("something was written")
		}
	}
}

func TestFailuresEndTheCopy(t *testing.T) {
	full := block.Errorf(block.NoSpace, "write", "disk", 0, "")
	for _, kind := range []blocktest.OpKind{blocktest.OpRead, blocktest.OpWrite, blocktest.OpWriteZeroes, blocktest.OpExtents, blocktest.OpFlush} {
		content := bytes.Repeat([]byte{3}, 8<<20)
		clear(content[2<<20 : 4<<20])
		src := blocktest.NewFaultDevice(ram(t, content), failing(kind, full), nil)
		dst := blocktest.NewFaultDevice(ram(t, make([]byte, 8<<20)), failing(kind, full), nil)
		_, err := Copy(t.Context(), dst, src, Options{Requests: 4, RequestSize: 64 << 10})
		if block.KindOf(err) != block.NoSpace || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// failing lets the first call of a kind pass and fails the others. Of a flush
// there is only one.
func failing(kind blocktest.OpKind, err error) blocktest.Injector {
	var calls atomic.Int64
	return blocktest.InjectorFunc(func(op blocktest.Op) error {
		if op.Kind == kind && (calls.Add(1) > 1 || kind == blocktest.OpFlush || kind == blocktest.OpExtents || kind == blocktest.OpWriteZeroes) {
			return err
		}
		return nil
	})
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	src := ram(t, bytes.Repeat([]byte{9}, 16<<20))
	dst := blocktest.NewFaultDevice(ram(t, make([]byte, 16<<20)), blocktest.InjectorFunc(func(op blocktest.Op) error {
		if op.Off > 4<<20 {
			cancel()
		}
		return nil
	}), nil)
	result, err := Copy(ctx, dst, src, Options{Requests: 2, RequestSize: 64 << 10})
	if !errors.Is(err, context.Canceled) || result.Copied() >= 16<<20 || result.Copied() == 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestCopyIsDurable crashes the destination after the copy.
func TestCopyIsDurable(t *testing.T) {
	content := bytes.Repeat([]byte{5}, 1<<20)
	dst := blocktest.NewCrashDevice(1<<20, 512)
	if _, err := Copy(t.Context(), dst, ram(t, content), Options{}); err != nil {
		t.Fatal(err)
	}
	if after := dst.Crash(rand.New(rand.NewPCG(1, 2))); !bytes.Equal(read(t, after), content) {
		t.Error("the copy was lost in a crash")
	}
}

// TestOneFlush, after the last write; none where the caller sees to it.
func TestOneFlush(t *testing.T) {
	for _, caller := range []bool{false, true} {
		var writes, flushes, late atomic.Int64
		noted := blocktest.InjectorFunc(func(op blocktest.Op) error {
			switch op.Kind {
			case blocktest.OpWrite, blocktest.OpWriteZeroes:
				writes.Add(1)
				late.Add(flushes.Load())
			case blocktest.OpFlush:
				flushes.Add(1)
			}
			return nil
		})
		content := make([]byte, 4<<20)
		copy(content, bytes.Repeat([]byte{5}, 2<<20))
		dst := blocktest.NewFaultDevice(ram(t, make([]byte, 4<<20)), noted, nil)
		if _, err := Copy(t.Context(), dst, ram(t, content), Options{NoFlush: caller}); err != nil {
			t.Fatal(err)
		}
		if n := flushes.Load(); n == 1 == caller || n > 1 || late.Load() != 0 || writes.Load() == 0 {
			t.Errorf("NoFlush %t: %d writes, %d flushes, %d writes after one", caller, writes.Load(), n, late.Load())
		}
	}
}

// pinned is RAM that counts the ranges it is asked for, and has none.
type pinned struct {
	*mem.Device
	pins atomic.Int64
}

func (p *pinned) Info() block.Info {
	info := p.Device.Info()
	info.Caps |= block.CapFileRange
	return info
}

func (p *pinned) PinRange(int64, int64) (block.FileRange, bool) {
	p.pins.Add(1)
	return block.FileRange{}, false
}

func (p *pinned) UnpinRange(block.FileRange) {}

// TestWriteBackOfWhatWasWritten: once for each piece with data in it, and not for
// pieces of zeroes.
func TestWriteBackOfWhatWasWritten(t *testing.T) {
	content := make([]byte, 8*64<<10)
	content[2*64<<10], content[5*64<<10+70] = 1, 1
	dst := &pinned{Device: ram(t, make([]byte, len(content)))}
	opts := Options{RequestSize: 64 << 10, IgnoreExtents: true, DestinationZero: true}
	if _, err := Copy(t.Context(), dst, ram(t, content), opts); err != nil {
		t.Fatal(err)
	}
	if n := dst.pins.Load(); n != 2 {
		t.Errorf("write-back was begun %d times, for 2 pieces with data", n)
	}
}

func BenchmarkCopy(b *testing.B) {
	content := make([]byte, 64<<20)
	for i := range content {
		content[i] = byte(i>>8) | 1
	}
	src, dst := ram(b, content), ram(b, make([]byte, len(content)))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := Copy(b.Context(), dst, src, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestBegunIsToldFromDone: a write that fails may have changed something.
func TestBegunIsToldFromDone(t *testing.T) {
	lost := block.Errorf(block.IO, "write", "disk", 0, "")
	for _, kind := range []blocktest.OpKind{blocktest.OpWrite, blocktest.OpWriteZeroes, blocktest.OpRead} {
		content := bytes.Repeat([]byte{3}, 1<<20)
		if kind == blocktest.OpWriteZeroes {
			clear(content)
		}
		always := blocktest.InjectorFunc(func(op blocktest.Op) error {
			if op.Kind == kind {
				return lost
			}
			return nil
		})
		src, dst := block.Device(ram(t, content)), block.Device(ram(t, bytes.Repeat([]byte{1}, 1<<20)))
		if kind == blocktest.OpRead {
			src = blocktest.NewFaultDevice(src, always, nil)
		} else {
			dst = blocktest.NewFaultDevice(dst, nil, always)
		}
		result, err := Copy(t.Context(), dst, src, Options{})
		if want := kind != blocktest.OpRead; err == nil || result.Copied() != 0 || result.Begun != want {
			t.Errorf("%s: %+v, %v", kind, result, err)
		}
	}
}
