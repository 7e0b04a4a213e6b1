package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

// nth makes the server do something to the n-th of a procedure that comes from now on.
func (b *bench) nth(op string, n int, action nfstest.Action) {
	var mu sync.Mutex
	b.server.Hook(func(name string, _ []byte) nfstest.Action {
		mu.Lock()
		defer mu.Unlock()
		if name == op {
			if n--; n == 0 {
				return action
			}
		}
		return nfstest.Action{}
	})
}

// session does a bit of everything, and checks that each thing was done once.
func (b *bench) session(round int) {
	b.Helper()
	ctx, tree := b.Context(), b.client.Tree().(tree)
	name := func(s string) string { return fmt.Sprintf("/export/%s-%d", s, round) }
	must := func(what string, err error) {
		b.Helper()
		if err != nil {
			b.Errorf("%s: %v", what, err)
		}
	}
	b.server.Symlink("/export", name("link"))
	must("create", tree.Create(ctx, name("a"), remote.SetAttr{}))
	must("link", tree.Link(ctx, name("a"), name("b")))
	must("rename", tree.Rename(ctx, name("a"), name("c")))
	f, err := b.client.Open(ctx, fmt.Sprintf("/export/link-%d/c-%d", round, round), remote.OpenOptions{Write: true})
	if err != nil {
		b.Errorf("open: %v", err)
		return
	}
	p := pattern(8192, byte(round))
	must("truncate", f.Truncate(ctx, 8192))
	_, err = f.Write(ctx, p, 0, false)
	must("write", err)
	_, err = f.Commit(ctx)
	must("commit", err)
	got := make([]byte, 8192)
	n, err := f.Read(ctx, got, 0)
	must("read", err)
	if !bytes.Equal(got[:n], p) {
		b.Error("read back other bytes")
	}
	if !bytes.Equal(b.server.File(name("b")).Durable(), p) {
		b.Error("not durable, or not the linked file")
	}
	_, err = f.Attr(ctx)
	must("attributes", err)
	must("close", f.Close())
	_, err = tree.List(ctx, "/export")
	must("list", err)
	_, _, err = tree.Space(ctx, "/export")
	must("space", err)
	for _, s := range []string{"b", "c", "link"} {
		must("remove", tree.Remove(ctx, name(s)))
	}
	for _, s := range []string{"a", "b", "c"} {
		if b.server.Exists(name(s)) {
			b.Errorf("%s is still there", s)
		}
	}
}

var everyProcedure = []string{
	"v3.READ", "v3.WRITE", "v3.COMMIT", "v3.GETATTR", "v3.SETATTR", "v3.LOOKUP", "v3.ACCESS", "v3.READLINK", "v3.CREATE",
	"v3.REMOVE", "v3.RENAME", "v3.LINK", "v3.READDIRPLUS", "v3.FSSTAT", "v3.FSINFO",
}

// The connection breaks before and after each procedure, in the middle of its reply, and
// its reply comes twice, in pieces or never. The server has no reply cache.
func TestCutsAnywhere(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections, c.Silence = 1, 60*time.Millisecond })
	round := 0
	for _, op := range everyProcedure {
		for name, action := range map[string]nfstest.Action{
			"before":   {CutBefore: true},
			"after":    {CutAfter: true},
			"middle":   {CutAt: 30},
			"no reply": {Drop: true},
			"twice":    {Twice: true},
			"bytes":    {Frame: nfstest.FrameBytes},
			"half":     {Frame: nfstest.FrameTruncated},
		} {
			t.Run(op+" "+name, func(t *testing.T) {
				inner := &bench{T: t, server: b.server, client: b.client}
				came := b.server.Count(op)
				inner.nth(op, 1, action)
				round++
				inner.session(round)
				b.server.Honest()
				if b.server.Count(op) == came {
					t.Error("it was not called")
				}
			})
		}
	}
}

