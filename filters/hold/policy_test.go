package hold

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

var full = block.Errorf(block.NoSpace, "write", "volume", 0, "")

// TestFull: while there is no room, what needs some waits; the rest goes on.
func TestFull(t *testing.T) {
	bubble(t, Policy{NoSpace: true}, func(t *testing.T, b *bench) {
		b.fails = func(op blocktest.Op, fault error) bool {
			return op.Kind == blocktest.OpWrite || op.Kind == blocktest.OpWriteZeroes || op.Kind == blocktest.OpResize
		}
		b.set(full)
		var waiting []*call
		for i, c := range b.all() {
			if i == 1 || i == 3 || i == 5 {
				waiting = append(waiting, c)
				if c.over() {
					t.Errorf("%s did not wait: %v", c.name, c.err)
				}
			} else {
				c.want(t, block.OK)
			}
		}
		s := b.wantState(t, Held, 3)
		if !errors.Is(s.Err, block.NoSpace) {
			t.Error(s.Err)
		}
		time.Sleep(time.Hour)
		b.set(nil)
		for _, c := range waiting {
			c.want(t, block.OK)
		}
		b.wantState(t, Serving, 0)
	})
}

// TestDiscardThatNeedsRoom waits for it, asking as seldom as others, and does not
// keep other discards from making some.
func TestDiscardThatNeedsRoom(t *testing.T) {
	bubble(t, Policy{NoSpace: true}, func(t *testing.T, b *bench) {
		b.fails = func(op blocktest.Op, _ error) bool { return op.Off == 4096 }
		b.set(full)
		needy := begin("discard", func() error { return b.r.Discarder.Discard(t.Context(), 4096, 512, 0) })
		time.Sleep(20 * time.Second)
		if needy.over() {
			t.Fatal(needy.err)
		}
		if n := b.calls(); n > 50 {
			t.Errorf("%d attempts in 20 s", n)
		}
		b.wantState(t, Held, 1)
		begin("discard", func() error { return b.r.Discarder.Discard(t.Context(), 0, 512, 0) }).want(t, block.OK)
		b.set(nil)
		needy.want(t, block.OK)
		b.wantState(t, Serving, 0)
	})
}

// TestFullIsAnErrorByDefault: so is a flush for which there was no room, always,
// since it has lost writes.
func TestFullIsAnErrorByDefault(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(full)
		b.write(0, 1).want(t, block.NoSpace)
		b.dev.SetPolicy(Policy{NoSpace: true})
		b.flush().want(t, block.NoSpace)
		b.wantState(t, Serving, 0)
	})
}

