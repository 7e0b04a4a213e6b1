package hold

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

// TestOutage: each operation waits for 20 s and works; one alone asks the storage
// meanwhile, more and more seldom, and what comes new asks nothing.
func TestOutage(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		calls := b.all()
		synctest.Wait()
		n := b.calls()
		for range 100 {
			calls = append(calls, b.write(1024, 7), b.read(0), b.flush())
		}
		synctest.Wait()
		if b.calls() != n {
			t.Errorf("%d of the requests that came while held reached the storage", b.calls()-n)
		}
		begun := time.Now()
		if s := b.wantState(t, Held, len(calls)); s.Err == nil || !s.Since.Equal(begun) {
			t.Errorf("held since %v because of %v", s.Since, s.Err)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		// 10, 20, 40 … 1000 ms, each by half at the most shorter.
		if tries := b.calls() - n; tries < 20+5 || tries > 2*20+8 {
			t.Errorf("%d attempts in 20 s", tries)
		}
		for _, c := range calls {
			if c.over() {
				t.Fatalf("%s returned %v while the storage was away", c.name, c.err)
			}
		}
		b.set(nil)
		for _, c := range calls {
			c.want(t, block.OK)
		}
		if waited := time.Since(begun); waited > 21*time.Second {
			t.Errorf("back after %v", waited)
		}
		b.wantState(t, Serving, 0)
		got := make([]byte, 512)
		if err := b.dev.ReadAt(t.Context(), got, 1024); err != nil || got[511] != 7 || b.dev.Info().Size != 2<<20 {
			t.Errorf("read %d of %d, %v", got[511], b.dev.Info().Size, err)
		}
		if b.line() != "held serving" {
			t.Errorf("told of %q", b.line())
		}
		if c := b.dev.Counts(); c.Times != 1 || c.HeldNow != 0 || c.Total < 20*time.Second || c.Total > 21*time.Second {
			t.Errorf("counts %+v", c)
		}
		if log := b.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, "connection refused") || !strings.Contains(log, "object=disk") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestOutagesUnderLoad: writers, readers and flushers on storage that comes and
// goes see no error, and read what they wrote; what was flushed survives a crash.
func TestOutagesUnderLoad(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		var wg sync.WaitGroup
		var stop atomic.Bool
		var last [8][]byte
		for g := range int64(8) {
			wg.Go(func() {
				mine, got := make([]byte, 700), make([]byte, 700)
				for i := 0; !stop.Load(); i++ {
					for j := range mine {
						mine[j] = byte(i + j + int(g))
					}
					if err := b.dev.WriteAt(t.Context(), mine, g*700, 0); err != nil {
						t.Error(err)
					}
					if i%3 == 0 {
						if err := b.dev.Flush(t.Context()); err != nil {
							t.Error(err)
						}
					}
					if err := b.dev.ReadAt(t.Context(), got, g*700); err != nil || !bytes.Equal(got, mine) {
						t.Errorf("caller %d: other bytes than written (%v)", g, err)
					}
					time.Sleep(time.Duration(g+1) * time.Millisecond)
				}
				if err := b.dev.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				last[g] = mine
			})
		}
		for range 10 {
			time.Sleep(1500 * time.Millisecond)
			b.set(away)
			time.Sleep(3 * time.Second)
			b.set(nil)
		}
		time.Sleep(3 * time.Second)
		stop.Store(true)
		wg.Wait()
		if c := b.dev.Counts(); c.Times != 10 || c.Total < 30*time.Second || c.Total > 41*time.Second {
			t.Errorf("counts %+v", c)
		}
		survived := b.disk.Crash(nil)
		for g, want := range last {
			got := make([]byte, 700)
			if err := survived.ReadAt(t.Context(), got, int64(g)*700); err != nil || !bytes.Equal(got, want) {
				t.Errorf("what caller %d flushed is lost (%v)", g, err)
			}
		}
	})
}

