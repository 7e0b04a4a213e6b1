package nfs

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/block"
	"sluice/block/blocktest"
)

// server is an NFS server of the test. What its files hold lies in CrashDevices, so
// that a restart loses what was not committed. A call holds calls for reading: a
// restart comes between calls, and those that come are parked until it has restored
// what was kept.
type server struct {
	calls sync.RWMutex

	mu         sync.Mutex
	nodes      map[string]*node
	verifier   remote.Verifier
	open       map[*fakeFile]struct{}
	clients    int // made and not closed
	commits    int
	changes    int // for every
	writeCalls int
	inode      uint64
	denied     map[*node]bool

	limits remote.Limits
	short  int // longest that a single READ or WRITE does; 0: all
	// every, if not 0, restarts the server before each so-many-th call that writes.
	every int
	rng   *rand.Rand

	// on, if set, is asked before each call by the name of its procedure.
	on func(op string) error
}

type node struct {
	attr remote.Attr
	data *blocktest.CrashDevice // regular files
	to   string                 // symbolic links
}

var fakeLimits = remote.Limits{Read: 64 << 10, Write: 32 << 10, Seek: true, Allocate: true, Copy: true}

func newServer() *server {
	s := &server{nodes: map[string]*node{}, verifier: 7, open: map[*fakeFile]struct{}{}, limits: fakeLimits, denied: map[*node]bool{}}
	s.put("/", remote.Directory)
	s.put("/images", remote.Directory)
	return s
}

func (s *server) put(name string, t remote.Type) *node {
	s.inode++
	n := &node{attr: remote.Attr{Type: t, Links: 1, Mode: 0o644, ID: remote.FileID{ID: s.inode}, ModTime: time.Unix(1e9, 0)}}
	if t == remote.Regular {
		n.data = blocktest.NewCrashDevice(0, 1)
	}
	s.nodes[name] = n
	return n
}

// file makes a file that holds that.
func (s *server) file(name string, content []byte) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.put(name, remote.Regular)
	n.data = blocktest.NewCrashDeviceFrom(content, 1)
	return n
}

// pool gives clients of the server.
func (s *server) pool() *pool {
	return &pool{dial: func(context.Context, *Config) (remote.Client, error) {
		if err := s.ask("DIAL"); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.clients++
		return &fakeClient{s}, nil
	}}
}

func (s *server) ask(op string) error {
	if s.on != nil {
		return s.on(op)
	}
	return nil
}

// survivors is a server with what a crash of this one and its clients has left.
func (s *server) survivors() *server {
	s.calls.Lock()
	defer s.calls.Unlock()
	after := newServer()
	after.limits, after.short, after.every, after.rng, after.verifier = s.limits, s.short, s.every, s.rng, s.verifier+1
	for name, n := range s.nodes {
		copied := *n
		if n.data != nil {
			copied.data = n.data.Crash(s.rng)
		}
		after.nodes[name] = &copied
	}
	return after
}

// restart loses what is not durable; the clients restore what they have kept.
func (s *server) restart() error {
	s.calls.Lock()
	defer s.calls.Unlock()
	s.lose()
	s.verifier++
	var failed error
	for f := range s.open {
		if f.opts.Kept != nil {
			failed = errors.Join(failed, f.opts.Kept.Restore(context.Background(), rawFake{f}))
		}
	}
	return failed
}

// reconnect is what the loss of connections alone looks like, to clients that cannot
// tell it from a restart; lost says that it was one.
func (s *server) reconnect(lost bool) error {
	s.calls.Lock()
	defer s.calls.Unlock()
	if lost {
		s.lose()
		s.verifier++
	}
	var failed error
	for f := range s.open {
		if f.opts.Kept != nil {
			failed = errors.Join(failed, f.opts.Kept.Verify(context.Background(), rawFake{f}))
		}
	}
	return failed
}

// forget loses what is not durable without a word but the verifier's.
func (s *server) forget() {
	s.calls.Lock()
	defer s.calls.Unlock()
	s.lose()
	s.verifier++
}

func (s *server) lose() {
	for _, n := range s.nodes {
		if n.data != nil {
			n.data = n.data.Crash(s.rng)
		}
	}
}

func (s *server) count(counter *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
	return *counter
}

func (s *server) counted(counter *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *counter
}

func refusal(op string, status nfsstat.Status) error { return &nfsstat.Error{Op: op, Status: status} }

// find gives what has a name; links on the way are not followed.
func (s *server) find(name string, follow bool) (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[path.Clean(name)]
	for i := 0; follow && n != nil && n.attr.Type == remote.Symlink && i < 40; i++ {
		n = s.nodes[n.to]
	}
	if n == nil {
		return nil, refusal("LOOKUP", nfsstat.NoEnt)
	}
	return n, nil
}

func (n *node) now() remote.Attr {
	a := n.attr
	if n.data != nil {
		a.Size = n.data.Info().Size
	}
	return a
}

type fakeClient struct{ s *server }

