package nfs

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/block"
)

// fresh gives a server with an image of 1 MiB of zeroes, opened for writing. It is
// closed when the test ends.
func fresh(t testing.TB, parameters string) (*server, *Device) {
	t.Helper()
	s := newServer()
	s.file(image, make([]byte, 1<<20))
	d := device(t, s, parameters, block.OpenOptions{})
	t.Cleanup(func() { closeAll(t, d.Close) })
	return s, d
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func write(t testing.TB, d *Device, b byte, n int, off int64) {
	t.Helper()
	if err := d.WriteAt(background, fill(b, n), off, 0); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, d *Device) {
	t.Helper()
	if err := d.Flush(background); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, d block.Device, b byte, n int, off int64) {
	t.Helper()
	p := make([]byte, n)
	if err := d.ReadAt(background, p, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, fill(b, n)) {
		t.Fatalf("%d bytes at %d are not all %#x: %x…", n, off, b, p[:8])
	}
}

// durable asserts what a crash of the server leaves.
func durable(t testing.TB, s *server, b byte, n int, off int64) {
	t.Helper()
	s.calls.Lock()
	s.lose()
	after := s.nodes[image].data
	s.calls.Unlock()
	expect(t, after, b, n, off)
}

func TestFlushSendsACommitOnlyForChanges(t *testing.T) {
	s, d := fresh(t, "")
	flush(t, d)
	if n := s.counted(&s.commits); n != 0 {
		t.Errorf("%d COMMITs of nothing", n)
	}
	write(t, d, 1, 4096, 0)
	flush(t, d)
	flush(t, d)
	if n := s.counted(&s.commits); n != 1 {
		t.Errorf("%d COMMITs", n)
	}
	if err := d.WriteAt(background, fill(2, 100000), 8192, block.FUA); err != nil {
		t.Fatal(err)
	}
	flush(t, d)
	if n := s.counted(&s.commits); n != 1 {
		t.Errorf("%d COMMITs after a stable write", n)
	}
	if kept := d.StorageReport().Kept; kept != 0 {
		t.Errorf("%d bytes kept", kept)
	}
	durable(t, s, 1, 4096, 0)
	durable(t, s, 2, 100000, 8192)
}

// TestARestartLosesNothing: neither what was acknowledged before it nor what is
// written again after it, told or not.
func TestARestartLosesNothing(t *testing.T) {
	for name, loss := range map[string]func(*server) error{
		"restart":        (*server).restart,
		"reconnect":      func(s *server) error { return s.reconnect(false) },
		"both":           func(s *server) error { return s.reconnect(true) },
		"without a word": func(s *server) error { s.forget(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, d := fresh(t, "")
			write(t, d, 1, 100000, 0)
			write(t, d, 2, 4096, 4096)
			if err := d.Discard(background, 65536, 4096, 0); err != nil {
				t.Fatal(err)
			}
			if err := loss(s); err != nil {
				t.Fatal(err)
			}
			if name != "without a word" {
				expect(t, d, 1, 4096, 0)
				expect(t, d, 2, 4096, 4096)
			}
			flush(t, d)
			durable(t, s, 1, 4096, 0)
			durable(t, s, 2, 4096, 4096)
			durable(t, s, 1, 65536-8192, 8192)
			durable(t, s, 0, 4096, 65536)
			durable(t, s, 1, 100000-69632, 69632)
			expect(t, d, 2, 4096, 4096)
		})
	}
}

// TestTheNextReplyTellsOfALoss: the reply to a write has another verifier, so reads
// after it see again what was lost.
func TestTheNextReplyTellsOfALoss(t *testing.T) {
	s, d := fresh(t, "")
	write(t, d, 1, 4096, 0)
	s.forget()
	write(t, d, 2, 4096, 8192)
	expect(t, d, 1, 4096, 0)
	expect(t, d, 2, 4096, 8192)
	flush(t, d)
	durable(t, s, 1, 4096, 0)
	durable(t, s, 2, 4096, 8192)
}

// slowWriter is a File whose first reply comes late: the server is restarted between it
// and its being noted.
type slowWriter struct {
	remote.File
	once sync.Once
	then func()
}

func (f *slowWriter) Write(ctx context.Context, p []byte, off int64, stable bool) (remote.Written, error) {
	w, err := f.File.Write(ctx, p, off, stable)
	f.once.Do(f.then)
	return w, err
}

func (f *slowWriter) Limits() remote.Limits { return f.File.(remote.Limiter).Limits() }

func TestAReplyThatComesLate(t *testing.T) {
	for _, same := range []bool{false, true} { // the verifier: a server may be that wrong
		s, d := fresh(t, "")
		d.file = &slowWriter{File: d.file, then: func() {
			if same {
				s.verifier--
			}
			if err := s.restart(); err != nil {
				t.Error(err)
			}
		}}
		write(t, d, 1, 4096, 0)
		expect(t, d, 1, 4096, 0)
		flush(t, d)
		durable(t, s, 1, 4096, 0)
	}
}

func TestACommitThatFailsLosesNothing(t *testing.T) {
	s, d := fresh(t, "")
	var failing atomic.Bool
	failing.Store(true)
	s.on = func(op string) error {
		if op == "COMMIT" && failing.Load() {
			s.lose() // and it forgets the error
			return refusal(op, nfsstat.IO)
		}
		return nil
	}
	write(t, d, 1, 4096, 0)
	if err := d.Flush(background); block.KindOf(err) != block.IO || !says(err, "flush nfs://filer/images/a.img", "COMMIT") {
		t.Error(err)
	}
	failing.Store(false)
	expect(t, d, 1, 4096, 0)
	flush(t, d)
	durable(t, s, 1, 4096, 0)
}

// TestARefusalDuringRecoveryIsTheDevices: a server that does not take the kept bytes
// again does not keep the client from recovering.
func TestARefusalDuringRecoveryIsTheDevices(t *testing.T) {
	s, d := fresh(t, "")
	write(t, d, 1, 4096, 0)
	full := refusal("WRITE", nfsstat.NoSpc)
	var on atomic.Bool
	on.Store(true)
	s.on = func(op string) error {
		if on.Load() && (op == "RAW WRITE" || op == "WRITE") {
			return full
		}
		return nil
	}
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(background, make([]byte, 512), 0); block.KindOf(err) != block.NoSpace {
		t.Error(err)
	}
	if err := d.Flush(background); block.KindOf(err) != block.NoSpace || !says(err, "the server lost") {
		t.Error(err)
	}
	on.Store(false)
	expect(t, d, 1, 4096, 0)
	flush(t, d)
	durable(t, s, 1, 4096, 0)
}

// TestTheCommitterMakesRoom: nobody flushes, and more is written than may be kept.
func TestTheCommitterMakesRoom(t *testing.T) {
	s, d := fresh(t, "?keep=1M")
	for i := range 64 {
		write(t, d, byte(i), 64<<10, int64(i%16)<<16)
		if kept := d.StorageReport().Kept; kept > 1<<20 {
			t.Fatalf("%d bytes kept", kept)
		}
	}
	if s.counted(&s.commits) == 0 {
		t.Error("no COMMIT")
	}
	expect(t, d, 63, 64<<10, 15<<16)
}

// TestNoRoomAndNoCommit: a server that takes writes and cannot commit them stops the
// writer in the end, with its error.
func TestNoRoomAndNoCommit(t *testing.T) {
	s := newServer()
	s.file(image, make([]byte, 1<<20))
	s.on = func(op string) error {
		if op == "COMMIT" {
			return refusal(op, nfsstat.IO)
		}
		return nil
	}
	d := device(t, s, "?keep=1M", block.OpenOptions{})
	defer closeAll(t, d.Close)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = d.WriteAt(background, fill(1, 64<<10), int64(i%16)<<16, 0)
	}
	if block.KindOf(err) != block.IO || !says(err, "write nfs://", "COMMIT") {
		t.Error(err)
	}
}