// TestLimit: who has waited for so long gets its error; who came later waits on.
func TestLimit(t *testing.T) {
	bubble(t, Policy{Limit: 30 * time.Second}, func(t *testing.T, b *bench) {
		b.set(away)
		first := []*call{b.read(0), b.write(0, 1), b.flush()}
		begun := time.Now()
		time.Sleep(20 * time.Second)
		later := b.write(512, 2)
		for _, c := range first {
			c.want(t, block.Transient)
			if !strings.Contains(c.err.Error(), "disk") || !strings.Contains(c.err.Error(), "held for 30s") ||
				!strings.Contains(c.err.Error(), "connection refused") || strings.Contains(c.err.Error(), "\n") {
				t.Errorf("%s: %v", c.name, c.err)
			}
		}
		if waited := time.Since(begun); waited != 30*time.Second {
			t.Errorf("waited for %v", waited)
		}
		b.wantState(t, Held, 1)
		b.set(nil)
		later.want(t, block.OK)
	})
}

// TestLimitOfAHungAttempt: an attempt that hangs ends with the request's time.
func TestLimitOfAHungAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sulky{Device: filtertest.NewMem(t, 1<<20)}
		s.fail.Store(true)
		d := New(s, Config{Policy: Policy{Limit: 5 * time.Second}})
		c := begin("write", func() error { return d.WriteAt(t.Context(), make([]byte, 512), 0, 0) })
		synctest.Wait()
		s.hang.Store(true)
		begun := time.Now()
		c.want(t, block.Transient)
		if waited := time.Since(begun); waited != 5*time.Second {
			t.Errorf("waited for %v", waited)
		}
		other := begin("read", func() error { return d.ReadAt(t.Context(), make([]byte, 512), 0) })
		time.Sleep(time.Second)
		synctest.Wait()
		if s.inside.Load() != 1 {
			t.Error("nobody tries")
		}
		d.SetPolicy(Policy{Mode: Fail}) // reaches who is with the storage, too
		other.want(t, block.Transient)
		third := begin("read", func() error { return d.ReadAt(t.Context(), make([]byte, 512), 0) })
		synctest.Wait()
		s.hang.Store(false)
		if err := d.Close(); err != nil { // ends what is in there
			t.Error(err)
		}
		third.want(t, block.Closed)
	})
}

// sulky is a Device that fails or hangs, until the context or Close ends that.
type sulky struct {
	block.Device
	fail, hang atomic.Bool
	inside     atomic.Int64
	once       sync.Once
	closed     chan struct{}
}

func (s *sulky) Info() block.Info {
	s.once.Do(func() { s.closed = make(chan struct{}) })
	info := s.Device.Info()
	info.Caps = 0
	return info
}

func (s *sulky) meet(ctx context.Context) error {
	s.inside.Add(1)
	defer s.inside.Add(-1)
	if s.hang.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return block.Closed
		}
	}
	if s.fail.Load() {
		return away
	}
	return nil
}

func (s *sulky) ReadAt(ctx context.Context, _ []byte, _ int64) error { return s.meet(ctx) }

func (s *sulky) WriteAt(ctx context.Context, _ []byte, _ int64, _ block.Flags) error {
	return s.meet(ctx)
}

func (s *sulky) Close() error {
	close(s.closed)
	return s.Device.Close()
}

// TestCancel: a held request returns with its context, and what it was to write
// does not reach the medium afterwards; its turn goes to the next.
func TestCancel(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		ctx, cancel := context.WithCancel(t.Context())
		var gone []*call
		for range 3 {
			gone = append(gone, begin("write", func() error {
				return b.dev.WriteAt(ctx, bytes.Repeat([]byte{9}, 512), 0, 0)
			}))
		}
		synctest.Wait()
		stays := b.write(512, 1)
		time.Sleep(time.Second)
		begun := time.Now()
		cancel()
		for _, c := range gone {
			c.want(t, block.Canceled)
		}
		if time.Since(begun) != 0 {
			t.Error("did not return at once")
		}
		b.wantState(t, Held, 1)
		b.set(nil)
		stays.want(t, block.OK)
		got := make([]byte, 1024)
		if err := b.dev.ReadAt(t.Context(), got, 0); err != nil || got[0] != 0 || got[1023] != 1 {
			t.Errorf("bytes %d %d, %v", got[0], got[1023], err)
		}
	})
}