// TestFullThenAway: storage that is full goes away and comes back, still full.
func TestFullThenAway(t *testing.T) {
	bubble(t, Policy{NoSpace: true}, func(t *testing.T, b *bench) {
		b.fails = func(op blocktest.Op, fault error) bool { return op.Kind == blocktest.OpWrite || fault == error(away) }
		b.set(full)
		writes := []*call{b.write(0, 1), b.write(512, 2)}
		synctest.Wait()
		b.set(away)
		read := b.read(0)
		time.Sleep(10 * time.Second)
		if s := b.wantState(t, Held, 3); !errors.Is(s.Err, block.Transient) {
			t.Error(s.Err)
		}
		b.set(full)
		read.want(t, block.OK)
		time.Sleep(2 * time.Second)
		if s := b.wantState(t, Held, 2); !errors.Is(s.Err, block.NoSpace) {
			t.Error(s.Err)
		}
		b.read(0).want(t, block.OK)
		b.set(nil)
		for _, c := range writes {
			c.want(t, block.OK)
		}
		got := make([]byte, 1024)
		if err := b.dev.ReadAt(t.Context(), got, 0); err != nil || got[0] != 1 || got[1023] != 2 {
			t.Errorf("bytes %d %d, %v", got[0], got[1023], err)
		}
		if c := b.dev.Counts(); c.Times != 1 || c.HeldNow != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestFail(t *testing.T) {
	bubble(t, Policy{Mode: Fail, NoSpace: true}, func(t *testing.T, b *bench) {
		for _, fault := range []error{away, full} {
			b.set(fault)
			for _, c := range b.all() {
				c.want(t, block.KindOf(fault))
				if c.err != fault {
					t.Errorf("%s: %v", c.name, c.err)
				}
			}
		}
		b.wantState(t, Serving, 0)
		if b.line() != "" {
			t.Error(b.line())
		}
	})
}

// TestFreeze: after the first failure no change reaches the storage, though that
// is well again, until somebody says so.
func TestFreeze(t *testing.T) {
	for name, c := range map[string]struct {
		fault error
		fail  func(b *bench) *call
	}{
		"away":         {away, func(b *bench) *call { return b.write(0, 1) }},
		"away, a read": {away, func(b *bench) *call { return b.read(0) }},
		"full":         {full, func(b *bench) *call { return b.write(0, 1) }},
		"full, flush":  {full, func(b *bench) *call { return b.flush() }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Policy{Mode: Freeze, NoSpace: true}, func(t *testing.T, b *bench) {
				b.set(c.fault)
				c.fail(b).want(t, block.KindOf(c.fault))
				b.set(nil)
				if s := b.wantState(t, Frozen, 0); s.Err == nil {
					t.Error("no reason")
				}
				for i, c := range b.all() {
					if i == 1 || i == 3 || i == 4 || i == 5 {
						c.want(t, block.ReadOnly)
						if errors.Is(c.err, block.Transient) || !strings.Contains(c.err.Error(), "frozen since") {
							t.Error(c.err)
						}
					} else {
						c.want(t, block.OK)
					}
				}
				if n := b.seen[blocktest.OpWriteZeroes] + b.seen[blocktest.OpDiscard] + b.seen[blocktest.OpResize]; n != 0 {
					t.Errorf("%d changes reached the storage", n)
				}
				b.dev.SetPolicy(Policy{}) // does not thaw
				b.write(0, 1).want(t, block.ReadOnly)
				b.dev.Resume()
				b.write(0, 3).want(t, block.OK)
				if b.line() != "frozen serving" {
					t.Error(b.line())
				}
			})
		})
	}
}

// TestPolicyChangesWhileHeld: those who wait go by the new policy at once.
func TestPolicyChangesWhileHeld(t *testing.T) {
	for name, c := range map[string]struct {
		next  Policy
		ends  bool
		state Status
	}{
		"error":       {Policy{Mode: Fail}, true, Serving},
		"read-only":   {Policy{Mode: Freeze}, true, Frozen},
		"short limit": {Policy{Limit: time.Second}, true, Held},
		"long limit":  {Policy{Limit: time.Hour}, false, Held},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Policy{}, func(t *testing.T, b *bench) {
				b.set(away)
				calls := b.all()
				time.Sleep(10 * time.Second)
				now := time.Now()
				b.dev.SetPolicy(c.next)
				for _, call := range calls {
					if over := call.over(); over != c.ends {
						t.Fatalf("%s is over: %v", call.name, over)
					}
					if c.ends {
						call.want(t, block.Transient)
					}
				}
				if time.Since(now) != 0 {
					t.Error("took its time")
				}
				waiting := len(calls)
				if c.ends {
					waiting = 0
				}
				b.wantState(t, c.state, waiting)
				if b.dev.Policy() != c.next {
					t.Error(b.dev.Policy())
				}
				b.set(nil)
				if !c.ends {
					for _, call := range calls {
						call.want(t, block.OK)
					}
				}
			})
		})
	}
}

