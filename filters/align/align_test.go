package align

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

var ctx = context.Background()

// coarse is a Device in RAM that takes whole blocks only.
type coarse struct {
	*mem.Device
	unit int64
	caps block.Cap // taken away
}

func newCoarse(t testing.TB, size, unit int64) *coarse {
	t.Helper()
	return &coarse{Device: filtertest.NewMem(t, size), unit: unit}
}

func (c *coarse) Info() block.Info {
	info := c.Device.Info()
	info.Block.Min = c.unit
	info.Caps &^= c.caps
	return info
}

func (c *coarse) check(off, n int64) error { return block.CheckRange(c.Info(), "coarse", off, n) }

func (c *coarse) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := c.check(off, int64(len(p))); err != nil {
		return err
	}
	return c.Device.ReadAt(ctx, p, off)
}

func (c *coarse) ReadNowait(p []byte, off int64) error { return c.ReadAt(ctx, p, off) }

func (c *coarse) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if err := c.check(off, int64(len(p))); err != nil {
		return err
	}
	return c.Device.WriteAt(ctx, p, off, flags)
}

func (c *coarse) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := c.check(off, n); err != nil {
		return err
	}
	return c.Device.WriteZeroes(ctx, off, n, flags)
}

func (c *coarse) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if err := c.check(off, n); err != nil {
		return err
	}
	return c.Device.Discard(ctx, off, n, flags)
}

func (c *coarse) Prefetch(ctx context.Context, off, n int64) error {
	if err := c.check(off, n); err != nil {
		return err
	}
	return c.Device.Prefetch(ctx, off, n)
}

func (c *coarse) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := c.check(off, n); err != nil {
		return dst, err
	}
	return c.Device.Extents(ctx, off, n, dst)
}

func TestSuiteOnMemory(t *testing.T) {
	for _, unit := range []int64{512, 65536} {
		blocktest.Suite{
			Name: fmt.Sprint(unit),
			Open: func(t testing.TB) block.Device { return New(newCoarse(t, 2<<20, unit)) },
		}.Run(t)
	}
}

var ways = filtertest.Ways{"": New}

// With the power cut below the filter: what was flushed, or written with FUA in
// parts of blocks, is there.
func TestSuiteWithCrashes(t *testing.T) { ways.WithCrashes(t, 4096) }

func TestSuiteOnDirectFile(t *testing.T) {
	ways.OnFile(t, block.OpenOptions{Direct: true, Share: true})
}

func TestByteDeviceStaysAsItIs(t *testing.T) {
	d := filtertest.NewMem(t, 4096)
	if New(d) != block.Device(d) {
		t.Error("a filter that does nothing was put on top")
	}
	filtertest.Close(t, d)
}

func TestPowersOfTheDeviceBelow(t *testing.T) {
	c := newCoarse(t, 1<<20, 4096)
	// A write into a part of a block reads first, and waits for its neighbours.
	if caps := New(c).Info().Caps; caps != c.Info().Caps&^(block.CapResize|block.CapNowaitWrites) {
		t.Errorf("got %v of %v", caps, c.Info().Caps)
	}
	c.caps = block.CapZero | block.CapFastZero | block.CapFUA | block.CapExtents
	d := New(c)
	if caps := d.Info().Caps; caps&c.caps != 0 {
		t.Errorf("%v out of nowhere", caps&c.caps)
	}
	if err := d.WriteAt(ctx, []byte{1}, 1, block.FUA); block.KindOf(err) != block.Invalid {
		t.Errorf("FUA without CapFUA: %v", err)
	}
}

// Many writers own a few bytes each in the same blocks, others write whole
// blocks beside them: nobody's bytes are lost.
func TestNeighboursInOneBlock(t *testing.T) {
	const unit, writers, step, rounds = 4096, 8, 600, 300
	d := New(newCoarse(t, 64*unit, unit))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(w)))
			mine, got := make([]byte, step), make([]byte, step)
			off := int64(w*step + 100)
			for range rounds {
				for i := range mine {
					mine[i] = byte(r.Uint32())
				}
				if r.IntN(4) == 0 {
					clear(mine)
					if err := block.Resolve(d).Zeroer.WriteZeroes(ctx, off, step, 0); err != nil {
						t.Error(err)
					}
				} else if err := d.WriteAt(ctx, mine, off, 0); err != nil {
					t.Error(err)
				}
				if err := d.ReadAt(ctx, got, off); err != nil || !bytes.Equal(mine, got) {
					t.Errorf("writer %d: bytes lost (%v)", w, err)
					return
				}
			}
		})
	}
	// A small write into a block and a whole block's write in turn: the bytes
	// beside the small write are the whole write's.
	wg.Go(func() {
		whole, got := make([]byte, unit), make([]byte, unit)
		for i := range rounds {
			var small sync.WaitGroup
			small.Go(func() {
				if err := d.WriteAt(ctx, []byte{0xee}, 32*unit, 0); err != nil {
					t.Error(err)
				}
			})
			for j := range whole {
				whole[j] = byte(i)
			}
			if err := d.WriteAt(ctx, whole, 32*unit, 0); err != nil {
				t.Error(err)
			}
			small.Wait()
			if err := d.ReadAt(ctx, got, 32*unit); err != nil || !bytes.Equal(got[1:], whole[1:]) {
				t.Errorf("round %d: an old block came back (%v)", i, err)
				return
			}
		}
	})
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestFailedMiddleOfFastZeroingChangesNothing(t *testing.T) {
	fault := &noFastZero{coarse: newCoarse(t, 16384, 4096)}
	d := New(fault)
	want := bytes.Repeat([]byte{5}, 16384)
	if err := d.WriteAt(ctx, want, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := block.Resolve(d).Zeroer.WriteZeroes(ctx, 100, 9000, block.FastOnly); block.KindOf(err) != block.Unsupported {
		t.Errorf("got %v", err)
	}
	got := make([]byte, 16384)
	if err := d.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("something changed (%v)", err)
	}
}

type noFastZero struct{ *coarse }

func (n *noFastZero) WriteZeroes(ctx context.Context, off, length int64, flags block.Flags) error {
	if flags&block.FastOnly != 0 {
		return block.Errorf(block.Unsupported, "write zeroes", "", off, "")
	}
	return n.coarse.WriteZeroes(ctx, off, length, flags)
}

func TestAlignedRequestsAllocateNothingAndCopyNothing(t *testing.T) {
	c := &watched{coarse: newCoarse(t, 1<<20, 4096)}
	d := New(c)
	p := make([]byte, 8192)
	if n := testing.AllocsPerRun(1000, func() {
		if d.WriteAt(ctx, p, 4096, 0) != nil || d.ReadAt(ctx, p, 4096) != nil {
			t.Error("failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if c.last != unsafe.SliceData(p) {
		t.Error("the bytes went through other memory")
	}
}

type watched struct {
	*coarse
	last *byte
}

func (w *watched) ReadAt(ctx context.Context, p []byte, off int64) error {
	w.last = unsafe.SliceData(p)
	return w.coarse.ReadAt(ctx, p, off)
}