// What a change that was repeated ends with is checked against what is there, and does
// not hide what others did.
func TestRepeatedChangesOfOthers(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 1 })
	ctx, tree := t.Context(), b.client.Tree()
	b.server.Create("/export/a", nil)
	b.server.Create("/export/taken", nil)
	cut := nfstest.Action{CutAfter: true}
	b.nth("v3.LINK", 1, cut)
	if err := tree.Link(ctx, "/export/a", "/export/taken"); !errors.Is(err, block.Exists) {
		t.Errorf("link: %v", err)
	}
	b.nth("v3.CREATE", 1, cut)
	if err := tree.Create(ctx, "/export/taken", remote.SetAttr{}); !errors.Is(err, block.Exists) {
		t.Errorf("create: %v", err)
	}
	// The name goes away between LOOKUP and RENAME.
	var once sync.Once
	b.server.Hook(func(op string, _ []byte) (a nfstest.Action) {
		if op == "v3.RENAME" {
			once.Do(func() {
				b.server.Remove("/export/a")
				a.CutBefore = true
			})
		}
		return a
	})
	if err := tree.Rename(ctx, "/export/a", "/export/taken"); !errors.Is(err, block.NotFound) {
		t.Errorf("rename: %v", err)
	}
}

// A server whose reply cache says EXIST of what this very create has made.
func TestCreateThatExistsByItself(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 1 })
	var mu sync.Mutex
	var verifier []byte
	n := 0
	b.server.Hook(func(op string, args []byte) nfstest.Action {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op == "v3.CREATE":
			verifier = bytes.Clone(args[len(args)-8:])
			if n++; n == 1 {
				return nfstest.Action{CutAfter: true}
			}
			return nfstest.Action{Status: uint32(nfsstat.Exist)}
		case op == "v3.LOOKUP" && n == 2: // atime and mtime hold the verifier
			return nfstest.Action{Result: func(p []byte) []byte {
				at := bytes.Index(p, verifier)
				if at < 0 && len(p) > 180 {
					attrs := p[len(p)-2*(4+attrSize)+4:]
					copy(attrs[60:64], verifier[:4])
					copy(attrs[68:72], verifier[4:])
				}
				return p
			}}
		}
		return nfstest.Action{}
	})
	if err := b.client.Tree().Create(t.Context(), "/export/a", remote.SetAttr{}); err != nil {
		t.Error(err)
	}
}

// journal is a remote.Kept that remembers all writes.
type journal struct {
	mu       sync.Mutex
	writes   map[int64][]byte
	verifier remote.Verifier
	verified int
	restored int
}

func (j *journal) Verify(ctx context.Context, raw remote.RawWriter) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.verified++
	v, err := raw.Commit(ctx)
	if err != nil || v == j.verifier {
		return err
	}
	return j.again(ctx, raw)
}

func (j *journal) Restore(ctx context.Context, raw remote.RawWriter) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.again(ctx, raw)
}

func (j *journal) again(ctx context.Context, raw remote.RawWriter) error {
	j.restored++
	for off, p := range j.writes {
		for n := 0; n < len(p); {
			w, err := raw.Write(ctx, p[n:], off+int64(n))
			if err != nil {
				return err
			}
			n += w.N
		}
	}
	v, err := raw.Commit(ctx)
	j.verifier = v
	return err
}

func (j *journal) writing(p []byte, off int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writes[off] = bytes.Clone(p)
}

func (j *journal) wrote(w remote.Written) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.restored == 0 {
		j.verifier = w.Verifier
	}
}