// TestRoomNoLongerWaitedFor: without NoSpace, those that wait for room get their
// error, and those that wait for the storage stay.
func TestRoomNoLongerWaitedFor(t *testing.T) {
	bubble(t, Policy{NoSpace: true}, func(t *testing.T, b *bench) {
		b.fails = func(op blocktest.Op, fault error) bool { return op.Kind == blocktest.OpWrite || fault == error(away) }
		b.set(full)
		c := b.write(0, 1)
		synctest.Wait()
		b.set(away)
		read := b.read(0)
		time.Sleep(3 * time.Second)
		b.dev.SetPolicy(Policy{})
		b.wantState(t, Held, 2) // the write has met that, too
		b.set(full)
		c.want(t, block.NoSpace)
		b.set(nil)
		read.want(t, block.OK)
	})
	bubble(t, Policy{NoSpace: true}, func(t *testing.T, b *bench) {
		b.set(full)
		c := b.write(0, 1)
		synctest.Wait()
		b.dev.SetPolicy(Policy{Mode: Freeze})
		c.want(t, block.NoSpace)
		b.wantState(t, Serving, 0) // that was no failure that the new policy is for
	})
}

// TestLossIsToldToAllThatFlush: the storage tells once that writes are gone. All
// flushes that were waiting then have to fail; a later one does not.
func TestLossIsToldToAllThatFlush(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.set(away)
		flushes := []*call{b.flush(), b.flush(), b.flush()}
		read := b.read(0)
		time.Sleep(time.Second)
		told := false
		b.storage.mu.Lock()
		b.fails = func(op blocktest.Op, fault error) bool {
			if op.Kind != blocktest.OpFlush || told {
				return false
			}
			told = true
			return true
		}
		b.fault = block.Errorf(block.IO, "flush", "server", -1, "512 acknowledged bytes may be lost")
		b.storage.mu.Unlock()
		for _, c := range flushes {
			c.want(t, block.IO)
			if !strings.Contains(c.err.Error(), "may be lost") {
				t.Error(c.err)
			}
		}
		read.want(t, block.OK)
		b.flush().want(t, block.OK)
	})
}

// outcomes takes what is told of started requests.
type outcomes chan error

func (o outcomes) Done(err error) block.Pusher {
	o <- err
	return nil
}

// TestWithoutWaiting: what must not wait is refused while requests are held, and
// where the storage is found to be away.
func TestWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := filtertest.NewFull(t, 1<<20)
		below.Caps = block.CapNowait | block.CapFileRange | block.CapStart
		d := New(&nowait{Full: below}, Config{})
		r := block.Resolve(d)
		p := make([]byte, 512)
		if _, ok := r.Ranger.PinRange(0, 512); !ok || r.Nowaiter.ReadNowait(p, 0) != nil {
			t.Error("refused while all is well")
		}
		told := make(outcomes, 2)
		if !r.Starter.StartRead(p, 0, told) || !r.Starter.StartWrite(p, 0, 0, told) || <-told != nil || <-told != nil {
			t.Error("nothing is started while all is well")
		}
		r.Starter.Kick()
		if below.Kicks.Load() != 1 {
			t.Error("what was started was not sent off")
		}
		n := r.Device.(*Device).dev.Device.(*nowait)
		n.fail(away)
		if err := r.Nowaiter.ReadNowait(p, 0); err != block.ErrWouldBlock {
			t.Error(err)
		}
		if d.State().Status != Serving {
			t.Error("a read that may not wait began an outage")
		}
		c := begin("read", func() error { return d.ReadAt(t.Context(), p, 0) })
		synctest.Wait()
		n.fail(nil)
		if _, ok := r.Ranger.PinRange(0, 512); ok || r.Nowaiter.ReadNowait(p, 0) != block.ErrWouldBlock {
			t.Error("let through while held")
		}
		if r.Starter.StartRead(p, 0, told) || r.Starter.StartWrite(p, 0, 0, told) {
			t.Error("started while held")
		}
		c.want(t, block.OK)
		n.fail(block.Corrupt)
		if err := r.Nowaiter.ReadNowait(p, 0); err != block.Corrupt {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// nowait fails reads as it is told.
type nowait struct {
	*filtertest.Full
	err atomic.Pointer[error]
}

func (n *nowait) fail(err error) { n.err.Store(&err) }

func (n *nowait) ReadNowait([]byte, int64) error {
	if err := n.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (n *nowait) ReadAt(_ context.Context, p []byte, off int64) error { return n.ReadNowait(p, off) }

// TestRepeatedWriteIsWhole: a write that reached the medium in part before it
// failed is there whole in the end.
func TestRepeatedWriteIsWhole(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		torn := false
		b.storage.mu.Lock()
		b.fault = away
		b.fails = func(op blocktest.Op, fault error) bool {
			if op.Kind == blocktest.OpWrite && !torn {
				torn = true
				if err := b.disk.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 100), 0, 0); err != nil {
					t.Error(err)
				}
				return true
			}
			return false
		}
		b.storage.mu.Unlock()
		b.write(0, 1).want(t, block.OK)
		got := make([]byte, 513)
		if err := b.dev.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got[:512], bytes.Repeat([]byte{1}, 512)) || got[512] != 0 || !torn {
			t.Errorf("wrong bytes (%v)", err)
		}
	})
}