func (c *fakeClient) Open(_ context.Context, name string, opts remote.OpenOptions) (remote.File, error) {
	s := c.s
	if err := s.ask("OPEN"); err != nil {
		return nil, err
	}
	n, err := s.find(name, true)
	if err != nil {
		return nil, err
	}
	if n.attr.Type != remote.Regular {
		return nil, block.Errorf(block.Invalid, "", "", -1, "not a regular file")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if opts.Write && s.denied[n] {
		return nil, refusal("OPEN", nfsstat.ShareDenied)
	}
	f := &fakeFile{s: s, n: n, opts: opts, deny: opts.Write && !opts.Share}
	if f.deny {
		s.denied[n] = true
	}
	s.open[f] = struct{}{}
	return f, nil
}

func (c *fakeClient) Tree() remote.Tree { return fakeTree(*c) }
func (c *fakeClient) Status() remote.Status {
	return remote.Status{Version: "4.2", Connected: 1, Wanted: 1}
}
func (c *fakeClient) Close() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.clients--
	return nil
}

type fakeFile struct {
	s    *server
	n    *node
	opts remote.OpenOptions
	deny bool

	mu     sync.Mutex
	closed bool
}

// begin lets a call in, which ends with s.calls.RUnlock.
func (f *fakeFile) begin(op string) error {
	changes := op == "WRITE" || op == "DEALLOCATE"
	if n := f.s.every; n != 0 && changes && f.s.count(&f.s.changes)%n == 0 {
		if err := f.s.restart(); err != nil {
			return err
		}
	}
	if err := f.s.ask(op); err != nil {
		return err
	}
	f.s.calls.RLock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		f.s.calls.RUnlock()
		return block.Closed
	}
	return nil
}

func (f *fakeFile) Limits() remote.Limits { return f.s.limits }

func (s *server) cut(n int) int {
	if s.short > 0 {
		return min(n, s.short)
	}
	return n
}

var background = context.Background()

func (f *fakeFile) Read(_ context.Context, p []byte, off int64) (int, error) {
	if err := f.begin("READ"); err != nil {
		return 0, err
	}
	defer f.s.calls.RUnlock()
	n := min(int64(f.s.cut(min(len(p), f.s.limits.Read))), max(f.n.data.Info().Size-off, 0))
	return int(n), f.n.data.ReadAt(background, p[:n], min(off, f.n.data.Info().Size))
}

func (f *fakeFile) Write(_ context.Context, p []byte, off int64, stable bool) (remote.Written, error) {
	if err := f.begin("WRITE"); err != nil {
		return remote.Written{}, err
	}
	defer f.s.calls.RUnlock()
	f.s.count(&f.s.writeCalls)
	return rawFake{f}.write(p[:f.s.cut(min(len(p), f.s.limits.Write))], off, stable)
}

func (f *fakeFile) Commit(ctx context.Context) (remote.Verifier, error) {
	if err := f.begin("COMMIT"); err != nil {
		return 0, err
	}
	defer f.s.calls.RUnlock()
	f.s.count(&f.s.commits)
	return rawFake{f}.Commit(ctx)
}

func (f *fakeFile) Attr(context.Context) (remote.Attr, error) {
	if err := f.begin("GETATTR"); err != nil {
		return remote.Attr{}, err
	}
	defer f.s.calls.RUnlock()
	return f.n.now(), nil
}

func (f *fakeFile) Truncate(_ context.Context, size int64) error {
	if err := f.begin("SETATTR"); err != nil {
		return err
	}
	defer f.s.calls.RUnlock()
	return errors.Join(f.n.data.Resize(background, size), f.n.data.Flush(background))
}

func (f *fakeFile) Close() error {
	f.s.calls.Lock() // waits for the calls under way
	defer f.s.calls.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.deny && !f.closed {
		delete(f.s.denied, f.n)
	}
	f.closed = true
	delete(f.s.open, f)
	return nil
}

func (f *fakeFile) Seek(_ context.Context, off int64, hole bool) (at int64, end bool, err error) {
	if err := f.begin("SEEK"); err != nil {
		return 0, false, err
	}
	defer f.s.calls.RUnlock()
	size := f.n.data.Info().Size
	if off >= size {
		return 0, false, refusal("SEEK", nfsstat.NXIO)
	}
	for off < size {
		e, err := f.n.data.Extents(background, off, size-off, make([]block.Extent, 0, 1))
		if err != nil {
			return 0, false, err
		}
		if (e[0].State&block.Hole != 0) == hole {
			return off, false, nil
		}
		off += e[0].Len
	}
	return size, true, nil
}

func (f *fakeFile) Allocate(_ context.Context, off, n int64) error {
	if err := f.begin("ALLOCATE"); err != nil {
		return err
	}
	defer f.s.calls.RUnlock()
	return f.n.data.WriteZeroes(background, off, n, 0) // for new files
}

func (f *fakeFile) Deallocate(ctx context.Context, off, n int64) error {
	if err := f.begin("DEALLOCATE"); err != nil {
		return err
	}
	defer f.s.calls.RUnlock()
	_, err := rawFake{f}.Zero(ctx, off, n)
	return err
}

// rawFake reaches the file while calls are parked.
type rawFake struct{ f *fakeFile }

