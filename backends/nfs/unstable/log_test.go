package unstable

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a file with what a crash would leave of it.
type server struct {
	mu                sync.Mutex
	volatile, durable []byte
	verifier          Verifier
	calls             int
	// crash, if positive, is how many calls it takes until it crashes.
	crash int
}

func newServer(n int) *server {
	return &server{volatile: make([]byte, n), durable: make([]byte, n), verifier: 1}
}

func (s *server) call() {
	s.calls++
	if s.crash--; s.crash == 0 {
		s.restart()
	}
}

func (s *server) restart() {
	copy(s.volatile, s.durable)
	s.verifier++
}

func (s *server) Write(_ context.Context, p []byte, off int64) (Verifier, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call()
	copy(s.volatile[off:], p)
	return s.verifier, false, nil
}

func (s *server) Zero(_ context.Context, off, n int64) (Verifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call()
	clear(s.volatile[off : off+n])
	return s.verifier, nil
}

func (s *server) Commit(context.Context) (Verifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call()
	copy(s.durable, s.volatile)
	return s.verifier, nil
}

func (s *server) stable(p []byte, off int64) {
	copy(s.volatile[off:], p)
	copy(s.durable[off:], p)
}

// begin is Begin where nothing is in the way.
func begin(t testing.TB, l *Log, off, n, keep int64) *Change {
	t.Helper()
	c, err := l.Begin(context.Background(), off, n, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func TestCommitDropsWhatCameBefore(t *testing.T) {
	l := New(1 << 20)
	defer l.Close()
	begin(t, l, 0, 100, 100).Unstable(fill(100, 1), 7)
	m := l.Mark()
	begin(t, l, 200, 100, 100).Unstable(fill(100, 2), 7)
	if !l.Committed(m, 7) {
		t.Error("the COMMIT does not count")
	}
	if got := l.Kept(); got != 100+overhead {
		t.Errorf("%d bytes are kept, want %d", got, 100+overhead)
	}
	if l.Stale() || !l.Committed(l.Mark(), 7) || l.Kept() != 0 {
		t.Error("the second COMMIT does not count")
	}
}

func TestAnotherVerifierMakesStale(t *testing.T) {
	s := newServer(1000)
	l := New(1 << 20)
	defer l.Close()
	begin(t, l, 0, 100, 100).Unstable(fill(100, 1), 0) // under a verifier that the server no longer has
	begin(t, l, 50, 100, 100).Unstable(fill(100, 2), s.verifier)
	begin(t, l, 90, 20, 0).Stable()
	begin(t, l, 120, 10, 0).Zeroed(s.verifier)
	if l.Committed(l.Mark(), s.verifier) || !l.Stale() {
		t.Fatal("what was lost counts as committed")
	}
	copy(s.volatile[90:], fill(20, 9))
	if err := l.Rewrite(t.Context(), s, 64); err != nil {
		t.Fatal(err)
	}
	want := append(append(append(append(append(fill(50, 1), fill(40, 2)...), fill(20, 9)...), fill(10, 2)...), fill(10, 0)...), fill(20, 2)...)
	if !bytes.Equal(s.durable[:150], want) {
		t.Errorf("written again: %v\nwant %v", s.durable[:150], want)
	}
	if l.Stale() || l.Kept() != 0 {
		t.Error("something is left")
	}
}

func TestServerThatCrashesDuringRewrite(t *testing.T) {
	for crash := 1; crash < 8; crash++ {
		s := newServer(1000)
		l := New(1 << 20)
		for i := range 5 {
			begin(t, l, int64(i)*100, 50, 50).Unstable(fill(50, byte(i+1)), 0)
		}
		l.NewInstance()
		s.crash = crash
		if err := l.Rewrite(t.Context(), s, 1000); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if !bytes.Equal(s.durable[i*100:i*100+50], fill(50, byte(i+1))) {
				t.Errorf("crash at call %d: piece %d is lost", crash, i)
			}
		}
		l.Close()
	}
}

func TestPiecesAreJoinedUpToTheLimit(t *testing.T) {
	s := newServer(1 << 20)
	l := New(1 << 21)
	defer l.Close()
	for i := range 16 {
		begin(t, l, int64(i)*4096, 4096, 4096).Unstable(fill(4096, byte(i)), 0)
	}
	begin(t, l, 1<<19, 1<<18, 1<<18).Unstable(fill(1<<18, 99), 0)
	l.NewInstance()
	if err := l.Rewrite(t.Context(), s, 64<<10); err != nil {
		t.Fatal(err)
	}
	if s.calls != 1+4+1 {
		t.Errorf("%d calls, want 6", s.calls)
	}
}

func TestOverlappingChangesWait(t *testing.T) {
	l := New(1 << 20)
	defer l.Close()
	first := begin(t, l, 0, 100, 100)
	began := make(chan *Change)
	go func() {
		c, err := l.Begin(context.Background(), 50, 100, 100)
		if err != nil {
			t.Error(err)
		}
		began <- c
	}()
	waitFor(l, 1)
	begin(t, l, 200, 100, 100).Failed() // another range goes ahead
	first.Unstable(fill(100, 1), 1)
	(<-began).Failed()
}

// waitFor blocks until n wait.
func waitFor(l *Log, n int) {
	for {
		l.mu.Lock()
		waiting := len(l.waiting)
		l.mu.Unlock()
		if waiting == n {
			return
		}
	}
}

func TestRoom(t *testing.T) {
	l := New(1000)
	defer l.Close()
	first := begin(t, l, 0, 900, 900)
	began := make(chan error)
	go func() {
		c, err := l.Begin(context.Background(), 5000, 500, 500)
		if err == nil {
			c.Failed()
		}
		began <- err
	}()
	waitFor(l, 1)
	first.Unstable(fill(900, 1), 1)
	if err := <-began; !errors.Is(err, ErrFull) {
		t.Fatalf("%v, want ErrFull", err)
	}
	select {
	case <-l.Pressing():
	default:
		t.Error("nobody is told that a COMMIT is due")
	}
	l.Committed(l.Mark(), 1)
	begin(t, l, 0, 5000, 5000).Failed() // larger than all, alone
}

func TestFailedChangeGivesRoomBack(t *testing.T) {
	l := New(1000)
	defer l.Close()
	for range 100 {
		begin(t, l, 0, 900, 900).Failed()
	}
	if l.reserved != 0 || l.Kept() != 0 {
		t.Errorf("%d reserved, %d kept", l.reserved, l.Kept())
	}
}

func TestClose(t *testing.T) {
	l := New(1000)
	c := begin(t, l, 0, 10, 10)
	errs := make(chan error)
	go func() {
		_, err := l.Begin(context.Background(), 0, 10, 0)
		errs <- err
	}()
	waitFor(l, 1)
	l.Close()
	if err := <-errs; !errors.Is(err, block.Closed) {
		t.Errorf("who waited: %v", err)
	}
	c.Unstable(fill(10, 1), 1)
	if _, err := l.Begin(t.Context(), 0, 1, 0); !errors.Is(err, block.Closed) || l.Kept() != 0 {
		t.Errorf("who comes: %v; %d kept", err, l.Kept())
	}
}

func TestCanceledWaiter(t *testing.T) {
	l := New(1000)
	defer l.Close()
	c := begin(t, l, 0, 10, 10)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() {
		_, err := l.Begin(ctx, 0, 10, 0)
		errs <- err
	}()
	waitFor(l, 1)
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.Failed()
}

func TestTruncate(t *testing.T) {
	s := newServer(1000)
	l := New(10000)
	defer l.Close()
	begin(t, l, 0, 100, 100).Unstable(fill(100, 1), 0)
	begin(t, l, 200, 100, 100).Unstable(fill(100, 2), 0)
	l.Truncate(50)
	l.NewInstance()
	if err := l.Rewrite(t.Context(), s, 1000); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.durable, append(fill(50, 1), make([]byte, 950)...)) {
		t.Error("more than is left was written again")
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // pools drop items at random
	}
	l := New(1 << 20)
	defer l.Close()
	p := fill(4096, 1)
	round := func() {
		for i := range 64 {
			begin(t, l, int64(i)*4096, 4096, 4096).Unstable(p, 1)
		}
		l.Committed(l.Mark(), 1)
	}
	round()
	if n := testing.AllocsPerRun(50, round); n > 0.5 {
		t.Errorf("%v allocations for 64 writes", n)
	}
}

