package v4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a server of the test and a client of it.
type bench struct {
	*testing.T
	server *nfstest.Server
	client *Client
}

func configOf(s *nfstest.Server) Config {
	return Config{
		Host: "127.0.0.1", Port: s.Port(), Minor: 2, Connections: 2, Cred: rpc.Cred{Machine: "test"},
		Patience: 20 * time.Second, Silence: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
}

// start dials a server; change, if set, adjusts the configuration.
func start(t *testing.T, options nfstest.Options, change func(*Config)) *bench {
	t.Helper()
	s := nfstest.Start(t, options)
	cfg := configOf(s)
	if change != nil {
		change(&cfg)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{T: t, server: s, client: c}
}

// open opens a file that holds content.
func (b *bench) open(content []byte, opts remote.OpenOptions) *File {
	b.Helper()
	b.server.Create("/export/disk.img", content)
	f, err := b.client.Open(b.Context(), "/export/disk.img", opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return f.(*File)
}

func (b *bench) write(f *File, p []byte, off int64, stable bool) remote.Written {
	b.Helper()
	w, err := f.Write(b.Context(), p, off, stable)
	if err != nil || w.N != len(p) {
		b.Fatalf("write at %d: %d bytes, %v", off, w.N, err)
	}
	return w
}

func (b *bench) read(f *File, off int64, n int) []byte {
	b.Helper()
	p := make([]byte, n)
	got, err := f.Read(b.Context(), p, off)
	if err != nil {
		b.Fatalf("read at %d: %v", off, err)
	}
	return p[:got]
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>8) ^ byte(i) ^ seed
	}
	return p
}

func TestBytesAndDurability(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true})
	p, q := pattern(4096, 1), pattern(300<<10, 2)
	w := b.write(f, p, 8192, false)
	if w.Durable {
		t.Error("an unstable write was called durable")
	}
	b.write(f, q, 65536, true)
	if got := b.read(f, 8192, 4096); !bytes.Equal(got, p) {
		t.Error("read back other bytes than were written")
	}
	if got := b.read(f, 65536, len(q)); !bytes.Equal(got, q) {
		t.Error("read back other bytes than were written, large")
	}
	file := b.server.File("/export/disk.img")
	if _, durable := file.Read(8192, 4096); bytes.Equal(durable, p) {
		t.Error("durable before a commit")
	}
	if _, durable := file.Read(65536, int64(len(q))); !bytes.Equal(durable, q) {
		t.Error("a stable write is not durable")
	}
	v, err := f.Commit(t.Context())
	if err != nil || v != w.Verifier {
		t.Errorf("commit: verifier %x, of the write %x, %v", v, w.Verifier, err)
	}
	if _, durable := file.Read(8192, 4096); !bytes.Equal(durable, p) {
		t.Error("not durable after the commit")
	}
	if got := b.read(f, 1<<20, 10); len(got) != 0 {
		t.Errorf("%d bytes beyond the end", len(got))
	}
	if got := b.read(f, 1<<20-10, 100); len(got) != 10 {
		t.Errorf("%d bytes at the end, want 10", len(got))
	}
}

func TestReadsAndWritesAllocateNothing(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true})
	p := make([]byte, 4096)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if raceEnabled {
		return // sync.Pool drops items at random
	}
	// The server is in this process too, so only a fraction would show: measure the client's part.
	slots := &b.client.slots
	if n := testing.AllocsPerRun(100, func() {
		op := getWrite(f, p, 0, false)
		sl, err := slots.acquire(ctx, how{})
		if err != nil {
			t.Fatal(err)
		}
		sl.call.Head = op.encode(sl.call.Head[:0])
		slots.release(sl)
		putWrite(op)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		served []uint32
		minor  uint32
		only   bool
		want   string
	}{
		{[]uint32{1, 2}, 2, false, "4.2"},
		{[]uint32{1}, 2, false, "4.1"},
		{[]uint32{1, 2}, 1, true, "4.1"},
		{[]uint32{1}, 2, true, ""},
		{[]uint32{}, 2, false, ""},
	} {
		s := nfstest.Start(t, nfstest.Options{Minor: tt.served})
		cfg := configOf(s)
		cfg.Minor, cfg.Only = tt.minor, tt.only
		c, err := Dial(t.Context(), cfg)
		if tt.want == "" {
			if !errors.Is(err, block.Unsupported) {
				t.Errorf("served %v, asked for 4.%d: %v, want Unsupported", tt.served, tt.minor, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("served %v: %v", tt.served, err)
			continue
		}
		if got := c.Status().Version; got != tt.want {
			t.Errorf("served %v: %s, want %s", tt.served, got, tt.want)
		}
		_ = c.Close()
	}
}

func TestCloseGivesStateBack(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	s.Create("/export/disk.img", make([]byte, 4096))
	c, err := Dial(t.Context(), configOf(s))
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, states := s.Clients(); states != 1 {
		t.Errorf("%d states with one file open", states)
	}
	_ = f.Close()
	if _, _, states := s.Clients(); states != 0 {
		t.Errorf("%d states after CLOSE", states)
	}
	_ = c.Close()
	if clients, sessions, _ := s.Clients(); clients != 0 || sessions != 0 {
		t.Errorf("%d clients and %d sessions after Close", clients, sessions)
	}
	if _, err := f.Read(t.Context(), make([]byte, 1), 0); !errors.Is(err, block.Closed) {
		t.Errorf("read of a closed file: %v", err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	first := b.open(make([]byte, 4096), remote.OpenOptions{Write: true})
	_, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true})
	if !errors.Is(err, block.Busy) {
		t.Fatalf("a second writer: %v, want Busy", err)
	}
	reader, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{})
	if err != nil {
		t.Fatalf("a reader beside the writer: %v", err)
	}
	_ = reader.Close()
	_ = first.Close()
	for range 2 {
		shared, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true, Share: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = shared.Close() }()
	}
}

