package throttle

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sluice/block"
	"sluice/filters/filtertest"
)

// load is what clients do over and over.
type load struct {
	clients int
	sizes   []int         // of requests, in turn
	think   time.Duration // between two requests of a client
	call    func(d *Device, n int, i int64) error
}

func read(d *Device, n int, _ int64) error  { return d.ReadAt(ctx, make([]byte, n), 0) }
func write(d *Device, n int, _ int64) error { return d.WriteAt(ctx, make([]byte, n), 0, 0) }

// run lets the clients go on for so long and tells what passed meanwhile.
func (l load) run(t *testing.T, d *Device, long time.Duration) (requests, bytes int64) {
	t.Helper()
	var passed, moved atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(long)
	for c := range l.clients {
		all.Go(func() {
			for i := c; time.Now().Before(end); i++ {
				n := l.sizes[i%len(l.sizes)]
				if err := l.call(d, n, int64(i)); err != nil {
					t.Error(err)
					return
				}
				if time.Now().After(end) {
					return
				}
				passed.Add(1)
				moved.Add(int64(n))
				time.Sleep(l.think)
			}
		})
	}
	all.Wait()
	return passed.Load(), moved.Load()
}

// near asserts that got is within 5 % of want.
func near(t *testing.T, got, want int64, what string) {
	t.Helper()
	if diff := got - want; diff > want/20 || -diff > want/20 {
		t.Errorf("%s: got %d, want %d within 5 %%", what, got, want)
	}
}

// Ten seconds of each kind of load, by the clock of the bubble: exact, whatever
// the machine does.
func TestPaceOverTenSeconds(t *testing.T) {
	small, mixed := []int{4096}, []int{512, 1 << 20, 4096, 65536, 8 << 20}
	rate := func(iops, bytes int64) Rate { return Rate{IOPS: iops, Bytes: bytes} }
	for name, c := range map[string]struct {
		limits          Limits
		load            load
		requests, bytes int64 // expected; 0: not bounded
	}{
		"requests":                     {Limits{Read: rate(1000, 0)}, load{16, small, 0, read}, 10_000, 0},
		"one client":                   {Limits{Read: rate(1000, 0)}, load{1, small, 0, read}, 10_000, 0},
		"a client that has work to do": {Limits{Read: rate(100, 0)}, load{1, small, 9 * time.Millisecond, read}, 1000, 0},
		"few requests":                 {Limits{Write: rate(7, 0)}, load{3, small, 0, write}, 70, 0},
		"bytes":                        {Limits{Write: rate(0, 10<<20)}, load{8, small, 0, write}, 0, 100 << 20},
		"larger than burst":            {Limits{Write: rate(0, 40<<20)}, load{4, []int{8 << 20}, 0, write}, 0, 400 << 20},
		"mixed sizes":                  {Limits{Read: rate(0, 50<<20)}, load{8, mixed, 0, read}, 0, 500 << 20},
		"requests bind":                {Limits{Read: rate(500, 1<<30)}, load{8, small, 0, read}, 5000, 0},
		"bytes bind":                   {Limits{Read: rate(1e6, 4<<20)}, load{8, small, 0, read}, 0, 40 << 20},
		"long burst":                   {Limits{Read: Rate{IOPS: 1000, Burst: 10 * time.Second}}, load{8, small, 0, read}, 10_000, 0},
		"short burst":                  {Limits{Read: Rate{IOPS: 1000, Burst: 1}}, load{8, small, 0, read}, 10_000, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevice(t, 8<<20, c.limits)
				defer filtertest.Close(t, d)
				requests, bytes := c.load.run(t, d, 10*time.Second)
				if c.requests > 0 {
					near(t, requests, c.requests, "requests")
				}
				if c.bytes > 0 {
					near(t, bytes, c.bytes, "bytes")
				}
				t.Logf("%d requests, %d bytes", requests, bytes)
			})
		})
	}
}