// Whatever is written, committed, lost and written again: after a flush the durable
// bytes are those of the last acknowledged changes.
func TestNothingIsLost(t *testing.T) {
	const size = 4096
	rapid.Check(t, func(t *rapid.T) {
		s, want := newServer(size), make([]byte, size)
		l := New(int64(rapid.IntRange(100, 8000).Draw(t, "limit")))
		defer l.Close()
		flush := func() {
			for range 10 {
				if l.Stale() {
					if err := l.Rewrite(context.Background(), s, 512); err != nil {
						t.Fatal(err)
					}
				}
				m := l.Mark()
				v, _ := s.Commit(context.Background())
				if l.Committed(m, v) {
					if !bytes.Equal(s.durable, want) {
						t.Fatal("after a flush the durable bytes are others")
					}
					return
				}
			}
			t.Fatal("a flush comes to no end")
		}
		change := func(keep bool) (off, n int64, c *Change) {
			off = rapid.Int64Range(0, size-1).Draw(t, "off")
			n = rapid.Int64Range(1, min(600, size-off)).Draw(t, "n")
			kept := int64(0)
			if keep {
				kept = n
			}
			for {
				c, err := l.Begin(context.Background(), off, n, kept)
				if err == nil {
					return off, n, c
				}
				flush()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, n, c := change(true)
				p := fill(int(n), rapid.Byte().Draw(t, "byte"))
				v, _, _ := s.Write(context.Background(), p, off)
				copy(want[off:], p)
				c.Unstable(p, v)
			},
			"stable": func(t *rapid.T) {
				off, n, c := change(false)
				p := fill(int(n), rapid.Byte().Draw(t, "byte"))
				s.stable(p, off)
				copy(want[off:], p)
				c.Stable()
			},
			"zero": func(t *rapid.T) {
				off, n, c := change(false)
				v, _ := s.Zero(context.Background(), off, n)
				clear(want[off : off+n])
				c.Zeroed(v)
			},
			"restart":       func(*rapid.T) { s.restart() },
			"verifier only": func(*rapid.T) { s.verifier++ },
			"told": func(*rapid.T) {
				s.restart()
				l.NewInstance()
			},
			"commit fails": func(*rapid.T) {
				s.restart()
				s.verifier-- // as if nothing had been
				l.CommitFailed()
			},
			"crash soon": func(t *rapid.T) { s.crash = rapid.IntRange(1, 6).Draw(t, "calls") },
			"flush":      func(*rapid.T) { flush() },
		})
		flush()
	})
}

