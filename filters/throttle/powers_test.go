package throttle

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/filters/filtertest"
)

// Each power that there is: forwarded by name, or gone.
func TestEveryPowerIsForwardedOrGone(t *testing.T) {
	for _, wrap := range ways {
		filtertest.Powers(t, block.CapNowaitWrites|block.CapStart, wrap)
	}
}

func TestPowersReachTheDeviceBelow(t *testing.T) {
	for _, wrap := range ways {
		filtertest.Reach(t, wrap)
	}
}

func TestReadNowaitDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := filtertest.NewFull(t, 1<<20)
		d := New(below, Limits{Read: Rate{IOPS: 10}})
		defer filtertest.Close(t, d)
		p := make([]byte, 512)
		if err := d.ReadNowait(p, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.ReadNowait(p, 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("a second read: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		below.Blocks = true
		if err := d.ReadNowait(p, 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("where the device below would wait: %v", err)
		}
		began := time.Now() // that read has taken nothing
		if err := d.ReadAt(ctx, p, 0); err != nil || time.Since(began) != 0 {
			t.Errorf("the read after it took %v (%v)", time.Since(began), err)
		}
		below.Blocks = false
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
		below := filtertest.NewFull(t, 256<<20)
		below.Resident = true
		d := New(below, Limits{Read: Rate{Bytes: 1 << 20}})
		defer filtertest.Close(t, d)
		pin := func(want bool, what string) {
			t.Helper()
			r, ok := d.PinRange(4096, 65536)
			if ok != want {
				t.Errorf("%s: pinned %v, want %v", what, ok, want)
			}
			if ok && (r.FD != filtertest.FullFD || r.Off != 4096 || r.Len != 65536) {
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
		below.Resident = false
		pin(false, "what is not in memory")
		d.SetLimits(Limits{})
		pin(true, "without limits")
		below.Resident = true
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
		if n := below.Pins(); n != 0 {
			t.Errorf("%d ranges were not given back", n)
		}
	})
}

func TestReadOnlyDeviceTakesNoTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(filtertest.ReadOnly{Device: filtertest.NewMem(t, 4096)}, Limits{Write: Rate{IOPS: 1}})
		defer filtertest.Close(t, d)
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
