package v4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/nfstest"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// nth makes the server do something to the n-th of an operation that comes from now on.
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
	ctx, tree := b.Context(), b.client.Tree()
	name := func(s string) string { return fmt.Sprintf("/export/%s-%d", s, round) }
	must := func(what string, err error) {
		b.Helper()
		if err != nil {
			b.Errorf("%s: %v", what, err)
		}
	}
	must("create", tree.Create(ctx, name("a"), remote.SetAttr{}))
	must("link", tree.Link(ctx, name("a"), name("b")))
	must("rename", tree.Rename(ctx, name("a"), name("c")))
	f, err := b.client.Open(ctx, name("c"), remote.OpenOptions{Write: true})
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
	must("close", f.Close())
	must("remove", tree.Remove(ctx, name("b")))
	must("remove", tree.Remove(ctx, name("c")))
	for _, s := range []string{"a", "b", "c"} {
		if b.server.Exists(name(s)) {
			b.Errorf("%s is still there", s)
		}
	}
}

var everyOp = []string{
	"OPEN", "CLOSE", "READ", "WRITE", "COMMIT", "GETATTR", "SETATTR", "LOOKUP", "REMOVE", "RENAME", "LINK", "GETFH", "SEEK", "DEALLOCATE", "SEQUENCE",
}

// The connection breaks before and after each operation, in the middle of its reply, and
// its reply comes twice, late or never.
func TestCutsAnywhere(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Connections, c.Silence = 1, 60*time.Millisecond })
	round := 0
	for _, op := range everyOp {
		for name, action := range map[string]nfstest.Action{
			"before":   {CutBefore: true},
			"after":    {CutAfter: true},
			"middle":   {CutAt: 30},
			"no reply": {Drop: true},
			"twice":    {Twice: true},
			"bytes":    {Frame: nfstest.FrameBytes},
			"huge":     {Frame: nfstest.FrameHuge},
			"half":     {Frame: nfstest.FrameTruncated},
		} {
			t.Run(op+" "+name, func(t *testing.T) {
				if name == "huge" {
					return // an error of the server's: see TestHostileReplies
				}
				if name == "before" && slices.Contains([]string{"OPEN", "REMOVE", "RENAME", "LINK"}, op) {
					return // no server keeps a reply without having done it
				}
				inner := &bench{T: t, server: b.server, client: b.client}
				inner.nth(op, 1, action)
				round++
				inner.session(round)
				b.server.Honest()
			})
		}
	}
}

// The server forgets the session, or all of the client, before each call of a series.
func TestServerForgetsAnywhere(t *testing.T) {
	for name, forget := range map[string]func(*nfstest.Server){
		"session": (*nfstest.Server).DropSessions,
		"leases":  (*nfstest.Server).ExpireLeases,
	} {
		b := start(t, nfstest.Options{}, nil)
		for n := 1; n <= 30; n++ {
			t.Run(fmt.Sprintf("%s at call %d", name, n), func(t *testing.T) {
				left := n
				var mu sync.Mutex
				b.server.Hook(func(op string, _ []byte) nfstest.Action {
					mu.Lock()
					defer mu.Unlock()
					if op == "COMPOUND" {
						if left--; left == 0 {
							forget(b.server)
						}
					}
					return nfstest.Action{}
				})
				(&bench{T: t, server: b.server, client: b.client}).session(n)
				b.server.Honest()
			})
		}
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
		if _, err := raw.Write(ctx, p, off); err != nil {
			return err
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
	for _, grace := range []bool{false, true} {
		t.Run(fmt.Sprintf("grace %v", grace), func(t *testing.T) {
			b := start(t, nfstest.Options{Grace: grace}, nil)
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
				<-b.server.Arrived("WRITE", b.server.Count("WRITE")+40)
				b.server.Restart()
				all.Wait()
			}
			if j.restored == 0 {
				t.Error("nothing was ever restored")
			}
			if b.client.Status().Recoveries == 0 {
				t.Error("no recovery is told")
			}
		})
	}
}

// Another client takes the file while the server had lost our state: ours ends, and
// says why.
func TestFileTakenMeanwhile(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 4096), remote.OpenOptions{Write: true})
	b.server.Restart()
	b.server.Fail("OPEN", uint32(nfsstat.NoGrace), 1)
	b.server.Fail("OPEN", uint32(nfsstat.ShareDenied), 1)
	_, err := f.Write(t.Context(), make([]byte, 4096), 0, false)
	if !errors.Is(err, block.Fenced) || !strings.Contains(err.Error(), "another client") {
		t.Errorf("write: %v, want Fenced", err)
	}
	if _, err := f.Read(t.Context(), make([]byte, 4096), 0); !errors.Is(err, block.Fenced) {
		t.Errorf("read: %v, want Fenced", err)
	}
}