func (r rawFake) write(p []byte, off int64, stable bool) (remote.Written, error) {
	data := r.f.n.data
	if end := off + int64(len(p)); end > data.Info().Size {
		if err := data.Resize(background, end); err != nil {
			return remote.Written{}, err
		}
	}
	flags := block.Flags(0)
	if stable {
		flags = block.FUA
	}
	return remote.Written{N: len(p), Durable: stable, Verifier: r.f.s.verifier}, data.WriteAt(background, p, off, flags)
}

func (r rawFake) Write(_ context.Context, p []byte, off int64) (remote.Written, error) {
	if err := r.f.s.ask("RAW WRITE"); err != nil {
		return remote.Written{}, err
	}
	return r.write(p[:r.f.s.cut(len(p))], off, false)
}

func (r rawFake) Zero(_ context.Context, off, n int64) (remote.Verifier, error) {
	return r.f.s.verifier, r.f.n.data.WriteZeroes(background, off, n, block.MayUnmap)
}

func (r rawFake) Commit(context.Context) (remote.Verifier, error) {
	return r.f.s.verifier, r.f.n.data.Flush(background)
}

// fakeTree is the name space.
type fakeTree fakeClient

func (t fakeTree) Stat(_ context.Context, name string, follow bool) (remote.Attr, error) {
	n, err := t.s.find(name, follow)
	if err != nil {
		return remote.Attr{}, err
	}
	return n.now(), nil
}

func (t fakeTree) List(_ context.Context, dir string) ([]remote.Entry, error) {
	if n, err := t.s.find(dir, true); err != nil || n.attr.Type != remote.Directory {
		return nil, errors.Join(err, refusal("READDIR", nfsstat.NotDir))
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	list := []remote.Entry{{Name: "../evil"}}
	for name, n := range t.s.nodes {
		if name != "/" && path.Dir(name) == path.Clean(dir) {
			list = append(list, remote.Entry{Name: path.Base(name), Attr: n.now()})
		}
	}
	return list, nil
}

func (t fakeTree) Create(_ context.Context, name string, set remote.SetAttr) error {
	if err := t.s.ask("CREATE"); err != nil {
		return err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.nodes[name] != nil {
		return refusal("CREATE", nfsstat.Exist)
	}
	if t.s.nodes[path.Dir(name)] == nil {
		return refusal("CREATE", nfsstat.NoEnt)
	}
	n := t.s.put(name, remote.Regular)
	n.data = blocktest.NewCrashDevice(*set.Size, 1)
	n.attr.Mode = *set.Mode
	return nil
}

func (t fakeTree) Remove(_ context.Context, name string) error {
	if err := t.s.ask("REMOVE"); err != nil {
		return err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.nodes[name] == nil {
		return refusal("REMOVE", nfsstat.NoEnt)
	}
	delete(t.s.nodes, name)
	return nil
}

func (t fakeTree) Rename(_ context.Context, from, to string) error {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	n := t.s.nodes[from]
	if n == nil {
		return refusal("RENAME", nfsstat.NoEnt)
	}
	delete(t.s.nodes, from)
	t.s.nodes[to] = n
	return nil
}

func (t fakeTree) Link(_ context.Context, from, to string) error {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	switch {
	case t.s.nodes[from] == nil:
		return refusal("LINK", nfsstat.NoEnt)
	case t.s.nodes[to] != nil:
		return refusal("LINK", nfsstat.Exist)
	}
	t.s.nodes[to] = t.s.nodes[from]
	return nil
}

func (t fakeTree) Set(_ context.Context, name string, set remote.SetAttr) error {
	n, err := t.s.find(name, true)
	if err != nil {
		return err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if set.Mode != nil {
		n.attr.Mode = *set.Mode
	}
	if set.UID != nil {
		n.attr.UID = *set.UID
	}
	if set.GID != nil {
		n.attr.GID = *set.GID
	}
	return nil
}

func (t fakeTree) Space(context.Context, string) (total, free int64, err error) { return 100, 40, nil }

// says reports whether an error has all of the words.
func says(err error, words ...string) bool {
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			return false
		}
	}
	return true
}

func (f *fakeFile) Clone(_ context.Context, from remote.File, fromOff, off, n int64) error {
	if err := f.begin("CLONE"); err != nil {
		return err
	}
	defer f.s.calls.RUnlock()
	_, err := f.duplicate(from, fromOff, off, n)
	return err
}

func (f *fakeFile) Copy(_ context.Context, from remote.File, fromOff, off, n int64) (int64, remote.Written, error) {
	if err := f.begin("COPY"); err != nil {
		return 0, remote.Written{}, err
	}
	defer f.s.calls.RUnlock()
	n = int64(f.s.cut(int(n)))
	w, err := f.duplicate(from, fromOff, off, n)
	return n, w, err
}

func (f *fakeFile) duplicate(from remote.File, fromOff, off, n int64) (remote.Written, error) {
	p := make([]byte, n)
	if err := from.(*fakeFile).n.data.ReadAt(background, p, fromOff); err != nil {
		return remote.Written{}, err
	}
	return rawFake{f}.write(p, off, false)
}
