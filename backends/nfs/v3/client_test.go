package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/nfs/nfsstat"
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
		Host: "127.0.0.1", Port: s.Port(), MountPort: s.Port(), PortmapPort: s.Port(), Path: s.Export(),
		Connections: 2, Cred: rpc.Cred{Machine: "test"},
		Patience: 20 * time.Second, Silence: 5 * time.Second,
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
	return &bench{T: t, server: s, client: dialTest(t, cfg)}
}

func dialTest(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
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
	if got := b.read(f, 8192, 0); len(got) != 0 {
		t.Errorf("%d bytes of none", len(got))
	}
	if err := f.Truncate(t.Context(), 5000); err != nil {
		t.Error(err)
	}
	if a, err := f.Attr(t.Context()); err != nil || a.Size != 5000 || a.Type != remote.Regular {
		t.Errorf("attributes %+v, %v", a, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(t.Context(), make([]byte, 10), 0); !errors.Is(err, block.Closed) {
		t.Errorf("read of a closed file: %v", err)
	}
}

// Many callers at once over several connections, more than there are slots.
func TestManyCallers(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 3 })
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true})
	var all sync.WaitGroup
	for w := range 2 * maxSlots {
		all.Go(func() {
			off := int64(w) * 4096
			for i := range 10 {
				p, q := pattern(4096, byte(w+i)), make([]byte, 4096)
				if _, err := f.Write(t.Context(), p, off, false); err != nil {
					t.Error(err)
				}
				if n, err := f.Read(t.Context(), q, off); err != nil || !bytes.Equal(p, q[:n]) {
					t.Errorf("writer %d read something else: %v", w, err)
				}
			}
		})
	}
	all.Wait()
	if st := b.client.Status(); st.Connected != 3 || st.Wanted != 3 || st.Version != "3" || !st.Away.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// A caller that waits for a slot leaves when its context ends or its file is closed.