// clocked asserts that a load has its pace by the machine's clock: requests, or
// where that is 0 bytes, for each second. No run may be faster. One of five has
// to be as fast: the machine may stand still for a while, which is not the
// filter's doing. (What is lost where it stands still for less than a run is
// saved up and used in the same run.)
func clocked(t *testing.T, d *Device, l load, requests, bytes int64) {
	t.Helper()
	const long = time.Second
	var got, want int64
	for range 5 {
		d.SetLimits(Limits{}) // forget what was saved up
		r := Rate{IOPS: requests, Bytes: bytes, Burst: long}
		d.SetLimits(Limits{Read: r, Write: r})
		began := time.Now()
		moved, unit := int64(0), int64(1)
		if got, moved = l.run(t, d, long); requests == 0 {
			got, unit = moved, int64(l.sizes[0])
		}
		want = requests + bytes
		t.Logf("%d in %v, want %d", got, time.Since(began), want)
		if most := float64(want)*time.Since(began).Seconds()*1.05 + float64(unit*int64(l.clients)); float64(got) > most {
			t.Fatalf("got %d, %.0f are allowed", got, most)
		}
		if got > want-want/20 {
			return
		}
	}
	t.Errorf("never as fast as it may be: got %d, want %d within 5 %%", got, want)
}

func TestPaceOfTheClock(t *testing.T) {
	d := newDevice(t, 1<<20, Limits{})
	defer filtertest.Close(t, d)
	clocked(t, d, load{4, []int{4096}, 0, read}, 2000, 0)
	clocked(t, d, load{4, []int{128 << 10}, 0, write}, 0, 20<<20)
}

// Reads and changes have bounds of their own; what moves no bytes takes none.
func TestWhatCounts(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		limits Limits
		call   func(d *Device) error
		takes  time.Duration // eleven calls, the first of which passes at once
	}{
		"read by request":    {Limits{Read: Rate{IOPS: 10}}, func(d *Device) error { return read(d, mb, 0) }, time.Second},
		"read by byte":       {Limits{Read: Rate{Bytes: mb}}, func(d *Device) error { return read(d, mb, 0) }, 10 * time.Second},
		"write by request":   {Limits{Write: Rate{IOPS: 10}}, func(d *Device) error { return write(d, mb, 0) }, time.Second},
		"write by byte":      {Limits{Write: Rate{Bytes: mb}}, func(d *Device) error { return write(d, mb, 0) }, 10 * time.Second},
		"zeroes by request":  {Limits{Write: Rate{IOPS: 10}}, func(d *Device) error { return d.WriteZeroes(ctx, 0, mb, 0) }, time.Second},
		"zeroes by byte":     {Limits{Write: Rate{Bytes: mb}}, func(d *Device) error { return d.WriteZeroes(ctx, 0, mb, 0) }, 10 * time.Second},
		"discard by request": {Limits{Write: Rate{IOPS: 10}}, func(d *Device) error { return d.Discard(ctx, 0, mb, 0) }, time.Second},
		"discard by byte":    {Limits{Write: Rate{Bytes: mb}}, func(d *Device) error { return d.Discard(ctx, 0, mb, 0) }, 0},
		"read, writes bound": {Limits{Write: Rate{IOPS: 1, Bytes: 1}}, func(d *Device) error { return read(d, mb, 0) }, 0},
		"write, reads bound": {Limits{Read: Rate{IOPS: 1, Bytes: 1}}, func(d *Device) error { return write(d, mb, 0) }, 0},
		"flush":              {Limits{Rate{IOPS: 1}, Rate{IOPS: 1}}, func(d *Device) error { return d.Flush(ctx) }, 0},
		"prefetch":           {Limits{Rate{IOPS: 1}, Rate{IOPS: 1}}, func(d *Device) error { return d.Prefetch(ctx, 0, mb) }, 0},
		"extents": {Limits{Rate{IOPS: 1}, Rate{IOPS: 1}}, func(d *Device) error {
			_, err := d.Extents(ctx, 0, mb, make([]block.Extent, 0, 1))
			return err
		}, 0},
		"empty read": {Limits{Read: Rate{IOPS: 1}}, func(d *Device) error { return read(d, 0, 0) }, 0},
		"read behind the end": {Limits{Read: Rate{IOPS: 1}}, func(d *Device) error {
			return only(block.OutOfRange, d.ReadAt(ctx, make([]byte, mb), mb))
		}, 0},
		"zeroes behind the end": {Limits{Write: Rate{IOPS: 1, Bytes: 1}}, func(d *Device) error {
			return only(block.OutOfRange, d.WriteZeroes(ctx, 0, 1<<60, 0))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevice(t, mb, c.limits)
				defer filtertest.Close(t, d)
				began := time.Now()
				for range 11 {
					if err := c.call(d); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(began); took < c.takes-time.Microsecond || took > c.takes+time.Microsecond {
					t.Errorf("took %v, want %v", took, c.takes)
				}
			})
		})
	}
}