// A server that was restarted answers no read before what it lost is there again.
func TestRestartLosesNothing(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 3 })
	j := &journal{writes: map[int64][]byte{}}
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true, Kept: j})
	for round := range 5 {
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				off := int64(w) * 64 << 10
				for i := range 20 {
					p := pattern(4096, byte(round*20+i))
					j.writing(p, off) // its answer can come just before the restart
					written, err := f.Write(context.Background(), p, off, false)
					if err != nil {
						t.Error(err)
						return
					}
					j.wrote(written)
					q := make([]byte, 4096)
					if _, err := f.Read(context.Background(), q, off); err != nil || !bytes.Equal(p, q) {
						t.Errorf("round %d writer %d step %d: a write was lost: %v", round, w, i, err)
						return
					}
				}
			})
		}
		<-b.server.Arrived("v3.WRITE", b.server.Count("v3.WRITE")+40)
		b.server.Restart()
		all.Wait()
	}
	if j.restored == 0 {
		t.Error("nothing was ever restored")
	}
	if n := b.client.Status().Recoveries; n == 0 || n > 5 {
		t.Errorf("%d recoveries are told", n)
	}
}

// A connection that finds out that the server lost something stops those that are still
// up, and none is used before everything is there again.
func TestLossStopsAllConnections(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 4 })
	j := &journal{writes: map[int64][]byte{}}
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true, Kept: j})
	p := pattern(4096, 5)
	j.writing(p, 8192)
	j.wrote(b.write(f, p, 8192, false))
	b.server.Lose()
	restoring := make(chan struct{})
	b.server.Delay("v3.WRITE", restoring)
	b.nth("v3.GETATTR", 1, nfstest.Action{CutBefore: true}) // one of the four
	came := b.server.Arrived("v3.WRITE", b.server.Count("v3.WRITE")+1)
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := f.Attr(context.Background()); err != nil {
			t.Error(err)
		}
	})
	<-came
	reads := b.server.Count("v3.READ")
	for range 16 {
		all.Go(func() {
			q := make([]byte, 4096)
			if _, err := f.Read(context.Background(), q, 8192); err != nil || !bytes.Equal(p, q) {
				t.Errorf("a read saw what was there before an acknowledged write: %v", err)
			}
		})
	}
	for f.gate.Inside() < 17 {
		runtime.Gosched()
	}
	if n := b.server.Count("v3.READ"); n != reads {
		t.Errorf("%d reads came to the server meanwhile", n-reads)
	}
	close(restoring)
	all.Wait()
	if j.restored != 1 {
		t.Errorf("restored %d times", j.restored)
	}
	if st := b.client.Status(); st.Recoveries != 1 || st.Losses != 4 {
		t.Errorf("%+v", st)
	}
}

// What is kept is written again also where the server wants time, knows the handle no
// more, or breaks the connection in the middle of it.
func TestRestoringMeetsFaults(t *testing.T) {
	for name, fault := range map[string]func(b *bench, f *File){
		"later": func(b *bench, _ *File) { b.server.Fail("v3.WRITE", uint32(nfsstat.Delay), 1) },
		"stale": func(b *bench, f *File) {
			fh := b.staleHandle()
			f.handle.Store(&fh)
		},
		"cut":      func(b *bench, _ *File) { b.nth("v3.WRITE", 1, nfstest.Action{CutAfter: true}) },
		"silence":  func(b *bench, _ *File) { b.nth("v3.COMMIT", 2, nfstest.Action{Drop: true}) },
		"nonsense": func(b *bench, _ *File) { b.nth("v3.COMMIT", 1, nfstest.Action{Edit: nfstest.Shorten(4)}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nfstest.Options{}, func(c *Config) { c.Silence = 100 * time.Millisecond })
			j := &journal{writes: map[int64][]byte{}}
			f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true, Kept: j})
			p := pattern(100_000, 5)
			j.writing(p, 4096)
			j.wrote(b.write(f, p, 4096, false))
			fault(b, f)
			b.server.Restart()
			if got := b.read(f, 4096, len(p)); !bytes.Equal(got, p) {
				t.Error("a write was lost")
			}
		})
	}
}

// zeroing is a remote.Kept that has zeroes to write.
type zeroing struct{ off, n int64 }