func TestWaitingForASlot(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{})
	hold := make([]*slot, maxSlots)
	for i := range hold {
		hold[i], _ = b.client.slots.take(t.Context(), nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Read(ctx, make([]byte, 16), 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ended := make(chan error)
	go func() {
		_, err := f.Read(context.Background(), make([]byte, 16), 0)
		ended <- err
	}()
	for f.gate.Inside() == 0 {
		runtime.Gosched()
	}
	_ = f.Close()
	if err := <-ended; !errors.Is(err, block.Closed) {
		t.Error(err)
	}
	for _, sl := range hold {
		sl.release()
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		server uint32
		asked  int
		want   int
	}{
		{1 << 20, 0, 1 << 20},
		{1 << 26, 0, 1 << 20},
		{70000, 0, 69632},
		{1000, 0, 1000},
		{1 << 20, 65536, 65536},
	} {
		b := start(t, nfstest.Options{Limits: nfstest.Limits{ReadSize: tt.server, WriteSize: tt.server}}, func(c *Config) { c.MaxIO = tt.asked })
		content := pattern(1<<20+1, 7)
		f := b.open(content, remote.OpenOptions{Write: true})
		if l := f.Limits(); l != (remote.Limits{Read: tt.want, Write: tt.want}) {
			t.Errorf("server %d, asked %d: %+v", tt.server, tt.asked, l)
		}
		if got := b.read(f, 0, len(content)); !bytes.Equal(got, content[:tt.want]) {
			t.Errorf("server %d: %d bytes read", tt.server, len(got))
		}
		if w, err := f.Write(t.Context(), content, 0, false); err != nil || w.N != tt.want {
			t.Errorf("server %d: %d bytes written, %v", tt.server, w.N, err)
		}
	}
}

func TestPortMapper(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	s.Create("/export/disk.img", []byte("content"))
	cfg := configOf(s)
	cfg.Port, cfg.MountPort, cfg.Path = 0, 0, "/export/disk.img"
	c := dialTest(t, cfg)
	if a, err := c.Tree().Stat(t.Context(), "/export/disk.img", true); err != nil || a.Size != 7 {
		t.Error(a, err)
	}
	if s.Count("portmap.GETPORT") != 2 {
		t.Errorf("%v", s.Counts())
	}
}

// What a client says of a server that it cannot use.
func TestDialFails(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	without := nfstest.Start(t, nfstest.Options{NoV3: true})
	stopped := nfstest.Start(t, nfstest.Options{})
	stopped.Stop()
	for name, tt := range map[string]struct {
		server *nfstest.Server
		change func(*Config)
		kind   block.Kind
		cause  error
	}{
		"no such version":        {without, func(*Config) {}, block.Unsupported, nil},
		"no export":              {s, func(c *Config) { c.Path = "/elsewhere/disk.img" }, block.Permission, nfsstat.Access},
		"nobody listens":         {stopped, func(*Config) {}, block.Transient, syscall.ECONNREFUSED},
		"no port mapper listens": {stopped, func(c *Config) { c.Port = 0 }, block.Transient, syscall.ECONNREFUSED},
		"no mount service":       {s, func(c *Config) { c.MountPort = stopped.Port() }, block.Transient, syscall.ECONNREFUSED},
	} {
		cfg := configOf(tt.server)
		tt.change(&cfg)
		c, err := Dial(t.Context(), cfg)
		if err == nil {
			_ = c.Close()
		}
		if block.KindOf(err) != tt.kind || tt.cause != nil && !errors.Is(err, tt.cause) {
			t.Errorf("%s: %v (%v)", name, err, block.KindOf(err))
		}
	}
	s.Hook(func(op string, _ []byte) nfstest.Action {
		return nfstest.Action{Result: func(result []byte) []byte {
			if op == "portmap.GETPORT" {
				return make([]byte, 4)
			}
			return result
		}}
	})
	cfg := configOf(s)
	cfg.Port = 0
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, block.Unsupported) || !strings.Contains(err.Error(), "port mapper") {
		t.Errorf("a program that is not registered: %v", err)
	}
}

func TestDialIsBounded(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for _, op := range []string{"v3.NULL", "mount.MNT", "portmap.GETPORT"} {
		s.Delay(op, never)
		cfg := configOf(s)
		if op == "portmap.GETPORT" {
			cfg.Port = 0
		}
		ctx, cancel := context.WithCancel(t.Context())
		came := s.Arrived(op, s.Count(op)+1)
		go func() { <-came; cancel() }()
		if _, err := Dial(ctx, cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", op, err)
		}
		s.Honest()
	}
}

// Everything that has a name.
func TestNames(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	ctx, tree := t.Context(), b.client.Tree().(tree)
	size, mode, id := int64(12345), uint32(0o600), uint32(36)
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{Size: &size, Mode: &mode, UID: &id, GID: &id}); err != nil {
		t.Fatal(err)
	}
	a, err := tree.Stat(ctx, "/export/a", false)
	if err != nil || a.Size != size || a.Mode != mode || a.UID != id || a.GID != id || a.Type != remote.Regular {
		t.Errorf("%+v, %v", a, err)
	}
	if since := time.Since(a.ModTime); since < -time.Minute || since > time.Hour {
		t.Errorf("the verifier is still in the times: %v", a.ModTime)
	}
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{}); !errors.Is(err, block.Exists) {
		t.Errorf("a second create: %v", err)
	}
	if err := tree.MakeDir(ctx, "/export/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tree.Link(ctx, "/export/a", "/export/dir/b"); err != nil {
		t.Fatal(err)
	}
	if err := tree.Link(ctx, "/export/a", "/export/dir/b"); !errors.Is(err, block.Exists) {
		t.Errorf("a link over a name: %v", err)
	}
	if err := tree.Rename(ctx, "/export/a", "/export/dir/c"); err != nil {
		t.Fatal(err)
	}
	if l, _ := tree.Stat(ctx, "/export/dir/c", true); l.Links != 2 || l.ID != a.ID {
		t.Errorf("%+v", l)
	}
	if err := tree.Remove(ctx, "/export/dir"); !errors.Is(err, block.Invalid) {
		t.Errorf("remove of a folder: %v", err)
	}
	if err := tree.Remove(ctx, "/export/dir/b"); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"remove": tree.Remove(ctx, "/export/none"), "rename": tree.Rename(ctx, "/export/none", "/export/x"),
		"link": tree.Link(ctx, "/export/none", "/export/x"),
	} {
		if !errors.Is(err, block.NotFound) {
			t.Errorf("%s of nothing: %v", what, err)
		}
	}
	size = 99
	if err := tree.Set(ctx, "/export/dir/c", remote.SetAttr{Size: &size}); err != nil {
		t.Error(err)
	}
	if total, free, err := tree.Space(ctx, "/export"); err != nil || total <= 0 || free <= 0 {
		t.Errorf("space %d %d %v", total, free, err)
	}
	if _, err := b.client.Open(ctx, "/export/dir", remote.OpenOptions{}); !errors.Is(err, block.Invalid) {
		t.Errorf("open of a folder: %v", err)
	}
	if err := tree.Remove(ctx, "/"); !errors.Is(err, block.Invalid) {
		t.Errorf("remove of the root: %v", err)
	}
}

