package throttle

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/filters/filtertest"
)

// crowd sends requests one after the other, each when the one before it waits
// or has passed, and notes when each passed.
type crowd struct {
	d     *Device
	began time.Time
	all   sync.WaitGroup

	mu    sync.Mutex
	order []int // which passed, in order
	times map[int]time.Duration
	errs  map[int]error
}

func newCrowd(d *Device) *crowd {
	return &crowd{d: d, began: time.Now(), times: map[int]time.Duration{}, errs: map[int]error{}}
}

// send sends a read of n bytes under the number id.
func (c *crowd) send(ctx context.Context, id, n int) {
	c.all.Go(func() {
		err := c.d.ReadAt(ctx, make([]byte, n), 0)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.order = append(c.order, id)
		c.times[id], c.errs[id] = time.Since(c.began), err
	})
	synctest.Wait()
}

// at gives when a request passed, to the millisecond.
func (c *crowd) at(id int) time.Duration { return c.times[id].Round(time.Millisecond) }

func (c *crowd) waiting(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if got := c.d.Stats().Read.Waiting; got != want {
		t.Errorf("%d wait, want %d", got, want)
	}
}

// crowded runs a test in a bubble, on RAM with limits for reads.
func crowded(t *testing.T, r Rate, test func(t *testing.T, d *Device, c *crowd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 2<<20, Limits{Read: r})
		defer filtertest.Close(t, d)
		test(t, d, newCrowd(d))
	})
}

func TestLargeRequestHasItsTurn(t *testing.T) {
	crowded(t, Rate{Bytes: 1 << 20}, func(t *testing.T, d *Device, c *crowd) {
		for id := range 100 {
			n := 64 << 10
			if id == 20 {
				n = 1 << 20
			}
			c.send(ctx, id, n)
		}
		c.all.Wait()
		if !slices.IsSorted(c.order) {
			t.Errorf("passed in the order %v", c.order)
		}
		// Twenty of 64 KiB before it; then those after it wait for its debt.
		if c.at(20) != 1250*time.Millisecond || c.at(21) != 2250*time.Millisecond {
			t.Errorf("passed at %v, the next at %v", c.at(20), c.at(21))
		}
	})
}