// TestCancelAll: a Device on which nobody waits any more stays held, and the next
// request finds out.
func TestCancelAll(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		ctx, cancel := context.WithCancel(t.Context())
		c := begin("read", func() error { return b.dev.ReadAt(ctx, make([]byte, 1), 0) })
		synctest.Wait()
		cancel()
		c.want(t, block.Canceled)
		b.wantState(t, Held, 0)
		b.set(nil)
		b.read(0).want(t, block.OK)
		b.wantState(t, Serving, 0)
	})
}

func TestCloseWhileHeld(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		calls := append(b.all(), b.all()...)
		time.Sleep(5 * time.Second)
		if err := b.dev.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range calls {
			c.want(t, block.Closed)
		}
		b.read(0).want(t, block.Closed)
		if _, err := b.dev.Extents(t.Context(), 0, 1, make([]block.Extent, 0, 1)); block.KindOf(err) != block.Closed {
			t.Error(err)
		}
	})
}

// TestOneBadPlace: where the storage stays away for some requests alone, the others
// get through, since the turn goes round.
func TestOneBadPlace(t *testing.T) {
	bubble(t, Policy{Limit: time.Hour}, func(t *testing.T, b *bench) {
		b.fails = func(op blocktest.Op, _ error) bool { return op.Kind == blocktest.OpRead && op.Off == 4096 }
		b.set(away)
		bad := []*call{b.read(4096), b.read(4096), b.read(4096)}
		synctest.Wait()
		begun := time.Now()
		for range 20 {
			b.write(0, 1).want(t, block.OK)
			b.read(0).want(t, block.OK)
		}
		if took := time.Since(begun); took > 40*4*time.Second {
			t.Errorf("40 requests took %v", took)
		}
		for _, c := range bad {
			c.want(t, block.Transient)
		}
		if n := b.seen[blocktest.OpRead]; n > 3*4000 {
			t.Errorf("%d attempts in an hour", n)
		}
	})
}

// TestOthersAreUnaffected: a Device beside a held one answers.
func TestOthersAreUnaffected(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		held := b.read(0)
		synctest.Wait()
		other := New(filtertest.NewMem(t, 1<<20), Config{})
		if err := other.WriteAt(t.Context(), make([]byte, 512), 0, 0); err != nil {
			t.Error(err)
		}
		if s := other.State(); s.Status != Serving {
			t.Error(s)
		}
		if held.over() {
			t.Error(held.err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestResumeTriesNow: a Device that is asked seldom by now is asked at once.
func TestResumeTriesNow(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		c := b.read(0)
		time.Sleep(time.Minute)
		b.set(nil)
		begun := time.Now()
		b.dev.Resume()
		c.want(t, block.OK)
		if time.Since(begun) != 0 {
			t.Errorf("after %v", time.Since(begun))
		}
	})
}

// TestSenselessRequestsDoNotWait: what the storage would refuse at once.
func TestSenselessRequestsDoNotWait(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		held := b.read(0)
		synctest.Wait()
		begun := time.Now()
		b.read(1<<20).want(t, block.OutOfRange)
		begin("flags", func() error { return b.dev.WriteAt(t.Context(), nil, 0, block.MayUnmap) }).want(t, block.Invalid)
		if time.Since(begun) != 0 {
			t.Error("waited")
		}
		b.set(nil)
		held.want(t, block.OK)
	})
}
