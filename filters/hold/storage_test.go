package hold

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"sluice/block"
	"sluice/block/blocktest"
)

var away = block.Errorf(block.Transient, "connect", "server", -1, "connection refused")

// storage is a Device that can go away, in a bubble whose time is a test's own.
type storage struct {
	t     *testing.T
	disk  *blocktest.CrashDevice
	mu    sync.Mutex
	fault error                                   // what every call meets that fails is true for
	fails func(op blocktest.Op, fault error) bool // nil: all
	seen  map[blocktest.OpKind]int                // calls that reached the storage
	enter func(blocktest.Op)                      // in each call; may wait
}

func (s *storage) MaybeError(op blocktest.Op) error {
	s.mu.Lock()
	s.seen[op.Kind]++
	fault, fails, enter := s.fault, s.fails, s.enter
	s.mu.Unlock()
	if enter != nil {
		enter(op)
	}
	if fault != nil && op.Kind != blocktest.OpClose && (fails == nil || fails(op, fault)) {
		return fault
	}
	return nil
}

// set makes the storage fail with err, or work where that is nil.
func (s *storage) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

func (s *storage) calls() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.seen {
		n += v
	}
	return n
}

// told gathers what Changed is called with.
type told struct {
	mu     sync.Mutex
	states []State
}

func (l *told) changed(s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = append(l.states, s)
}

func (l *told) line() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for _, s := range l.states {
		words = append(words, s.Status.String())
	}
	return strings.Join(words, " ")
}

// bench is a Device over storage that can go away.
type bench struct {
	*storage
	dev *Device
	r   *block.Resolved
	told
	log bytes.Buffer // read when all is quiet
}

// bubble runs a test in a bubble. It closes the Device.
func bubble(t *testing.T, p Policy, run func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{storage: &storage{t: t, disk: blocktest.NewCrashDevice(1<<20, 1), seen: map[blocktest.OpKind]int{}}}
		b.dev = New(blocktest.NewFaultDevice(b.disk, b.storage, nil), Config{
			Policy: p, Object: "disk", Changed: b.changed, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		})
		b.r = block.Resolve(b.dev)
		run(t, b)
		if err := b.dev.Close(); err != nil {
			t.Error(err)
		}
	})
}

// call is a request under way.
type call struct {
	name string
	done chan struct{}
	err  error
}

func begin(name string, run func() error) *call {
	c := &call{name: name, done: make(chan struct{})}
	go func() {
		c.err = run()
		close(c.done)
	}()
	return c
}

// over reports whether the call has returned, when all is quiet.
func (c *call) over() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// want waits for the call and checks its kind.
func (c *call) want(t *testing.T, kind block.Kind) {
	t.Helper()
	<-c.done
	if got := block.KindOf(c.err); got != kind {
		t.Errorf("%s: kind %v (%v), want %v", c.name, got, c.err, kind)
	}
}

func (b *bench) read(off int64) *call {
	return begin("read", func() error { return b.dev.ReadAt(b.t.Context(), make([]byte, 512), off) })
}

func (b *bench) write(off int64, c byte) *call {
	return begin("write", func() error { return b.dev.WriteAt(b.t.Context(), bytes.Repeat([]byte{c}, 512), off, 0) })
}

func (b *bench) flush() *call {
	return begin("flush", func() error { return b.dev.Flush(b.t.Context()) })
}

// all is one of each operation.
func (b *bench) all() []*call {
	ctx := b.t.Context()
	return []*call{
		b.read(0), b.write(0, 1), b.flush(),
		begin("zero", func() error { return b.r.Zeroer.WriteZeroes(ctx, 4096, 512, block.FUA|block.MayUnmap) }),
		begin("discard", func() error { return b.r.Discarder.Discard(ctx, 8192, 512, 0) }),
		begin("resize", func() error { return b.r.Resizer.Resize(ctx, 2<<20) }),
		begin("extents", func() error {
			got, err := b.r.Extenter.Extents(ctx, 0, 4096, make([]block.Extent, 0, 9))
			if err == nil && (len(got) == 0 || got[0].Len == 0) {
				return errors.New("no extents")
			}
			return err
		}),
	}
}

func (b *bench) wantState(t *testing.T, status Status, waiting int) State {
	t.Helper()
	synctest.Wait()
	s := b.dev.State()
	if s.Status != status || s.Waiting != waiting {
		t.Errorf("state %v with %d waiting, want %v with %d", s.Status, s.Waiting, status, waiting)
	}
	return s
}