// Small requests that never end cannot hold a large one up.
func TestLargeRequestAmongEndlessSmallOnes(t *testing.T) {
	crowded(t, Rate{Bytes: 1 << 20}, func(t *testing.T, d *Device, c *crowd) {
		stop := make(chan struct{})
		for range 8 {
			c.all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := read(d, 4096, 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		if err := read(d, 1<<20, 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 9*4*time.Millisecond {
			t.Errorf("waited %v behind eight requests of 4 KiB", took)
		}
		close(stop)
		c.all.Wait()
	})
}

func TestSetLimitsWhileManyWait(t *testing.T) {
	slow := Rate{IOPS: 1}
	fill := func(t *testing.T, c *crowd) {
		for id := range 101 {
			c.send(ctx, id, 512)
		}
		c.waiting(t, 100)
	}
	t.Run("removed", func(t *testing.T) {
		crowded(t, slow, func(t *testing.T, d *Device, c *crowd) {
			fill(t, c)
			d.SetLimits(Limits{})
			c.waiting(t, 0)
			c.all.Wait()
			if took := time.Since(c.began); took != 0 {
				t.Errorf("released after %v", took)
			}
			if d.Limits() != (Limits{}) {
				t.Errorf("limits are %v", d.Limits())
			}
		})
	})
	t.Run("raised", func(t *testing.T) {
		crowded(t, slow, func(t *testing.T, d *Device, c *crowd) {
			fill(t, c)
			d.SetLimits(Limits{Read: Rate{IOPS: 1000}})
			c.all.Wait()
			// The first owed one request, which now takes a millisecond.
			if took := c.at(100); took != 100*time.Millisecond || !slices.IsSorted(c.order) {
				t.Errorf("the last passed after %v, in the order %v", took, c.order)
			}
		})
	})
	t.Run("lowered", func(t *testing.T) {
		crowded(t, Rate{Bytes: 1 << 20}, func(t *testing.T, d *Device, c *crowd) {
			c.send(ctx, 0, 1<<20)
			c.send(ctx, 1, 1000)
			c.send(ctx, 2, 1000)
			time.Sleep(500 * time.Millisecond)
			d.SetLimits(Limits{Read: Rate{Bytes: 1000}})
			c.all.Wait()
			// What was owed is paid as it would have been.
			if c.at(1) != time.Second || c.at(2) != 2*time.Second {
				t.Errorf("passed at %v and %v", c.at(1), c.at(2))
			}
		})
	})
	t.Run("another bound", func(t *testing.T) {
		crowded(t, slow, func(t *testing.T, d *Device, c *crowd) {
			fill(t, c)
			d.SetLimits(Limits{Read: Rate{Bytes: 5120}})
			c.all.Wait()
			if took := c.at(100); took != 99*100*time.Millisecond {
				t.Errorf("the last passed after %v", took)
			}
		})
	})
	t.Run("again and again", func(t *testing.T) {
		crowded(t, Rate{IOPS: 100}, func(t *testing.T, d *Device, c *crowd) {
			fill(t, c)
			for range 500 { // to set what is set neither gives nor takes
				time.Sleep(time.Millisecond)
				d.SetLimits(Limits{Read: Rate{IOPS: 100}})
			}
			c.all.Wait()
			if took := c.at(100); took != time.Second {
				t.Errorf("the last passed after %v", took)
			}
		})
	})
}

func TestCancelledRequestGivesItsTurnBack(t *testing.T) {
	crowded(t, Rate{Bytes: 1 << 20}, func(t *testing.T, d *Device, c *crowd) {
		large, cancel := context.WithCancel(ctx)
		c.send(ctx, 0, 1<<20)
		c.send(large, 1, 1<<20)
		c.send(large, 2, 1<<20)
		c.send(ctx, 3, 1<<19)
		c.send(large, 4, 1<<20)
		c.send(ctx, 5, 512)
		time.Sleep(300 * time.Millisecond)
		cancel()
		c.waiting(t, 2)
		c.all.Wait()
		for _, id := range []int{1, 2, 4} {
			if err := c.errs[id]; block.KindOf(err) != block.Canceled || !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled request ended with %v", err)
			}
			if c.at(id) != 300*time.Millisecond {
				t.Errorf("it ended after %v", c.at(id))
			}
		}
		if c.at(3) != time.Second || c.at(5) != 1500*time.Millisecond {
			t.Errorf("the others passed at %v and %v", c.at(3), c.at(5))
		}
		if s := d.Stats(); s.Read.Requests != 5 || s.Read.Time.Round(time.Millisecond) != 3400*time.Millisecond || s.Write != (Waits{}) {
			t.Errorf("counted %+v", s)
		}
	})
}

// The turn comes at the very moment at which the request gives up: whichever it
// sees, no turn is lost and none is given twice.
func TestCancelledInTheMomentOfItsTurn(t *testing.T) {
	for range 200 {
		crowded(t, Rate{IOPS: 10}, func(t *testing.T, d *Device, c *crowd) {
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			c.send(ctx, 0, 512)
			c.send(short, 1, 512)
			c.send(ctx, 2, 512)
			c.all.Wait()
			want := 200 * time.Millisecond
			if c.errs[1] != nil {
				want = 100 * time.Millisecond
			}
			if c.at(2) != want {
				t.Errorf("the one before ended with %v, the next passed at %v", c.errs[1], c.at(2))
			}
		})
	}
}

func TestCloseSendsAwayWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 1<<20, Limits{Read: Rate{IOPS: 1}, Write: Rate{Bytes: 1}})
		c := newCrowd(d)
		for id := range 20 {
			c.send(ctx, id, 512)
		}
		errs := make([]error, 20)
		for i := range errs {
			c.all.Go(func() { errs[i] = write(d, 512, 0) })
		}
		synctest.Wait()
		filtertest.Close(t, d)
		c.all.Wait()
		if took := time.Since(c.began); took != 0 {
			t.Errorf("it took %v", took)
		}
		var passed int
		for _, err := range errs {
			if err == nil {
				passed++
			} else if block.KindOf(err) != block.Closed {
				t.Errorf("a write ended with %v", err)
			}
		}
		for id := range 20 {
			if err := c.errs[id]; id == 0 && err != nil || id > 0 && block.KindOf(err) != block.Closed {
				t.Errorf("read %d ended with %v", id, err)
			}
		}
		if passed != 1 {
			t.Errorf("%d writes passed, want the first alone", passed)
		}
		filtertest.Close(t, d)
		d.SetLimits(Limits{Read: Rate{IOPS: 5}})
		if err := read(d, 512, 0); block.KindOf(err) != block.Closed {
			t.Errorf("a read after close: %v", err)
		}
	})
}