// TestFlushesShareACommit: those that came while one was under way wait for a single
// further one.
func TestFlushesShareACommit(t *testing.T) {
	s, d := fresh(t, "")
	arrived, let := make(chan struct{}), make(chan struct{})
	s.on = func(op string) error {
		if op == "COMMIT" {
			arrived <- struct{}{}
			<-let
		}
		return nil
	}
	write(t, d, 1, 4096, 0)
	var all sync.WaitGroup
	start := func() {
		all.Go(func() {
			if err := d.Flush(background); err != nil {
				t.Error(err)
			}
		})
	}
	start()
	<-arrived
	write(t, d, 2, 4096, 0) // not the first flush's
	for range 5 {
		start()
	}
	for d.gate.Inside() < 6 {
		runtime.Gosched()
	}
	let <- struct{}{}
	<-arrived
	let <- struct{}{}
	all.Wait()
	if n := s.counted(&s.commits); n != 2 {
		t.Errorf("%d COMMITs", n)
	}
	durable(t, s, 2, 4096, 0)
}

func TestAFileThatWasCutOff(t *testing.T) {
	s, d := fresh(t, "")
	if err := s.nodes[image].data.Resize(background, 5000); err != nil {
		t.Fatal(err)
	}
	err := d.ReadAt(background, make([]byte, 8192), 4096)
	if block.KindOf(err) != block.IO || !says(err, "at 5000", "5000 bytes", "1048576") {
		t.Error(err)
	}
	extents, err := d.Extents(background, 0, 1<<20, make([]block.Extent, 0, 8))
	if want := []block.Extent{{Len: 5000, State: hole, Depth: 1}, {Len: 1<<20 - 5000, Depth: 1}}; err != nil || !slices.Equal(extents, want) {
		t.Error(extents, err) // what is not there is called data
	}
}