func TestRevokedFilesAreOpenedAgain(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	for _, status := range []nfsstat.Status{
		nfsstat.BadStateID, nfsstat.OldStateID, nfsstat.StaleStateID, nfsstat.Expired, nfsstat.AdminRevoked, nfsstat.DelegRevoked,
	} {
		opens := b.server.Count("OPEN")
		b.server.Fail("WRITE", uint32(status), 1)
		b.write(f, pattern(4096, 9), 0, false)
		if b.server.Count("OPEN") != opens+1 {
			t.Errorf("%v: opened %d times", status, b.server.Count("OPEN")-opens)
		}
	}
	b.server.Revoke("/export/disk.img")
	b.write(f, pattern(4096, 10), 4096, false)
	if !bytes.Equal(b.read(f, 4096, 4096), pattern(4096, 10)) {
		t.Error("a write was lost")
	}
}

// Time that the server asks for is given, up to the patience.
func TestDelayAndGrace(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	for _, op := range []string{"SEQUENCE", "WRITE", "PUTFH"} {
		for _, status := range []nfsstat.Status{nfsstat.Delay, nfsstat.Grace} {
			b.server.Fail(op, uint32(status), 2)
			b.write(f, pattern(4096, 9), 0, false)
		}
	}
	b.server.Fail("EXCHANGE_ID", uint32(nfsstat.Delay), 1)
	b.server.Fail("CREATE_SESSION", uint32(nfsstat.Delay), 1)
	b.server.Restart()
	b.write(f, pattern(4096, 9), 0, false)

	hasty := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 200 * time.Millisecond })
	g := hasty.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	hasty.server.Fail("WRITE", uint32(nfsstat.Delay), -1)
	if _, err := g.Write(t.Context(), make([]byte, 10), 0, false); !errors.Is(err, block.Transient) {
		t.Errorf("a server that always asks for time: %v, want Transient", err)
	}
}

// Each status of each operation is an error that says so, and neither hangs nor spoils
// what comes after.
func TestEveryStatus(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 100 * time.Millisecond })
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	var all []uint32
	for s := uint32(1); s < 90; s++ {
		all = append(all, s)
	}
	for s := uint32(10001); s < 10100; s++ {
		all = append(all, s)
	}
	all = append(all, 4711, 1<<31)
	ctx := t.Context()
	for _, op := range []string{"SEQUENCE", "PUTFH", "READ", "WRITE", "COMMIT", "OPEN", "LOOKUP"} {
		for _, status := range all {
			b.server.Fail(op, status, 1)
			_, _ = f.Read(ctx, make([]byte, 16), 0)
			_, _ = f.Write(ctx, make([]byte, 16), 0, false)
			_, _ = f.Commit(ctx)
			if g, err := b.client.Open(ctx, "/export/disk.img", remote.OpenOptions{}); err == nil {
				_ = g.Close()
			} else if op == "LOOKUP" && !strings.Contains(err.Error(), "NFS") {
				t.Errorf("%s %d: %q does not say what the server said", op, status, err)
			}
			b.server.Honest()
			if f.failed() != nil { // its reopening was refused, as it was to be
				_ = f.Close()
				f = b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
			}
		}
	}
	if _, err := f.Write(ctx, pattern(4096, 7), 0, true); err != nil {
		t.Errorf("after all of it: %v", err)
	}
	if !bytes.Equal(b.server.File("/export/disk.img").Durable()[:4096], pattern(4096, 7)) {
		t.Error("and the bytes are not there")
	}
}