func TestDelegationsAreGivenBack(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Delegate(true)
	f := b.open(pattern(4096, 3), remote.OpenOptions{Write: true})
	if b.server.Count("DELEGRETURN") != 1 {
		t.Error("the delegation was kept")
	}
	b.write(f, pattern(4096, 4), 0, false)
}

func TestBackChannel(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.open(pattern(4096, 3), remote.OpenOptions{Write: true})
	if err := b.server.CallbackNull(); err != nil {
		t.Fatal(err)
	}
	if status, err := b.server.RecallSlot(3); err != nil || status != 0 {
		t.Fatalf("CB_RECALL_SLOT: status %d, %v", status, err)
	}
	b.server.Kill()
	if _, err := b.client.Tree().Stat(t.Context(), "/export", true); err != nil {
		t.Fatal(err)
	}
	if err := b.server.CallbackNull(); err != nil {
		t.Errorf("over the new connection: %v", err)
	}
}

func TestSmallGrants(t *testing.T) {
	for _, limits := range []nfstest.Limits{
		{Slots: 1}, {Slots: 2}, {MaxOps: 5}, {MaxRequest: 16 << 10, MaxResponse: 16 << 10}, {ReadSize: 1000, WriteSize: 3000},
	} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			b := start(t, nfstest.Options{Limits: limits}, nil)
			b.server.Mkdir("/export/a/b/c/d/e/f/g")
			b.server.Create("/export/a/b/c/d/e/f/g/deep", []byte("x"))
			if a, err := b.client.Tree().Stat(t.Context(), "/export/a/b/c/d/e/f/g/deep", true); err != nil || a.Size != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			f := b.open(make([]byte, 256<<10), remote.OpenOptions{Write: true})
			var all sync.WaitGroup
			for i := range 16 {
				all.Go(func() {
					p := pattern(16<<10, byte(i))
					for done := 0; done < len(p); {
						w, err := f.Write(context.Background(), p[done:], int64(i*len(p)+done), false)
						if err != nil {
							t.Error(err)
							return
						}
						done += w.N
					}
				})
			}
			all.Wait()
			got := b.server.File("/export/disk.img").Bytes()
			for i := range 16 {
				if !bytes.Equal(got[i*16<<10:(i+1)*16<<10], pattern(16<<10, byte(i))) {
					t.Errorf("writer %d's bytes are not there", i)
				}
			}
			if limits.Slots > 0 && b.server.HighestSlot() >= limits.Slots {
				t.Error("a slot was used that was not granted")
			}
		})
	}
}