// The timer may be late: who comes meanwhile stands behind those who wait, though
// there would be enough for it.
func TestLateTimerKeepsTheOrder(t *testing.T) {
	crowded(t, Rate{IOPS: 10, Burst: time.Hour}, func(t *testing.T, d *Device, c *crowd) {
		c.send(ctx, 0, 512)
		c.send(ctx, 1, 512)
		d.read.timer.Stop()
		time.Sleep(time.Second)
		if err := d.ReadNowait(make([]byte, 512), 0); !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("a read that does not wait: %v", err)
		}
		c.send(ctx, 2, 512)
		c.waiting(t, 2)
		d.read.run()
		c.all.Wait()
		if c.at(1) != time.Second || c.at(2) != time.Second {
			t.Errorf("passed at %v and %v", c.at(1), c.at(2))
		}
	})
}

// A request gives up when its turn has just come: what it took is there for the
// next.
func TestTurnOfOneThatGaveUp(t *testing.T) {
	for _, r := range []Rate{{IOPS: 10}, {Bytes: 5120}} {
		crowded(t, r, func(t *testing.T, d *Device, c *crowd) {
			c.send(ctx, 0, 512)
			w := d.read.enter(512)
			time.Sleep(100 * time.Millisecond)
			c.waiting(t, 0)
			d.read.leave(w, gaveUp)
			c.send(ctx, 1, 512)
			c.all.Wait()
			if c.at(1) != 100*time.Millisecond {
				t.Errorf("the next passed at %v", c.at(1))
			}
		})
	}
}

// slowToClose is a Device that does not refuse calls yet when Close has begun.
type slowToClose struct{ *mem.Device }

func (slowToClose) Close() error { return nil }

// Who waits when Close comes does not reach the storage any more.
func TestCloseLetsNobodyThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(slowToClose{filtertest.NewMem(t, 4096)}, Limits{Read: Rate{IOPS: 1}})
		c := newCrowd(d)
		c.send(ctx, 0, 512)
		c.send(ctx, 1, 512)
		filtertest.Close(t, d)
		c.all.Wait()
		if block.KindOf(c.errs[1]) != block.Closed {
			t.Errorf("ended with %v", c.errs[1])
		}
	})
}

// Everything at once, for the race detector: nobody is left behind.
func TestChangesUnderLoad(t *testing.T) {
	d := newDevice(t, 1<<20, tight)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := make([]byte, 4096)
			for j := range 300 {
				short, cancel := context.WithTimeout(ctx, time.Duration(j%7)*100*time.Microsecond)
				err := d.ReadAt(short, p, 0)
				if err == nil && i%2 == 0 {
					err = d.WriteAt(short, p, int64(i)*4096, 0)
				}
				cancel()
				if err != nil && block.KindOf(err) != block.Canceled {
					t.Errorf("ended with %v", err)
				}
				if err := d.ReadNowait(p, 0); err != nil && !errors.Is(err, block.ErrWouldBlock) {
					t.Errorf("nowait: %v", err)
				}
			}
		})
	}
	for i := range 200 {
		d.SetLimits([]Limits{{}, tight, {Read: Rate{IOPS: 3000}}, {Write: Rate{Bytes: 1 << 20}}}[i%4])
		_ = d.Stats()
	}
	d.SetLimits(Limits{})
	all.Wait()
	if s := d.Stats(); s.Read.Waiting != 0 || s.Write.Waiting != 0 {
		t.Errorf("left behind: %+v", s)
	}
	filtertest.Close(t, d)
}