func (z zeroing) Verify(ctx context.Context, raw remote.RawWriter) error {
	if _, err := raw.Zero(ctx, z.off, z.n); err != nil {
		return err
	}
	_, err := raw.Commit(ctx)
	return err
}

func (z zeroing) Restore(ctx context.Context, raw remote.RawWriter) error { return z.Verify(ctx, raw) }

func TestZeroingIsRestored(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.MaxIO = 8192 })
	content := pattern(1<<16, 3)
	f := b.open(content, remote.OpenOptions{Write: true, Kept: zeroing{5000, 30000}})
	b.server.Restart()
	clear(content[5000:35000])
	if got := b.read(f, 4096, 8192); !bytes.Equal(got, content[4096:4096+8192]) || !bytes.Equal(b.server.File("/export/disk.img").Durable(), content) {
		t.Error("other bytes than were zeroed")
	}
}

// A file that is closed while its connection is being revived does not hold that up.
func TestCloseWhileRestoring(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections = 1 })
	j := &journal{writes: map[int64][]byte{}}
	f := b.open(make([]byte, 1<<20), remote.OpenOptions{Write: true, Kept: j})
	p := pattern(4096, 5)
	j.writing(p, 4096)
	j.wrote(b.write(f, p, 4096, false))
	b.server.Fail("v3.WRITE", uint32(nfsstat.Delay), -1)
	came := b.server.Arrived("v3.WRITE", b.server.Count("v3.WRITE")+1)
	b.server.Restart()
	<-came
	_ = f.Close()
	if _, err := b.client.Tree().Stat(t.Context(), "/export/disk.img", true); err != nil {
		t.Error(err)
	}
}

// staleHandle is one that the server knows no more.
func (b *bench) staleHandle() handle {
	fh := handle(b.server.Create("/export/gone", nil).Handle())
	b.server.Remove("/export/gone")
	return fh
}

// A handle that the server knows no more is looked up again, if it is still the same
// file.
func TestStaleHandles(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	stale := b.staleHandle()
	f := b.open(pattern(8192, 1), remote.OpenOptions{Write: true})
	calls := map[string]func() error{
		"read": func() error { _, err := f.Read(t.Context(), make([]byte, 100), 0); return err },
		"write": func() error {
			_, err := f.Write(t.Context(), make([]byte, 100), 0, false)
			return err
		},
		"commit":     func() error { _, err := f.Commit(t.Context()); return err },
		"attributes": func() error { _, err := f.Attr(t.Context()); return err },
		"truncate":   func() error { return f.Truncate(t.Context(), 8192) },
	}
	for name, call := range calls {
		f.handle.Store(&stale)
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.client.roots[0].fh = stale
		f.handle.Store(&stale)
		if err := call(); err != nil {
			t.Errorf("%s with a stale root: %v", name, err)
		}
	}
	b.server.Fail("v3.READ", uint32(nfsstat.Stale), 1)
	if err := calls["read"](); statusOf(err) != nfsstat.Stale {
		t.Errorf("a server that gives the same handle again: %v", err)
	}
	b.server.Remove("/export/disk.img")
	for name, call := range calls {
		if err := call(); !errors.Is(err, block.IO) || errors.Is(err, block.NotFound) || !strings.Contains(err.Error(), "removed") {
			t.Errorf("%s of a removed file: %v", name, err)
		}
	}
	b.server.Create("/export/disk.img", nil)
	for name, call := range calls {
		if err := call(); !errors.Is(err, block.IO) || !strings.Contains(err.Error(), "replaced") {
			t.Errorf("%s of a replaced file: %v", name, err)
		}
	}
}