// A create whose attributes the server refuses leaves nothing.
func TestCreateThatFailsHalfway(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Fail("v3.SETATTR", uint32(nfsstat.Perm), 1)
	if err := b.client.Tree().Create(t.Context(), "/export/a", remote.SetAttr{}); !errors.Is(err, block.Permission) {
		t.Error(err)
	}
	if b.server.Exists("/export/a") {
		t.Error("it is still there")
	}
	b.answer("v3.CREATE", nfstest.Shorten(4))
	if err := b.client.Tree().Create(t.Context(), "/export/a", remote.SetAttr{}); !errors.Is(err, block.IO) || b.server.Exists("/export/a") {
		t.Errorf("a reply that makes no sense: %v", err)
	}
	b.server.Honest()
	b.server.Fail("v3.CREATE", uint32(nfsstat.NotSupp), 1) // only EXCLUSIVE
	if err := b.client.Tree().Create(t.Context(), "/export/a", remote.SetAttr{}); err != nil || !b.server.Exists("/export/a") {
		t.Error(err)
	}
}

// Of several creates of a name one is under way at a time, and one wins.
func TestCreatesOfAName(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	hold := make(chan struct{})
	b.server.Delay("v3.CREATE", hold)
	came := b.server.Arrived("v3.CREATE", 1)
	errs := make(chan error)
	for range 5 {
		go func() { errs <- b.client.Tree().Create(context.Background(), "/export/a", remote.SetAttr{}) }()
	}
	<-came
	<-b.server.Arrived("v3.GETATTR", 5)
	if n := b.server.Count("v3.CREATE"); n != 1 {
		t.Errorf("%d at once", n)
	}
	close(hold)
	won := 0
	for range 5 {
		switch err := <-errs; {
		case err == nil:
			won++
		case !errors.Is(err, block.Exists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestSymbolicLinks(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Mkdir("/export/dir/deep")
	b.server.Create("/export/dir/a", []byte("a"))
	for name, target := range map[string]string{
		"/export/relative": "dir/a", "/export/absolute": "/export/dir/a", "/export/dir/up": "../dir/a",
		"/export/folder": "dir", "/export/loop": "loop", "/export/outside": "/etc/passwd", "/export/far": "../../../../../export/dir/a",
		"/export/chain": "relative",
	} {
		b.server.Symlink(target, name)
	}
	ctx, tree := t.Context(), b.client.Tree()
	for _, name := range []string{"/export/relative", "/export/absolute", "/export/dir/up", "/export/folder/a", "/export/folder/up", "/export/far", "/export/chain"} {
		if a, err := tree.Stat(ctx, name, true); err != nil || a.Type != remote.Regular || a.Size != 1 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if a, err := tree.Stat(ctx, "/export/relative", false); err != nil || a.Type != remote.Symlink {
		t.Errorf("the link itself: %+v, %v", a, err)
	}
	if _, err := tree.Stat(ctx, "/export/loop", true); !errors.Is(err, block.Invalid) || !strings.Contains(err.Error(), "symbolic links") {
		t.Errorf("a loop: %v", err)
	}
	if _, err := tree.Stat(ctx, "/export/outside", true); err == nil {
		t.Error("a link that leads out of the exports was followed")
	}
	if _, err := tree.Stat(ctx, "/export/dir/a/b", true); statusOf(err) != nfsstat.NotDir {
		t.Errorf("below a file: %v", err)
	}
}

// A folder of many parts, with READDIRPLUS and without, with entries that come without
// attributes or go away.
func TestList(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	want := map[string]int64{}
	for i := range 3000 {
		name := fmt.Sprintf("%0100d", i)
		b.server.Create("/export/dir/"+name, make([]byte, i%7))
		want[name] = int64(i % 7)
	}
	list := func() map[string]int64 {
		entries, err := b.client.Tree().List(t.Context(), "/export/dir")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, e := range entries {
			got[e.Name] = e.Attr.Size
		}
		if len(got) != len(entries) {
			t.Error("names came twice")
		}
		return got
	}
	if got := list(); !maps.Equal(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if n := b.server.Count("v3.READDIRPLUS"); n < 3 {
		t.Errorf("%d parts", n)
	}
	b.server.Fail("v3.READDIRPLUS", uint32(nfsstat.NotSupp), 1)
	b.server.Fail("v3.READDIR", uint32(nfsstat.BadCookie), 1)
	if got := list(); !maps.Equal(got, want) || b.server.Count("v3.READDIR") == 0 {
		t.Errorf("%d entries with READDIR, want %d", len(got), len(want))
	}
	b.server.Fail("v3.READDIRPLUS", uint32(nfsstat.NotSync), 2)
	if got := list(); !maps.Equal(got, want) {
		t.Errorf("%d entries in the end, want %d", len(got), len(want))
	}
	b.server.Fail("v3.READDIRPLUS", uint32(nfsstat.BadCookie), -1)
	if _, err := b.client.Tree().List(t.Context(), "/export/dir"); !errors.Is(err, block.Transient) {
		t.Errorf("a folder that changes all the time: %v", err)
	}
	if _, err := b.client.Tree().List(t.Context(), "/export/dir/"+slices.Sorted(maps.Keys(want))[0]); statusOf(err) != nfsstat.NotDir {
		t.Errorf("list of a file: %v", err)
	}
}

// Opened for writing without Share, the log says once what NFSv3 does not have.
func TestShareIsTold(t *testing.T) {
	var log bytes.Buffer
	b := start(t, nfstest.Options{}, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	b.open(nil, remote.OpenOptions{Write: true, Share: true})
	b.open(nil, remote.OpenOptions{})
	if strings.Contains(log.String(), "share reservations") {
		t.Error("told without need")
	}
	b.open(nil, remote.OpenOptions{Write: true})
	b.open(nil, remote.OpenOptions{Write: true})
	if strings.Count(log.String(), "share reservations") != 1 {
		t.Errorf("%s", &log)
	}
}

func TestPermission(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	b.server.Create("/export/disk.img", nil)
	b.server.Hook(func(op string, _ []byte) nfstest.Action {
		return nfstest.Action{Result: func(p []byte) []byte {
			if op == "v3.ACCESS" {
				p[len(p)-1] = accessRead
			}
			return p
		}}
	})
	if _, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true}); !errors.Is(err, block.Permission) {
		t.Error(err)
	}
	if f, err := b.client.Open(t.Context(), "/export/disk.img", remote.OpenOptions{}); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
}

func TestCloseTellsTheServer(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	c, err := Dial(t.Context(), configOf(s))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if s.Count("mount.UMNT") != 1 {
		t.Errorf("%v", s.Counts())
	}
	if _, err := c.Tree().Stat(t.Context(), "/export", true); !errors.Is(err, block.Closed) {
		t.Error(err)
	}
	if _, err := c.Open(t.Context(), "/export/a", remote.OpenOptions{}); !errors.Is(err, block.Closed) {
		t.Error(err)
	}
}