func TestShareReservations(t *testing.T) {
	s, _ := fresh(t, "")
	cfg := config(t, "nfs://filer"+image)
	_, err := open(background, s.pool(), cfg, block.OpenOptions{})
	if block.KindOf(err) != block.Busy || !says(err, "--share", "share=on", "nfs://filer/images/a.img") {
		t.Error(err)
	}
	d, err := open(background, s.pool(), cfg, block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, d.Close)
	if s.counted(&s.clients) != 1 {
		t.Error("a failed open has left a client")
	}
	for _, c := range []struct {
		url  string
		opts block.OpenOptions
		want bool
	}{
		{"", block.OpenOptions{}, false},
		{"", block.OpenOptions{Share: true}, true},
		{"", block.OpenOptions{Unlocked: true}, true},
		{"?share=on", block.OpenOptions{}, true},
		{"?share=off", block.OpenOptions{Share: true}, false},
	} {
		s := newServer()
		s.file(image, make([]byte, 512))
		d := device(t, s, c.url, c.opts)
		if got := d.file.(*fakeFile).opts.Share; got != c.want {
			t.Errorf("%q %+v: share %v", c.url, c.opts, got)
		}
		closeAll(t, d.Close)
	}
}

func TestOpenFailures(t *testing.T) {
	s := newServer()
	for path, kind := range map[string]block.Kind{"/images/none": block.NotFound, "/images": block.Invalid} {
		_, err := open(background, s.pool(), config(t, "nfs://filer"+path), block.OpenOptions{})
		if block.KindOf(err) != kind || !says(err, "open nfs://filer"+path) {
			t.Error(err)
		}
	}
	s.file(image, nil)
	s.on = func(op string) error {
		if op == "GETATTR" {
			return refusal(op, nfsstat.Stale)
		}
		return nil
	}
	_, err := open(background, s.pool(), config(t, "nfs://filer"+image), block.OpenOptions{})
	if block.KindOf(err) != block.IO || s.counted(&s.clients) != 0 || len(s.open) != 0 {
		t.Error(err, s.clients, len(s.open))
	}
}

func TestHeldDevicesTellSoon(t *testing.T) {
	s := newServer()
	s.file(image, nil)
	for url, want := range map[string]string{"": "1s", "?reconnect=1m": "1m0s"} {
		p := s.pool()
		dial := p.dial
		p.dial = func(ctx context.Context, cfg *Config) (remote.Client, error) {
			if got := cfg.Reconnect.String(); got != want {
				t.Errorf("%q: %s", url, got)
			}
			return dial(ctx, cfg)
		}
		d, err := open(background, p, config(t, "nfs://filer"+image+url), block.OpenOptions{Held: true})
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, d.Close)
	}
}

// TestZeroesWithoutDeallocate: a server may claim it and refuse it.
func TestZeroesWithoutDeallocate(t *testing.T) {
	s, d := fresh(t, "")
	write(t, d, 1, 200000, 0)
	s.on = func(op string) error {
		if op == "DEALLOCATE" {
			return refusal(op, nfsstat.NotSupp)
		}
		return nil
	}
	if err := d.WriteZeroes(background, 0, 4096, block.MayUnmap|block.FastOnly); block.KindOf(err) != block.Unsupported {
		t.Error(err)
	}
	if err := d.WriteZeroes(background, 4096, 150000, block.MayUnmap); err != nil {
		t.Error(err)
	}
	if err := d.Discard(background, 160000, 4096, 0); err != nil {
		t.Error(err)
	}
	expect(t, d, 1, 4096, 0)
	expect(t, d, 0, 150000, 4096)
	expect(t, d, 1, 200000-154096, 154096)
}

// nullFile takes and gives anything at once.
type nullFile struct{}

func (nullFile) Read(_ context.Context, p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Write(_ context.Context, p []byte, _ int64, stable bool) (remote.Written, error) {
	return remote.Written{N: len(p), Durable: stable, Verifier: 1}, nil
}
func (nullFile) Commit(context.Context) (remote.Verifier, error) { return 1, nil }
func (nullFile) Attr(context.Context) (remote.Attr, error)       { return remote.Attr{Size: 1 << 20}, nil }
func (nullFile) Truncate(context.Context, int64) error           { return nil }
func (nullFile) Close() error                                    { return nil }

// nullClient opens nullFiles.
type nullClient struct{ remote.Client }

func (nullClient) Open(context.Context, string, remote.OpenOptions) (remote.File, error) {
	return nullFile{}, nil
}
func (nullClient) Close() error { return nil }

// null is a Device on a server that costs nothing.
func null(t testing.TB) *Device {
	t.Helper()
	p := &pool{dial: func(context.Context, *Config) (remote.Client, error) { return nullClient{}, nil }}
	d, err := open(background, p, config(t, "nfs://filer"+image), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, d.Close) })
	return d
}

func TestRequestsAllocateNothing(t *testing.T) {
	d, p := null(t), fill(1, 4096)
	round := func(flags block.Flags) error {
		return errors.Join(d.ReadAt(background, p, 4096), d.WriteAt(background, p, 4096, flags), d.Flush(background))
	}
	for _, flags := range []block.Flags{0, block.FUA} {
		if n := testing.AllocsPerRun(500, func() {
			if err := round(flags); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("flags %#x: %v allocations", flags, n)
		}
	}
}

func BenchmarkWrite4K(b *testing.B) {
	d, p := null(b), fill(1, 4096)
	for b.Loop() {
		if err := d.WriteAt(background, p, 4096, 0); err != nil {
			b.Fatal(err)
		}
	}
}
