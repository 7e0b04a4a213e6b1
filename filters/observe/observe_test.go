package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
	"sluice/nbd"
)

// recorder remembers what it is told.
type recorder struct {
	mu       sync.Mutex
	requests [16]string
	n        int
	inFlight [NumOps]int
	pinned   int64
}

func (r *recorder) Request(op Op, n int64, took time.Duration, kind block.Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if r.n > len(r.requests) {
		return
	}
	r.requests[r.n-1] = fmt.Sprintf("%v %d %v %v", op, n, took.Round(time.Second), kind)
}

func (r *recorder) InFlight(op Op, delta int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight[op] += delta
}

func (r *recorder) Pinned(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pinned += n
}

// line gives the requests so far, in order.
func (r *recorder) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.requests[:min(r.n, len(r.requests))], ", ")
}

// TestOpsAreThoseOfNBD: metrics count both alike.
func TestOpsAreThoseOfNBD(t *testing.T) {
	if NumOps != nbd.NumOps {
		t.Fatalf("%d operations, NBD has %d", NumOps, nbd.NumOps)
	}
	for op := range NumOps {
		if got, want := Op(op).String(), nbd.Op(op).String(); got != want {
			t.Errorf("operation %d is %s, NBD's is %s", op, got, want)
		}
	}
}

// TestEachOperationIsToldOf: with its length, its time and how it ended.
func TestEachOperationIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		slow := blocktest.NewFaultDevice(filtertest.NewFull(t, 1<<20), blocktest.Delay(2*time.Second), nil)
		d := New(slow, Config{Observer: rec})
		r, ctx := block.Resolve(d), t.Context()
		dst := make([]block.Extent, 0, 4)
		for i, call := range []func() error{
			func() error { return d.ReadAt(ctx, make([]byte, 100), 0) },
			func() error { return d.WriteAt(ctx, make([]byte, 101), 0, 0) },
			func() error { return d.Flush(ctx) },
			func() error { return r.Discarder.Discard(ctx, 0, 102, 0) },
			func() error { return r.Zeroer.WriteZeroes(ctx, 0, 103, block.MayUnmap) },
			func() error { return r.Prefetch.Prefetch(ctx, 0, 104) },
			func() error { _, err := r.Extenter.Extents(ctx, 0, 105, dst); return err },
			func() error { _, err := r.Bitmapper.BitmapExtents(ctx, filtertest.FullBitmap, 0, 106, dst); return err },
			func() error { return r.Nowaiter.ReadNowait(make([]byte, 107), 0) },
			func() error { return r.Resizer.Resize(ctx, 1<<19) },
		} {
			if err := call(); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if err := d.ReadAt(ctx, make([]byte, 1), 1<<20); block.KindOf(err) != block.OutOfRange {
			t.Error(err)
		}
		want := "read 100 2s ok, write 101 2s ok, flush 0 2s ok, trim 102 2s ok, zero 103 2s ok, cache 104 2s ok, " +
			"status 105 2s ok, status 106 2s ok, read 107 2s ok, read 1 2s out of range"
		if got := rec.line(); got != want {
			t.Errorf("told of\n%s, want\n%s", got, want)
		}
		if rec.inFlight != [NumOps]int{} {
			t.Errorf("in flight: %v", rec.inFlight)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestReadsThatWouldWait count when they are read in the ordinary way, and not
// twice.
func TestReadsThatWouldWait(t *testing.T) {
	rec := &recorder{}
	below := blocktest.NewFaultDevice(filtertest.NewMem(t, 4096), blocktest.Nth(1, blocktest.Always(block.ErrWouldBlock)), nil)
	d := New(below, Config{Observer: rec})
	r := block.Resolve(d)
	if err := r.Nowaiter.ReadNowait(make([]byte, 5), 0); err != block.ErrWouldBlock {
		t.Error(err)
	}
	if rec.line() != "" {
		t.Error(rec.line())
	}
	if err := r.Nowaiter.ReadNowait(make([]byte, 5), 4096); block.KindOf(err) != block.OutOfRange {
		t.Error(err)
	}
	if err := d.ReadAt(t.Context(), make([]byte, 5), 0); err != nil || rec.line() != "read 5 0s out of range, read 5 0s ok" {
		t.Error(rec.line(), err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// half pins the first half of a range, and none of a single byte.
type half struct{ *filtertest.Full }

func (h half) PinRange(off, n int64) (block.FileRange, bool) {
	if n < 2 {
		return block.FileRange{}, false
	}
	return h.Full.PinRange(off, n/2)
}

func TestPinnedBytesAreNoRequests(t *testing.T) {
	rec := &recorder{}
	d := New(half{filtertest.NewFull(t, 4096)}, Config{Observer: rec})
	r := block.Resolve(d).Ranger
	if got, ok := r.PinRange(0, 1000); !ok || got.Len != 500 {
		t.Error(got, ok)
	}
	if _, ok := r.PinRange(0, 1); ok {
		t.Error("pinned")
	}
	if rec.pinned != 500 || rec.line() != "" {
		t.Errorf("%d bytes, %s", rec.pinned, rec.line())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// logged is a log that a test can read meanwhile.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take gives the lines since the last call, without time and level.
func (l *logged) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	l.buf.Reset()
	return lines
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// wait is a Device whose reads last until their context ends, or a second for
// each byte.
type wait struct{ block.Device }

func (w wait) ReadAt(ctx context.Context, p []byte, _ int64) error {
	select {
	case <-ctx.Done():
		return block.Errorf(block.IO, "read", "server", -1, "gave up")
	case <-time.After(time.Duration(len(p)) * time.Second):
		return nil
	}
}

// slowly runs a test with a Device that logs what takes two seconds.
func slowly(t *testing.T, run func(t *testing.T, d *Device, log *logged)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		d := New(wait{filtertest.Poor{Device: filtertest.NewMem(t, 1<<20)}}, Config{Object: "disk", Layer: "storage", Slow: 2 * time.Second, Log: log.logger()})
		run(t, d, log)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

func wantLines(t *testing.T, log *logged, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := log.take(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("log:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStuckRequest is in the log as soon as its time is up, and once more when it
// is over.
func TestStuckRequest(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		ctx, giveUp := context.WithCancel(t.Context())
		done := make(chan error)
		time.Sleep(time.Minute)
		go func() { done <- d.ReadAt(ctx, make([]byte, 3600), 512) }()
		time.Sleep(2*time.Second - 1)
		wantLines(t, log)
		time.Sleep(time.Millisecond)
		wantLines(t, log, `msg="request is slow and not over yet" object=disk layer=storage op=read offset=512 length=3600 took=2s`)
		time.Sleep(10 * time.Minute)
		wantLines(t, log)
		giveUp()
		if err := <-done; !errors.Is(err, block.IO) {
			t.Error(err)
		}
		wantLines(t, log, `msg="slow request" object=disk layer=storage op=read offset=512 length=3600 took=10m2.001s err="read server: gave up"`)
	})
}

// TestOneByOne: each request is found at its own time, though quick ones come and
// go all the while.
func TestOneByOne(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { _ = d.ReadAt(t.Context(), make([]byte, 100+i), int64(i)) })
			time.Sleep(500 * time.Millisecond)
			_ = d.ReadAt(t.Context(), make([]byte, 1), 9)
		}
		begun := time.Now()
		wg.Wait()
		if len(log.take()) != 6 || time.Since(begun) < 90*time.Second {
			t.Error("wrong number of lines")
		}
	})
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		go func() { _ = d.ReadAt(t.Context(), make([]byte, 100), 1) }()
		time.Sleep(1500 * time.Millisecond)
		go func() { _ = d.ReadAt(t.Context(), make([]byte, 100), 2) }()
		time.Sleep(501 * time.Millisecond)
		wantLines(t, log, `msg="request is slow and not over yet" object=disk layer=storage op=read offset=1 length=100 took=2s`)
		time.Sleep(1500 * time.Millisecond)
		wantLines(t, log, `msg="request is slow and not over yet" object=disk layer=storage op=read offset=2 length=100 took=2s`)
		time.Sleep(100 * time.Second)
		log.take()
	})
}

// TestFewLines: a crowd of slow requests makes few lines, which tell how many
// were left out.
func TestFewLines(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { _ = d.ReadAt(t.Context(), make([]byte, 10), 0) })
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := len(log.take()); n != maxLines {
			t.Errorf("%d lines for 100 stuck requests", n)
		}
		wg.Wait()
		lines := log.take()
		if len(lines) != maxLines || !strings.Contains(lines[0], "left_out=95") {
			t.Errorf("%d lines: %v", len(lines), lines)
		}
		time.Sleep(time.Second)
		_ = d.ReadAt(t.Context(), make([]byte, 2), 0)
		if lines := log.take(); len(lines) == 0 || !strings.Contains(lines[0], "left_out=95") {
			t.Error(lines)
		}
	})
}

