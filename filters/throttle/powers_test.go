package throttle

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
)

// Each power that there is: forwarded by name, or gone.
func TestEveryPowerIsForwardedOrGone(t *testing.T) {
	for i, name := range every.Names() {
		one := block.Cap(1) << i
		want := one
		if one == block.CapNowaitWrites {
			want = 0
		}
		for _, l := range []Limits{{}, tight} {
			with := New(&full{Device: newMem(t, 4096), less: every &^ one}, l)
			if got := with.Info().Caps; got != want {
				t.Errorf("%s below, %v above, want %v", name, got, want)
			}
			without := New(&full{Device: newMem(t, 4096), less: one}, l)
			if got := without.Info().Caps; got != every&^one&^block.CapNowaitWrites {
				t.Errorf("all but %s below, %v above", name, got)
			}
			closeDevice(t, with)
			closeDevice(t, without)
		}
	}
	if unknown := every << 1 &^ every; New(&full{Device: newMem(t, 4096), less: ^unknown}, Limits{}).Info().Has(unknown) {
		t.Error("a power that nobody knows passed")
	}
}

// What the powers do arrives below and comes back.
func TestPowersReachTheDeviceBelow(t *testing.T) {
	for _, l := range []Limits{{}, tight} {
		below := &full{Device: newMem(t, 1<<20), resident: true}
		d := New(below, l)
		data := bytes.Repeat([]byte{7}, 8192)
		if err := d.WriteAt(ctx, data, 0, block.FUA); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteZeroes(ctx, 0, 4096, block.MayUnmap); err != nil {
			t.Fatal(err)
		}
		if err := d.Discard(ctx, 65536, 65536, 0); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8192)
		if err := below.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) || !bytes.Equal(got[4096:], data[4096:]) {
			t.Errorf("wrong content below (%v)", err)
		}
		extents, err := d.Extents(ctx, 0, 1<<20, make([]block.Extent, 0, 4))
		if err != nil || extents[0].State != 0 {
			t.Errorf("extents %v, %v", extents, err)
		}
		dirty, err := d.BitmapExtents(ctx, d.Bitmaps()[0], 0, 512, nil)
		if err != nil || len(dirty) != 1 || dirty[0].State != block.Dirty {
			t.Errorf("bitmap %v, %v", dirty, err)
		}
		if err := d.Resize(ctx, 2<<20); err != nil || d.Info().Size != 2<<20 {
			t.Errorf("resized to %d (%v)", d.Info().Size, err)
		}
		if err := d.WriteAt(ctx, data, 2<<20-8192, 0); err != nil {
			t.Errorf("a write to what is new: %v", err)
		}
		closeDevice(t, d)
	}
}

func TestReadNowaitDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &full{Device: newMem(t, 1<<20)}
		d := New(below, Limits{Read: Rate{IOPS: 10}})
		defer closeDevice(t, d)
		p := make([]byte, 512)
		if err := d.ReadNowait(p, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.ReadNowait(p, 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("a second read: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		below.blocks = true
		if err := d.ReadNowait(p, 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("where the device below would wait: %v", err)
		}
		began := time.Now() // that read has taken nothing
		if err := d.ReadAt(ctx, p, 0); err != nil || time.Since(began) != 0 {
			t.Errorf("the read after it took %v (%v)", time.Since(began), err)
		}
		below.blocks = false
		c := newCrowd(d)
		c.send(ctx, 0, 512)
		time.Sleep(50 * time.Millisecond)
		if err := d.ReadNowait(p, 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("past one that waits: %v", err)
		}
		c.all.Wait()
		d.SetLimits(Limits{})
		if err := d.ReadNowait(p, 0); err != nil {
			t.Errorf("without limits: %v", err)
		}
	})
}

func TestPinRangeTakesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &full{Device: newMem(t, 256<<20), resident: true}
		d := New(below, Limits{Read: Rate{Bytes: 1 << 20}})
		defer closeDevice(t, d)
		pin := func(want bool, what string) {
			t.Helper()
			r, ok := d.PinRange(4096, 65536)
			if ok != want {
				t.Errorf("%s: pinned %v, want %v", what, ok, want)
			}
			if ok && (r.FD != 77 || r.Off != 4096 || r.Len != 65536) {
				t.Errorf("%s: pinned %+v", what, r)
			}
			if ok {
				d.UnpinRange(r)
			}
		}
		pin(true, "the first")
		pin(false, "while it is paid for")
		time.Sleep(62500 * time.Microsecond)
		pin(true, "when it is paid for")
		time.Sleep(time.Second)
		below.resident = false
		pin(false, "what is not in memory")
		d.SetLimits(Limits{})
		pin(true, "without limits")
		below.resident = true
		for _, l := range []Limits{{}, {Read: Rate{IOPS: 10}}, {Write: Rate{IOPS: 10}}} {
			d.SetLimits(l)
			r, ok := d.PinRange(0, 128<<20) // of a file that is passed through
			if ok != (l == Limits{}) {
				t.Errorf("a long range with %+v: pinned %v", l, ok)
			}
			if ok {
				d.UnpinRange(r)
			}
		}
		d.SetLimits(Limits{Write: Rate{IOPS: 1}})
		pin(true, "with limits for writes")
		pin(true, "with limits for writes, again")
		if n := below.pins.Load(); n != 0 {
			t.Errorf("%d ranges were not given back", n)
		}
	})
}

func TestReadOnlyDeviceTakesNoTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(readOnly{newMem(t, 4096)}, Limits{Write: Rate{IOPS: 1}})
		defer closeDevice(t, d)
		for range 5 {
			if err := write(d, 512, 0); block.KindOf(err) != block.ReadOnly {
				t.Errorf("got %v", err)
			}
		}
		if s := d.Stats(); s.Write.Requests != 0 {
			t.Errorf("waited: %+v", s)
		}
	})
}