func TestNames(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	tree, ctx := b.client.Tree(), t.Context()
	mode, size := uint32(0o600), int64(12345)
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{Mode: &mode, Size: &size}); err != nil {
		t.Fatal(err)
	}
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{}); !errors.Is(err, block.Exists) {
		t.Errorf("create again: %v", err)
	}
	a, err := tree.Stat(ctx, "/export/a", true)
	if err != nil || a.Size != size || a.Mode != mode || a.Type != remote.Regular {
		t.Errorf("%+v, %v", a, err)
	}
	if err := tree.Link(ctx, "/export/a", "/export/b"); err != nil {
		t.Error(err)
	}
	if err := tree.Link(ctx, "/export/a", "/export/b"); !errors.Is(err, block.Exists) {
		t.Errorf("link again: %v", err)
	}
	b.server.Mkdir("/export/dir")
	if err := tree.Rename(ctx, "/export/a", "/export/dir/c"); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(ctx, "/export/dir"); !errors.Is(err, block.Invalid) {
		t.Errorf("remove of a folder: %v", err)
	}
	if err := tree.(interface {
		MakeDir(context.Context, string, uint32) error
	}).MakeDir(ctx, "/export/new", 0o755); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(ctx, "/export/b"); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(ctx, "/export/b"); !errors.Is(err, block.NotFound) {
		t.Errorf("remove again: %v", err)
	}
	b.server.Symlink("dir", "/export/link")
	b.server.Symlink("/export/link/c", "/export/far")
	b.server.Symlink("loop", "/export/loop")
	if a, err := tree.Stat(ctx, "/export/link/c", true); err != nil || a.Size != size {
		t.Errorf("through a link: %+v, %v", a, err)
	}
	if a, err := tree.Stat(ctx, "/export/far", true); err != nil || a.Size != size {
		t.Errorf("through two links: %+v, %v", a, err)
	}
	if a, err := tree.Stat(ctx, "/export/far", false); err != nil || a.Type != remote.Symlink {
		t.Errorf("the link itself: %+v, %v", a, err)
	}
	if _, err := tree.Stat(ctx, "/export/loop", true); !errors.Is(err, block.Invalid) {
		t.Errorf("a loop: %v", err)
	}
	if _, err := tree.Stat(ctx, "/export/dir/c/x", true); err == nil {
		t.Error("a name below a file was found")
	}
	for i := range 500 {
		b.server.Create(fmt.Sprintf("/export/dir/file-%03d", i), nil)
	}
	entries, err := tree.List(ctx, "/export/dir")
	if err != nil || len(entries) != 501 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if _, err := tree.List(ctx, "/export/far"); err == nil {
		t.Error("a file was listed")
	}
	if _, err := b.client.Open(ctx, "/export/dir", remote.OpenOptions{}); !errors.Is(err, block.Invalid) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("open of a folder: %v", err)
	}
}

func TestHoles(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Create("/export/disk.img", pattern(64<<10, 1)).Truncate(1 << 20)
	b.server.Create("/export/other.img", nil).Truncate(1 << 20)
	ctx := t.Context()
	open := func(path string) *File {
		f, err := b.client.Open(ctx, path, remote.OpenOptions{Write: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f.(*File)
	}
	f, other := open("/export/disk.img"), open("/export/other.img")
	if l := f.Limits(); !l.Seek || !l.Allocate || !l.Copy {
		t.Errorf("limits %+v", l)
	}
	if at, end, err := f.Seek(ctx, 0, true); err != nil || at != 64<<10 {
		t.Errorf("first hole at %d, end %v, %v", at, end, err)
	}
	if _, end, err := f.Seek(ctx, 64<<10, false); err != nil || !end {
		t.Errorf("data after the last: end %v, %v", end, err)
	}
	if err := f.Deallocate(ctx, 0, 32<<10); err != nil {
		t.Error(err)
	}
	if got := b.read(f, 0, 32<<10); !bytes.Equal(got, make([]byte, 32<<10)) {
		t.Error("a hole reads as something")
	}
	if err := f.Allocate(ctx, 0, 32<<10); err != nil {
		t.Error(err)
	}
	if err := other.Clone(ctx, f, 0, 0, 64<<10); err != nil {
		t.Error(err)
	}
	n, _, err := other.Copy(ctx, f, 0, 128<<10, 64<<10)
	if err != nil || n != 64<<10 {
		t.Errorf("copied %d, %v", n, err)
	}
	want := b.server.File("/export/disk.img").Bytes()[:64<<10]
	got := b.server.File("/export/other.img").Bytes()
	if !bytes.Equal(got[:64<<10], want) || !bytes.Equal(got[128<<10:192<<10], want) {
		t.Error("the copies differ")
	}
}

func TestLocks(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 4096), remote.OpenOptions{Write: true, Share: true})
	other, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true, Share: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	l, err := f.Lock(t.Context(), 0, 512, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.(*File).Lock(t.Context(), 100, 10, false); !errors.Is(err, block.Busy) {
		t.Errorf("a lock against another: %v", err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	l, err = other.(*File).Lock(t.Context(), 0, -1, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}