// Writers, flushes and restarts at the same time.
func TestParallel(t *testing.T) {
	const size = 64 << 10
	s := newServer(size)
	l := New(32 << 10)
	defer l.Close()
	var turn sync.Mutex
	flush := func() {
		turn.Lock()
		defer turn.Unlock()
		for {
			if l.Stale() {
				if err := l.Rewrite(context.Background(), s, 4096); err != nil {
					t.Error(err)
				}
			}
			m := l.Mark()
			v, _ := s.Commit(context.Background())
			if l.Committed(m, v) {
				return
			}
		}
	}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 300 {
				off := int64(w)*8192 + int64(i%16)*512
				p := fill(512, byte(w*31+i))
				c, err := l.Begin(context.Background(), off, 512, 512)
				if errors.Is(err, ErrFull) {
					flush()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				v, _, _ := s.Write(context.Background(), p, off)
				c.Unstable(p, v)
				if i%50 == 10 {
					flush()
				}
				if i%97 == 13 {
					s.mu.Lock()
					s.restart()
					s.mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	flush()
	if l.Kept() != 0 || l.reserved != 0 || len(l.under) != 0 {
		t.Errorf("%d kept, %d reserved, %d under way", l.Kept(), l.reserved, len(l.under))
	}
}

func benchmark(b *testing.B, size int) {
	l := New(64 << 20)
	defer l.Close()
	p := fill(size, 1)
	var others []*Change
	for i := range 63 {
		others = append(others, begin(b, l, int64(1<<40+i*size), int64(size), 0))
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		begin(b, l, int64(i%1024*size), int64(size), int64(size)).Unstable(p, 1)
		if i++; i%16 == 0 {
			l.Committed(l.Mark(), 1)
		}
	}
	for _, c := range others {
		c.Failed()
	}
}

func Benchmark4K(b *testing.B) { benchmark(b, 4096) }
func Benchmark1M(b *testing.B) { benchmark(b, 1<<20) }