// Replies that make no sense are errors, not panics or hangs, and the next call works.
func TestHostileReplies(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) {
		c.Patience, c.Silence, c.Connections = 300*time.Millisecond, 200*time.Millisecond, 1
	})
	huge := xdr.AppendUint32(nil, 1<<31-1)
	tails := map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"one word":      func(p []byte) []byte { return p[:4] },
		"half":          func(p []byte) []byte { return p[:len(p)/2&^3] },
		"odd":           func(p []byte) []byte { return p[:len(p)-1] },
		"more":          func(p []byte) []byte { return append(slices.Clone(p), 1, 2, 3, 4) },
		"huge lengths":  func(p []byte) []byte { return append(slices.Clone(p[:8]), bytes.Repeat(huge, 8)...) },
		"ones":          func(p []byte) []byte { return append(slices.Clone(p[:8]), bytes.Repeat([]byte{255}, len(p))...) },
		"another op":    func(p []byte) []byte { return append([]byte{0, 0, 0, 77}, p[4:]...) },
		"another error": func(p []byte) []byte { return append(slices.Clone(p[:4]), 0xff, 0xff, 0xff, 0xff) },
	}
	ctx := t.Context()
	for _, op := range []string{"SEQUENCE", "PUTFH", "READ", "WRITE", "COMMIT", "OPEN", "GETATTR", "LOOKUP", "GETFH", "READDIR", "SEEK"} {
		for name, tail := range tails {
			f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
			b.nth(op, 1, nfstest.Action{Result: tail})
			_, _ = f.Read(ctx, make([]byte, 4096), 0)
			_, _ = f.Write(ctx, make([]byte, 4096), 0, false)
			_, _ = f.Commit(ctx)
			_, _, _ = f.Seek(ctx, 0, false)
			_, _ = b.client.Tree().List(ctx, "/export")
			if g, err := b.client.Open(ctx, "/export/disk.img", remote.OpenOptions{}); err == nil {
				_ = g.Close()
			}
			b.server.Honest()
			if _, err := b.client.Tree().Stat(ctx, "/export", true); err != nil {
				t.Errorf("after %s of %s: %v", name, op, err)
			}
			_ = f.Close()
		}
	}
	for name, action := range map[string]nfstest.Action{
		"wrong xid":         {WrongXID: true},
		"huge record":       {Frame: nfstest.FrameHuge},
		"empty fragments":   {Frame: nfstest.FrameEmpty},
		"not a reply":       {Raw: bytes.Repeat([]byte{0xff}, 64)},
		"noise":             {Wire: bytes.Repeat([]byte{0x80, 0, 0, 3, 1, 2, 3}, 50)},
		"program missing":   {Accept: 1},
		"version mismatch":  {Accept: 2},
		"garbage arguments": {Accept: 4},
		"system error":      {Accept: 5},
	} {
		b.nth("COMPOUND", 1, action)
		_, _ = b.client.Tree().Stat(ctx, "/export", true)
		b.server.Honest()
		if !eventually(func() bool { _, err := b.client.Tree().Stat(ctx, "/export", true); return err == nil }) {
			t.Errorf("after %s the client does not come back", name)
		}
	}
}

// eventually asks again for some seconds.
func eventually(ok func() bool) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if ok() {
			return true
		}
	}
	return false
}

// READ results that claim more, or other, than is there.
func TestShortAndLongPayloads(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = 300 * time.Millisecond })
	f := b.open(pattern(64<<10, 5), remote.OpenOptions{})
	for _, claim := range []uint32{0, 1, 4095, 4097, 65536, 1 << 30, 1<<32 - 1} {
		b.nth("READ", 1, nfstest.Action{Result: func(p []byte) []byte {
			q := slices.Clone(p)
			copy(q[12:], xdr.AppendUint32(nil, claim)) // number, status, eof, length
			return q
		}})
		p := make([]byte, 4096)
		n, err := f.Read(t.Context(), p, 0)
		if err == nil && (n > len(p) || n == 0) {
			t.Errorf("a claim of %d bytes: read %d", claim, n)
		}
		b.server.Honest()
		if !eventually(func() bool { n, err := f.Read(t.Context(), p, 0); return err == nil && n == 4096 }) {
			t.Fatalf("after a claim of %d bytes the client does not come back", claim)
		}
		if !bytes.Equal(p, pattern(64<<10, 5)[:4096]) {
			t.Error("other bytes")
		}
	}
}

// A server that goes on saying that it lost something does not keep us busy.
func TestStatusFlags(t *testing.T) {
	b := start(t, nfstest.Options{}, nil)
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	b.server.SetStatusFlags(flagExpiredSome)
	for range 100 {
		b.write(f, pattern(4096, 9), 0, false)
	}
	if n := b.server.Count("TEST_STATEID"); n > 5 {
		t.Errorf("asked %d times for what was revoked", n)
	}
}

