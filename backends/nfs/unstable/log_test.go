package unstable

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var background = context.Background()

// disk is a server with one file: what reads see, and what a crash leaves.
type disk struct {
	mu       sync.Mutex
	now      []byte
	safe     []byte
	verifier Verifier
	before   func(op string) error // each call of a Rewriter, without the lock
}

func newDisk(n int) *disk { return &disk{now: make([]byte, n), safe: make([]byte, n), verifier: 1} }

// crash loses what is not durable.
func (d *disk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.now, d.safe)
	d.verifier++
}

func (d *disk) ask(op string) error {
	if d.before != nil {
		return d.before(op)
	}
	return nil
}

func (d *disk) Write(_ context.Context, p []byte, off int64) (Verifier, bool, error) {
	if err := d.ask("write"); err != nil {
		return 0, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.now[off:], p)
	return d.verifier, false, nil
}

func (d *disk) Zero(_ context.Context, off, n int64) (Verifier, error) {
	d.mu.Lock()
	v := d.verifier
	d.mu.Unlock()
	if err := d.ask("zero"); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.now[off : off+n])
	return v, nil
}

func (d *disk) Commit(context.Context) (Verifier, error) {
	if err := d.ask("commit"); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.safe, d.now)
	return d.verifier, nil
}

// stable is a write that is durable by itself.
func (d *disk) stable(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.now[off:], p)
	copy(d.safe[off:], p)
}