// only turns an error of that kind into none.
func only(kind block.Kind, err error) error {
	if block.KindOf(err) != kind {
		return fmt.Errorf("got %v, want kind %v", err, kind)
	}
	return nil
}

// A client that was silent for long may be ahead by the burst, not by more.
func TestBurstIsSavedUpAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 1<<20, Limits{Read: Rate{IOPS: 100, Burst: 2 * time.Second}})
		defer filtertest.Close(t, d)
		time.Sleep(time.Hour)
		got, _ := load{4, []int{512}, 0, read}.run(t, d, 2*time.Second)
		near(t, got, 400, "two seconds after an hour of silence")
		got, _ = load{4, []int{512}, 0, read}.run(t, d, 10*time.Second)
		near(t, got, 1000, "the ten seconds after that")
	})
}

// Whatever comes when: no stretch of time sees more than its allowance, the
// burst and one request.
func TestNoStretchOfTimeSeesMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := Rate{
			IOPS:  rapid.SampledFrom([]int64{0, 3, 50, 1000}).Draw(rt, "iops"),
			Bytes: rapid.SampledFrom([]int64{0, 1000, 1 << 20}).Draw(rt, "bytes"),
			Burst: rapid.SampledFrom([]time.Duration{1, 50 * time.Millisecond, 3 * time.Second}).Draw(rt, "burst"),
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		var wrong string
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, 1<<20, Limits{Read: rate})
			defer filtertest.Close(t, d)
			wrong = excess(rate, arrivals(t, d, rate, rand.New(rand.NewPCG(seed, 1))))
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// passage is a request that went through.
type passage struct {
	at    time.Duration
	bytes int64
}

// arrivals sends requests of random sizes at random times and tells in which
// order and when they passed.
func arrivals(t *testing.T, d *Device, r Rate, rng *rand.Rand) []passage {
	var mu sync.Mutex
	var got []passage
	var all sync.WaitGroup
	began := time.Now()
	for range 60 {
		n := 1 + rng.Int64N(4096)
		all.Go(func() {
			if err := d.ReadAt(ctx, make([]byte, n), 0); err != nil {
				t.Error(err)
			}
			mu.Lock()
			got = append(got, passage{time.Since(began), n})
			mu.Unlock()
		})
		synctest.Wait()
		if rng.IntN(3) == 0 {
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		}
	}
	all.Wait()
	return got
}

// excess looks for a stretch from one passage to another that saw too much.
func excess(r Rate, got []passage) string {
	for i := range got {
		var bytes int64
		for j := i; j < len(got); j++ {
			long := (got[j].at - got[i].at + r.burst()).Seconds() + 1e-6
			// Without the last, which may go into debt.
			if r.IOPS > 0 && float64(j-i) > float64(r.IOPS)*long {
				return fmt.Sprintf("%d requests in %v", j-i, got[j].at-got[i].at)
			}
			if r.Bytes > 0 && float64(bytes) > float64(r.Bytes)*long {
				return fmt.Sprintf("%d bytes in %v", bytes, got[j].at-got[i].at)
			}
			bytes += got[j].bytes
		}
	}
	return ""
}
