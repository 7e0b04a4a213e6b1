package nbd_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a Device in memory that notes every call and can be told to fail, to
// wait, or to tell what it likes. Its powers are what info.Caps says.
type disk struct {
	info block.Info

	// before runs before a call does its work; an error is its result.
	before func(c call) error

	extents func(off, n int64, dst []block.Extent) []block.Extent
	bitmaps []string
	nowait  bool // ReadNowait answers; otherwise it would block

	mu    sync.Mutex
	data  []byte
	calls []call
}

// call is what a Device was asked.
type call struct {
	op    string
	off   int64
	n     int64
	flags block.Flags
}

const diskCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapDiscard | block.CapExtents | block.CapDepth |
	block.CapPrefetch | block.CapMultiConn

func newDisk(size int64, caps block.Cap) *disk {
	return &disk{
		info: block.Info{Size: size, Block: block.BlockSize{Min: 1, Preferred: 4096}, Caps: caps},
		data: make([]byte, size),
	}
}

func (d *disk) enter(op string, off, n int64, flags block.Flags) error {
	c := call{op, off, n, flags}
	d.mu.Lock()
	d.calls = append(d.calls, c)
	before := d.before
	d.mu.Unlock()
	if err := block.CheckRange(d.info, op, off, n); err != nil {
		return err
	}
	if before != nil {
		return before(c)
	}
	return nil
}

// forget drops the calls so far.
func (d *disk) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = d.calls[:0]
}

// hold makes calls of one kind wait until the channel is closed.
func (d *disk) hold(op string) chan struct{} {
	release := make(chan struct{})
	d.setBefore(func(c call) error {
		if c.op == op {
			<-release
		}
		return nil
	})
	return release
}

// setBefore changes the hook while the device is served.
func (d *disk) setBefore(before func(c call) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// change changes the content while the device is served.
func (d *disk) change(fn func(data []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d.data)
}

// content is a copy of n bytes at off.
func (d *disk) content(off, n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data[off : off+n])
}

// took returns the calls so far but those to look at extents.
func (d *disk) took(ops ...string) []call {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []call
	for _, c := range d.calls {
		for _, op := range ops {
			if c.op == op {
				list = append(list, c)
			}
		}
	}
	return list
}

func (d *disk) Info() block.Info { return d.info }
func (d *disk) Close() error     { return nil }

func (d *disk) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p)), 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.data[off:])
	return nil
}

func (d *disk) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	if err := d.enter("write", off, int64(len(p)), flags); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], p)
	return nil
}

func (d *disk) Flush(context.Context) error { return d.enter("flush", 0, 0, 0) }

func (d *disk) WriteZeroes(_ context.Context, off, n int64, flags block.Flags) error {
	if err := d.enter("zero", off, n, flags); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

func (d *disk) Discard(_ context.Context, off, n int64, flags block.Flags) error {
	return d.enter("discard", off, n, flags)
}

func (d *disk) Prefetch(_ context.Context, off, n int64) error {
	return d.enter("prefetch", off, n, 0)
}

func (d *disk) ReadNowait(p []byte, off int64) error {
	if !d.nowait {
		return block.ErrWouldBlock
	}
	return d.ReadAt(context.Background(), p, off)
}

func (d *disk) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := d.enter("extents", off, n, 0); err != nil {
		return dst, err
	}
	d.mu.Lock()
	extents := d.extents
	d.mu.Unlock()
	if extents != nil {
		return extents(off, n, dst), nil
	}
	return append(dst, block.Extent{Len: n, Depth: 1}), nil
}

func (d *disk) Bitmaps() []string { return d.bitmaps }

// BitmapExtents tells that every other 64 KiB is dirty, the first included;
// every further bitmap the other way round.
func (d *disk) BitmapExtents(_ context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	phase := int64(0)
	for i, b := range d.bitmaps {
		if b == name {
			phase = int64(i)
		}
	}
	for n > 0 && len(dst) < cap(dst) {
		step := min(n, 64<<10-off%(64<<10))
		e := block.Extent{Len: step}
		if (off/(64<<10)+phase)%2 == 0 {
			e.State = block.Dirty
		}
		dst = append(dst, e)
		off, n = off+step, n-step
	}
	return dst, nil
}

// layout makes an extents function of runs that repeat from the start.
func layout(runs ...block.Extent) func(off, n int64, dst []block.Extent) []block.Extent {
	return func(off, n int64, dst []block.Extent) []block.Extent {
		at := int64(0)
		for _, r := range runs {
			end := at + r.Len
			if end > off && n > 0 && len(dst) < cap(dst) {
				e := r
				e.Len = min(end-off, n)
				dst = append(dst, e)
				off, n = off+e.Len, n-e.Len
			}
			at = end
		}
		return dst
	}
}

// testServer is a server on a unix socket, closed with the test.
type testServer struct {
	*nbd.Server
	addr    net.Addr
	exports *nbd.Exports
	done    chan error // what Serve returned
}

// listenUnix listens in a folder of its own, whose path is short enough.
func listenUnix(t testing.TB) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveWith runs a server with a configuration and exports.
func serveWith(t testing.TB, cfg nbd.ServerConfig, exports ...*nbd.Export) *testServer {
	t.Helper()
	return serveOn(t, listenUnix(t), cfg, exports...)
}

func serveOn(t testing.TB, l net.Listener, cfg nbd.ServerConfig, exports ...*nbd.Export) *testServer {
	t.Helper()
	s := &testServer{addr: l.Addr(), exports: new(nbd.Exports), done: make(chan error, 1)}
	for _, x := range exports {
		if err := s.exports.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.Catalog == nil {
		cfg.Catalog = s.exports
	}
	s.Server = nbd.NewServer(cfg)
	go func() { s.done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-s.done
	})
	return s
}

// serveDevice serves one device as the default export.
func serveDevice(t testing.TB, dev block.Device) *testServer {
	t.Helper()
	return serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: dev})
}

// newMem is a RAM disk that ends with the test.
func newMem(t testing.TB, size int64) *mem.Device {
	t.Helper()
	d, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// serverTest is a subtest of TestServer. Its name begins with the number in
// CHECKLIST.md.
type serverTest struct {
	name string
	run  func(t *testing.T)
}

func serverTests() [][]serverTest {
	return [][]serverTest{
		sessionTests, optionTests, tlsTests, commandTests, replyTests, sizeTests, extendedTests, contextTests, multiTests,
	}
}

func TestServer(t *testing.T) {
	for _, group := range serverTests() {
		for _, st := range group {
			t.Run(st.name, st.run)
		}
	}
}

// inModes runs a subtest with each form of replies.
func inModes(t *testing.T, run func(t *testing.T, mode rawMode)) {
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) { run(t, mode) })
	}
}

// waitFor waits until a condition that another goroutine brings about holds.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(rawTimeout); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