func begin(t testing.TB, l *Log, off, n, keep int64) *Change {
	t.Helper()
	c, err := l.Begin(background, off, n, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write is a whole UNSTABLE write.
func (d *disk) write(t testing.TB, l *Log, b byte, n, off int64) {
	t.Helper()
	c := begin(t, l, off, n, n)
	p := bytes.Repeat([]byte{b}, int(n))
	v, _, _ := d.Write(background, p, off)
	c.Unstable(p, v)
}

func TestCommit(t *testing.T) {
	l, d := New(1<<20), newDisk(1<<16)
	defer l.Close()
	d.write(t, l, 1, 4096, 0)
	m := l.Mark()
	d.write(t, l, 2, 4096, 4096)
	v, _ := d.Commit(background)
	if kept := l.Kept(); !l.Committed(m, v) || l.Kept() != kept/2 {
		t.Error(l.Kept())
	}
	if !l.Committed(l.Mark(), v) || l.Kept() != 0 || l.Stale() {
		t.Error(l.Kept())
	}
}

// TestDurableBytesHideOlderOnes: what a COMMIT confirmed above something lost is not
// written over by that.
func TestDurableBytesHideOlderOnes(t *testing.T) {
	l, d := New(1<<20), newDisk(1<<16)
	defer l.Close()
	d.write(t, l, 1, 8192, 0)
	d.crash()
	d.write(t, l, 2, 4096, 4096)
	c := begin(t, l, 0, 512, 0)
	d.stable(bytes.Repeat([]byte{3}, 512), 0)
	c.Stable()
	m := l.Mark()
	v, _ := d.Commit(background)
	if l.Committed(m, v) || !l.Stale() {
		t.Error("lost bytes count as durable")
	}
	d.stable(bytes.Repeat([]byte{4}, 512), 8192-512) // by somebody else: must not be touched
	if err := l.Rewrite(background, d, 1000); err != nil || l.Stale() || l.Kept() != 0 {
		t.Fatal(err, l.Kept())
	}
	for _, s := range []struct {
		at int
		b  byte
	}{{0, 3}, {511, 3}, {512, 1}, {4095, 1}, {4096, 2}, {8192 - 513, 2}, {8192 - 512, 4}} {
		if d.safe[s.at] != s.b {
			t.Errorf("byte %d is %d, want %d", s.at, d.safe[s.at], s.b)
		}
	}
}

func TestOverlapWaitsInOrder(t *testing.T) {
	l := New(1 << 20)
	defer l.Close()
	first := begin(t, l, 0, 4096, 4096)
	other := begin(t, l, 4096, 4096, 4096)
	got := make(chan *Change)
	go func() { got <- begin(t, l, 1024, 4096, 4096) }()
	l.await(1)
	ctx, cancel := context.WithCancel(background)
	failed := make(chan error)
	go func() { _, err := l.Begin(ctx, 1024, 1, 1); failed <- err }()
	l.await(2)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	first.Failed()
	if l.waiters() != 1 {
		t.Error("let in while another overlaps")
	}
	other.Stable()
	(<-got).Failed()
}

// await returns when so many changes wait.
func (l *Log) await(n int) {
	for l.waiters() != n {
		runtime.Gosched()
	}
}

func (l *Log) waiters() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

func TestRoom(t *testing.T) {
	l, d := New(16<<10), newDisk(1<<20)
	large := begin(t, l, 0, 1<<20, 1<<20) // alone, whatever it keeps
	got := make(chan error, 2)
	start := func(off int64) {
		go func() {
			c, err := l.Begin(background, off, 4096, 4096)
			if err == nil {
				c.Failed()
			}
			got <- err
		}()
	}
	start(2 << 20)
	<-l.Pressing()
	large.Failed()
	if err := <-got; err != nil {
		t.Error(err)
	}
	for i := range int64(3) {
		d.write(t, l, 1, 4096, i*4096)
	}
	<-l.Pressing()
	start(1 << 20)
	<-l.Pressing()
	refusal := errors.New("no room")
	l.Refuse(refusal)
	if err := <-got; !errors.Is(err, refusal) {
		t.Error(err)
	}
	start(1 << 20)
	<-l.Pressing()
	v, _ := d.Commit(background)
	if !l.Committed(l.Mark(), v) {
		t.Error("not committed")
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	begin(t, l, 0, 1, 1).Stable()
	late := begin(t, l, 0, 1, 1)
	go func() { _, err := l.Begin(background, 0, 1, 1); got <- err }()
	l.await(1)
	l.Close()
	if err := <-got; block.KindOf(err) != block.Closed {
		t.Error(err)
	}
	late.Unstable([]byte{1}, 1)
	if _, err := l.Begin(background, 0, 1, 1); block.KindOf(err) != block.Closed || l.Kept() != 0 {
		t.Error(err, l.Kept())
	}
}

func TestTruncate(t *testing.T) {
	l, d := New(1<<20), newDisk(1<<16)
	defer l.Close()
	d.write(t, l, 1, 8192, 0)
	d.write(t, l, 2, 4096, 8192)
	d.crash()
	l.Truncate(5000)
	l.NewInstance()
	if err := l.Rewrite(background, d, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.safe[:5000], bytes.Repeat([]byte{1}, 5000)) || d.safe[5000] != 0 || d.safe[8192] != 0 {
		t.Error("wrong bytes written again")
	}
}

// TestLossesDuringARewrite: the server crashes, or fails, while it is being given the
// bytes again.
func TestLossesDuringARewrite(t *testing.T) {
	for _, crashes := range []int{1, 3, attempts} {
		l, d := New(1<<20), newDisk(1<<16)
		d.write(t, l, 1, 4096, 0)
		d.write(t, l, 2, 4096, 8192)
		c := begin(t, l, 4096, 512, 0)
		v, _ := d.Zero(background, 4096, 512)
		c.Zeroed(v)
		d.crash()
		l.NewInstance()
		left := crashes
		d.before = func(op string) error {
			if op == "commit" && left > 0 {
				left--
				d.crash()
				if left%2 == 1 {
					l.NewInstance()
				}
			}
			return nil
		}
		err := l.Rewrite(background, d, 1<<20)
		if crashes == attempts {
			if block.KindOf(err) != block.Transient || !l.Stale() {
				t.Error(err)
			}
			err = l.Rewrite(background, d, 1<<20)
		}
		if err != nil || l.Stale() || d.safe[0] != 1 || d.safe[8192] != 2 {
			t.Error(err, d.safe[0], d.safe[8192])
		}
		l.Close()
	}
}

// TestRestoreWhileARewriteIsParked: recovery writes all again while a Rewrite waits for
// it.
func TestRestoreWhileARewriteIsParked(t *testing.T) {
	l, d := New(1<<20), newDisk(1<<16)
	defer l.Close()
	d.write(t, l, 1, 4096, 0)
	d.write(t, l, 2, 4096, 8192)
	d.crash()
	l.NewInstance()
	once := true
	d.before = func(op string) error {
		if once && op == "write" {
			once = false
			d.crash()
			l.NewInstance()
			return l.Restore(background, d, 512)
		}
		return nil
	}
	if err := l.Rewrite(background, d, 1<<20); err != nil || l.Stale() || l.Kept() != 0 {
		t.Fatal(err, l.Kept())
	}
	if d.safe[0] != 1 || d.safe[8192] != 2 || d.safe[12287] != 2 {
		t.Error("bytes are missing")
	}
}

// model runs random work on a Log and a disk that crashes, and on bytes that do not.
type model struct {
	t    *rapid.T
	l    *Log
	d    *disk
	want []byte
}

func (m *model) change(how int) {
	size := int64(len(m.want))
	off := rapid.Int64Range(0, size-1).Draw(m.t, "off")
	n := min(rapid.Int64Range(1, 3000).Draw(m.t, "n"), size-off)
	p := bytes.Repeat([]byte{rapid.Byte().Draw(m.t, "byte")}, int(n))
	c := begin(m.t2(), m.l, off, n, n)
	copy(m.want[off:], p)
	switch how {
	case 0:
		m.d.stable(p, off)
		c.Stable()
	case 1:
		clear(m.want[off : off+n])
		v, _ := m.d.Zero(background, off, n)
		c.Zeroed(v)
	default:
		v, _, _ := m.d.Write(background, p, off)
		if rapid.IntRange(0, 9).Draw(m.t, "crash before it is noted") == 0 {
			m.d.crash()
			m.l.NewInstance()
		}
		c.Unstable(p, v)
	}
}

// t2 gives what begin takes.
func (m *model) t2() testing.TB { return failer{TB: nil, t: m.t} }

type failer struct {
	testing.TB
	t *rapid.T
}

func (f failer) Helper()           {}
func (f failer) Fatal(args ...any) { f.t.Fatal(args...) }

func (m *model) flush() {
	for range 10 {
		if m.l.Stale() {
			if err := m.l.Rewrite(background, m.d, rapid.IntRange(1, 5000).Draw(m.t, "max")); err != nil {
				m.t.Fatal(err)
			}
		}
		mark := m.l.Mark()
		v, _ := m.d.Commit(background)
		if m.l.Committed(mark, v) {
			break
		}
	}
	if !bytes.Equal(m.d.safe, m.want) || m.l.Kept() != 0 {
		m.t.Fatalf("after a flush the disk has not what was acknowledged; %d bytes kept", m.l.Kept())
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 20000
		m := model{t: t, l: New(1 << 20), d: newDisk(size), want: make([]byte, size)}
		defer m.l.Close()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch how := rapid.IntRange(0, 9).Draw(t, "step"); how {
			case 7:
				m.d.crash()
			case 8:
				m.l.CommitFailed()
			case 9:
				mark := m.l.Mark()
				v, _ := m.d.Commit(background)
				m.l.Committed(mark, v)
			case 6:
				m.flush()
			default:
				m.change(how)
			}
		}
		m.flush()
	})
}

// TestParallel has several writers, each in a range of its own, and commits beside them.
func TestParallel(t *testing.T) {
	l, d := New(1<<20), newDisk(8<<16)
	var writers, flusher sync.WaitGroup
	end := make(chan struct{})
	flusher.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			case <-l.Pressing():
			}
			if i%3 == 2 {
				l.CommitFailed()
				if err := l.Rewrite(background, d, 1<<16); err != nil {
					t.Error(err)
				}
			}
			m := l.Mark()
			v, _ := d.Commit(background)
			l.Committed(m, v)
		}
	})
	for g := range int64(8) {
		writers.Go(func() {
			for i := range int64(300) {
				d.write(t, l, byte(i), 4096, g<<16+i%16*4096)
			}
		})
	}
	writers.Wait()
	close(end)
	flusher.Wait()
	l.NewInstance()
	if err := l.Rewrite(background, d, 1<<16); err != nil {
		t.Fatal(err)
	}
	for g := range 8 {
		for i := 284; i < 300; i++ {
			if got := d.safe[g<<16+i%16*4096]; got != byte(i) {
				t.Fatalf("writer %d, block %d: %d, want %d", g, i%16, got, byte(i))
			}
		}
	}
	l.Close()
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4096, 1 << 20} {
		b.Run(map[int]string{4096: "4K", 1 << 20: "1M"}[size], func(b *testing.B) {
			l, p := New(64<<20), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			under := make([]*Change, 0, 63) // as many others are under way
			for i := range int64(63) {
				under = append(under, begin(b, l, 1<<40+i, 1, 0))
			}
			for b.Loop() {
				c := begin(b, l, 0, int64(size), int64(size))
				c.Unstable(p, 1)
				select {
				case <-l.Pressing():
					l.Committed(l.Mark(), 1)
				default:
				}
			}
			for _, c := range under {
				c.Failed()
			}
			l.Close()
		})
	}
}