func TestCloseWhileTheServerHangs(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = -1 })
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	hang := make(chan struct{})
	defer close(hang)
	b.server.Delay("WRITE", hang)
	arrived := b.server.Arrived("WRITE", b.server.Count("WRITE")+1)
	outcome := make(chan error, 1)
	go func() {
		_, err := f.Write(context.Background(), make([]byte, 4096), 0, false)
		outcome <- err
	}()
	<-arrived
	began := time.Now()
	_ = f.Close()
	if err := <-outcome; !errors.Is(err, block.Closed) {
		t.Errorf("the write ended with %v, want Closed", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

func TestCloseWhileTheServerIsAway(t *testing.T) {
	b := start(t, nfstest.Options{}, func(c *Config) { c.Patience = -1 })
	f := b.open(make([]byte, 8192), remote.OpenOptions{Write: true})
	b.server.Stop()
	outcome := make(chan error, 3)
	go func() {
		_, err := f.Write(context.Background(), make([]byte, 4096), 0, false)
		outcome <- err
	}()
	go func() {
		_, err := f.Read(context.Background(), make([]byte, 4096), 0)
		outcome <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := f.Read(ctx, make([]byte, 4096), 0)
		outcome <- err
	}()
	if !eventually(func() bool { return f.gate.Inside() == 3 }) {
		t.Fatal("the calls do not come")
	}
	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Errorf("the canceled read: %v", err)
	}
	if st := b.client.Status(); !eventually(func() bool { st = b.client.Status(); return !st.Away.IsZero() }) || st.Cause == nil {
		t.Errorf("status %+v", st)
	}
	began := time.Now()
	_ = f.Close()
	for range 2 {
		if err := <-outcome; !errors.Is(err, block.Closed) {
			t.Errorf("a call ended with %v, want Closed", err)
		}
	}
	_ = b.client.Close()
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// Callers that leave at any moment leave nothing behind that a later one trips over.
func TestCallersLeave(t *testing.T) {
	b := start(t, nfstest.Options{Limits: nfstest.Limits{Slots: 4}}, nil)
	f := b.open(make([]byte, 64<<10), remote.OpenOptions{Write: true})
	var all sync.WaitGroup
	for w := range 8 {
		rng := rand.New(rand.NewPCG(3, uint64(w)))
		all.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithCancel(context.Background())
				p := bytes.Repeat([]byte{0xee}, 4096)
				go func() { cancel() }()
				if rng.IntN(2) == 0 {
					_, _ = f.Read(ctx, p, int64(w)*8192+4096)
					// Whatever comes now must not land in p.
					copy(p, bytes.Repeat([]byte{0xaa}, 4096))
				} else {
					_, _ = f.Write(ctx, p, int64(w)*8192, false)
				}
				cancel()
				q := pattern(4096, byte(i))
				if _, err := f.Write(context.Background(), q, int64(w)*8192, false); err != nil {
					t.Error(err)
					return
				}
				r := make([]byte, 4096)
				if _, err := f.Read(context.Background(), r, int64(w)*8192); err != nil || !bytes.Equal(q, r) {
					t.Errorf("writer %d, step %d: other bytes came back: %v", w, i, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := b.client.Status().Recoveries; n != 0 {
		t.Errorf("%d recoveries, none was needed", n)
	}
}

// The client is closed while it writes again what a server lost that is away by now.
func TestCloseDuringRecovery(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{})
	s.Create("/export/disk.img", make([]byte, 8192))
	cfg := configOf(s)
	cfg.Patience = -1
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{writes: map[int64][]byte{}}
	f, err := c.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true, Kept: j})
	if err != nil {
		t.Fatal(err)
	}
	p := pattern(4096, 1)
	j.writing(p, 0)
	w, err := f.Write(t.Context(), p, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	j.wrote(w)
	hang := make(chan struct{})
	defer close(hang)
	s.Delay("WRITE", hang)
	again := s.Arrived("WRITE", s.Count("WRITE")+1)
	s.Restart()
	go func() { _, _ = f.Read(context.Background(), make([]byte, 4096), 0) }() // finds out
	<-again
	s.Stop()
	began := time.Now()
	_ = f.Close()
	_ = c.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