// Time that the server asks for is given, up to the patience.
func TestLater(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	b.server.Fail("v3.WRITE", uint32(nfsstat.Delay), 2)
	b.write(f, pattern(4096, 9), 0, false)
	b.server.Fail("v3.LOOKUP", uint32(nfsstat.Delay), 1)
	if _, err := b.client.Tree().Stat(t.Context(), "/export/disk.img", true); err != nil {
		t.Error(err)
	}
	b.server.Fail("v3.READ", uint32(nfsstat.Delay), -1)
	for i, end := range []func(cancel func()){
		func(cancel func()) { cancel() },
		func(func()) { _ = f.Close() }, // the last one
	} {
		ctx, cancel := context.WithCancel(t.Context())
		came := b.server.Arrived("v3.READ", b.server.Count("v3.READ")+1)
		ended := make(chan error)
		go func() {
			_, err := f.Read(ctx, make([]byte, 10), 0)
			ended <- err
		}()
		<-came
		end(cancel)
		if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, block.Closed) {
			t.Errorf("way %d to end it: %v", i, err)
		}
		cancel()
	}

	hasty := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 200 * time.Millisecond })
	g := hasty.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	hasty.server.Fail("*", uint32(nfsstat.Delay), -1)
	if _, err := g.Write(t.Context(), make([]byte, 10), 0, false); !errors.Is(err, block.Transient) {
		t.Errorf("a server that always asks for time: %v, want Transient", err)
	}
	if _, err := hasty.client.Tree().Stat(t.Context(), "/export", false); !errors.Is(err, block.Transient) {
		t.Errorf("a server that always asks for time: %v, want Transient", err)
	}
}

// Each status of each procedure is an error that says so, and neither hangs nor spoils
// what comes after.
func TestEveryStatus(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 10 * time.Millisecond })
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	ctx, tree := t.Context(), b.client.Tree().(tree)
	b.server.Symlink("disk.img", "/export/link")
	calls := map[string]func() error{
		"READ":        func() error { _, err := f.Read(ctx, make([]byte, 16), 0); return err },
		"WRITE":       func() error { _, err := f.Write(ctx, make([]byte, 16), 0, false); return err },
		"COMMIT":      func() error { _, err := f.Commit(ctx); return err },
		"GETATTR":     func() error { _, err := f.Attr(ctx); return err },
		"SETATTR":     func() error { return f.Truncate(ctx, 8192) },
		"LOOKUP":      func() error { _, err := tree.Stat(ctx, "/export/disk.img", false); return err },
		"READLINK":    func() error { _, err := tree.Stat(ctx, "/export/link", true); return err },
		"CREATE":      func() error { return tree.Create(ctx, "/export/new", remote.SetAttr{}) },
		"MKDIR":       func() error { return tree.MakeDir(ctx, "/export/dir", 0o755) },
		"REMOVE":      func() error { return tree.Remove(ctx, "/export/disk.img") },
		"RENAME":      func() error { return tree.Rename(ctx, "/export/disk.img", "/export/x") },
		"LINK":        func() error { return tree.Link(ctx, "/export/disk.img", "/export/x") },
		"READDIRPLUS": func() error { _, err := tree.List(ctx, "/export"); return err },
		"FSSTAT":      func() error { _, _, err := tree.Space(ctx, "/export"); return err },
		"FSINFO":      func() error { _, err := b.client.Open(ctx, "/export/disk.img", remote.OpenOptions{}); return err },
		"ACCESS":      func() error { _, err := b.client.Open(ctx, "/export/disk.img", remote.OpenOptions{}); return err },
	}
	for op, call := range calls {
		for _, status := range []nfsstat.Status{
			1, 2, 5, 6, 13, 17, 18, 19, 20, 21, 22, 27, 28, 30, 31, 63, 66, 69, 70, 71,
			10001, 10002, 10003, 10004, 10005, 10006, 10007, 10008, 4711, 1 << 31,
		} {
			b.server.Fail("v3."+op, uint32(status), -1)
			err := call()
			b.server.Honest()
			switch {
			case (op == "ACCESS" || op == "CREATE") && status == nfsstat.NotSupp, op == "READDIRPLUS" && status == nfsstat.NotSupp:
			case op == "READDIRPLUS" && (status == nfsstat.NotSync || status == nfsstat.BadCookie):
				if !errors.Is(err, block.Transient) {
					t.Errorf("%s %v: %v", op, status, err)
				}
			case statusOf(err) != status || !strings.Contains(err.Error(), op):
				t.Errorf("%s %v: %v", op, status, err)
			}
		}
	}
	b.write(f, pattern(4096, 9), 0, false)
}