// TestMoreThanTheTableHolds: those without a slot are logged when they end.
func TestMoreThanTheTableHolds(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		var wg sync.WaitGroup
		for range 4 * numSlots {
			wg.Go(func() { _ = d.ReadAt(t.Context(), make([]byte, 5), 0) })
		}
		wg.Wait()
		last := log.take()
		time.Sleep(time.Second)
		_ = d.ReadAt(t.Context(), make([]byte, 3), 7)
		if lines := log.take(); len(last) != 2*maxLines || len(lines) != 2 {
			t.Errorf("%v, then %v", last, lines)
		}
		if d.watch.slots.busy() {
			t.Error("a slot was not given back")
		}
	})
}

// TestSetSlow changes the limit while a request is under way, and switches it
// off.
func TestSetSlow(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		d.SetSlow(time.Hour)
		done := make(chan error)
		go func() { done <- d.ReadAt(t.Context(), make([]byte, 100), 0) }()
		time.Sleep(30 * time.Second)
		wantLines(t, log)
		d.SetSlow(10 * time.Second)
		time.Sleep(time.Millisecond)
		wantLines(t, log, `msg="request is slow and not over yet" object=disk layer=storage op=read offset=0 length=100 took=30s`)
		d.SetSlow(0)
		<-done
		_ = d.ReadAt(t.Context(), make([]byte, 100), 0)
		wantLines(t, log)
		d.SetSlow(time.Second)
		_ = d.ReadAt(t.Context(), make([]byte, 1), 0)
		if n := len(log.take()); n == 0 {
			t.Error("not on again")
		}
	})
}

// TestIdleHasNoTimer: with nothing under way nothing runs, so that many idle
// disks cost nothing.
func TestIdleHasNoTimer(t *testing.T) {
	slowly(t, func(t *testing.T, d *Device, log *logged) {
		if d.watch.armed.Load() {
			t.Error("armed before the first request")
		}
		_ = d.ReadAt(t.Context(), make([]byte, 1), 0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d.watch.armed.Load() {
			t.Error("armed though idle")
		}
		_ = d.ReadAt(t.Context(), make([]byte, 3), 0)
		if n := len(log.take()); n != 2 {
			t.Errorf("%d lines after being idle", n)
		}
	})
}