// TestFreezeByHand: a Device that is told of a failure takes no change after it,
// whatever the policy, until somebody says so.
func TestFreezeByHand(t *testing.T) {
	bubble(t, Policy{}, func(t *testing.T, b *bench) {
		b.dev.Freeze(away)
		if s := b.wantState(t, Frozen, 0); !errors.Is(s.Err, block.Transient) {
			t.Error(s.Err)
		}
		b.write(0, 1).want(t, block.ReadOnly)
		b.read(0).want(t, block.OK)
		b.dev.Resume()
		b.write(0, 1).want(t, block.OK)
		if b.line() != "frozen serving" {
			t.Errorf("told of %q", b.line())
		}
	})
}

// TestGiveUp: who waits has its error at once, and what comes later waits no more; the
// attempt that is being made goes on, and is the last.
func TestGiveUp(t *testing.T) {
	for name, c := range map[string]struct {
		fails bool
		kind  block.Kind
	}{"the last attempt works": {false, block.OK}, "the last attempt fails": {true, block.Transient}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &tries{Device: filtertest.NewMem(t, 1<<20), next: make(chan error)}
				d := New(s, Config{})
				write := func() *call {
					return begin("write", func() error { return d.WriteAt(t.Context(), make([]byte, 512), 0, 0) })
				}
				trying := write()
				s.next <- away
				time.Sleep(time.Second) // it is with the storage again
				waiting := write()
				synctest.Wait()
				d.GiveUp()
				waiting.want(t, block.Transient)
				if trying.over() {
					t.Fatalf("its attempt was interrupted: %v", trying.err)
				}
				if c.fails {
					s.next <- away
				} else {
					s.next <- nil
				}
				trying.want(t, c.kind)
				later := write()
				s.next <- away
				later.want(t, block.Transient)
				if now := d.State(); now.Status != Serving || now.Waiting != 0 {
					t.Errorf("%+v", now)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// tries is a Device whose writes end as they are told, or with their context.
type tries struct {
	block.Device
	next chan error
}

func (s *tries) Info() block.Info {
	info := s.Device.Info()
	info.Caps = 0
	return info
}

func (s *tries) WriteAt(ctx context.Context, _ []byte, _ int64, _ block.Flags) error {
	select {
	case err := <-s.next:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestFreezeIsToldBeforeItEnds: a Resume that comes between a failure and its telling
// has it told all the same.
func TestFreezeIsToldBeforeItEnds(t *testing.T) {
	for range 100 {
		var l told
		s := &tries{Device: filtertest.NewMem(t, 1<<20), next: make(chan error, 1)}
		d := New(s, Config{Policy: Policy{Mode: Freeze}, Changed: l.changed})
		d.telling.Lock() // which keeps the write from telling
		s.next <- away
		write := begin("write", func() error { return d.WriteAt(t.Context(), make([]byte, 512), 0, 0) })
		for d.State().Status != Frozen {
			runtime.Gosched()
		}
		resume := begin("resume", func() error { d.Resume(); return nil })
		for n := 0; n < 1000 && d.State().Status == Frozen; n++ {
			runtime.Gosched() // a Resume that does not wait for its turn
		}
		d.telling.Unlock()
		<-write.done
		<-resume.done
		if line := l.line(); line != "frozen serving" {
			t.Fatalf("told of %q", line)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