// With no server, calls fail when patience is over, and work again when it is back.
func TestAway(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 50 * time.Millisecond })
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	b.server.Stop()
	var lost *rpc.LostError
	if _, err := f.Read(t.Context(), make([]byte, 10), 0); !errors.As(err, &lost) || !errors.Is(err, block.Transient) {
		t.Errorf("%v", err)
	}
	for b.client.Status().Connected > 0 {
		runtime.Gosched()
	}
	if st := b.client.Status(); st.Away.IsZero() || st.Cause == nil || st.Losses != 2 {
		t.Errorf("%+v", st)
	}
	if err := b.server.Resume(); err != nil {
		t.Fatal(err)
	}
	for b.client.Status().Connected < 2 {
		runtime.Gosched()
	}
	if st := b.client.Status(); !st.Away.IsZero() || st.Cause != nil {
		t.Errorf("%+v", st)
	}
	b.write(f, pattern(4096, 9), 0, false)
}

// Callers that leave give their slot back when the reply comes; their memory is not
// touched any more.
func TestCallersLeave(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(pattern(8192, 1), remote.OpenOptions{Write: true})
	answer := make(chan struct{})
	b.server.Delay("v3.READ", answer)
	b.server.Delay("v3.WRITE", answer)
	ctx, cancel := context.WithCancel(t.Context())
	came := b.server.Arrived("v3.READ", b.server.Count("v3.READ")+maxSlots-1)
	var all sync.WaitGroup
	for range maxSlots - 1 {
		all.Go(func() {
			p := make([]byte, 4096)
			if _, err := f.Read(ctx, p, 0); !errors.Is(err, context.Canceled) || !bytes.Equal(p, make([]byte, 4096)) {
				t.Error(err)
			}
		})
	}
	<-came
	wrote := b.server.Arrived("v3.WRITE", b.server.Count("v3.WRITE")+1)
	change := make(chan error)
	go func() { // what was sent and changes something has to be waited for
		_, err := f.Write(ctx, pattern(4096, 7), 4096, false)
		change <- err
	}()
	<-wrote
	cancel()
	all.Wait()
	close(answer)
	if err := <-change; err != nil {
		t.Error(err)
	}
	b.server.Honest()
	if !bytes.Equal(b.read(f, 4096, 4096), pattern(4096, 7)) {
		t.Error("the write was not carried out")
	}
}

// Close ends what is under way, whatever the server does.
func TestCloseInUse(t *testing.T) {
	for name, change := range map[string]func(b *bench, never <-chan struct{}){
		"hangs":     func(b *bench, never <-chan struct{}) { b.server.Delay("*", never) },
		"away":      func(b *bench, _ <-chan struct{}) { b.server.Stop() },
		"reviving":  func(b *bench, never <-chan struct{}) { b.server.Delay("v3.COMMIT", never); b.server.Restart() },
		"restarted": func(b *bench, _ <-chan struct{}) { b.server.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			never := make(chan struct{})
			b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = -1 })
			t.Cleanup(func() { close(never) })
			f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true, Kept: &journal{}})
			hold := make(chan struct{})
			t.Cleanup(func() { close(hold) })
			b.server.Delay("v3.READ", hold)
			came := b.server.Arrived("v3.READ", 1)
			ended := make(chan error)
			go func() {
				_, err := f.Read(context.Background(), make([]byte, 10), 0)
				ended <- err
			}()
			<-came
			change(b, never)
			if err := b.client.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, block.Closed) {
				t.Error(err)
			}
		})
	}
}
