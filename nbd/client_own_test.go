package nbd

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

// ownServer serves a device by this package's own server and gives the URI.
func ownServer(t testing.TB, dev block.Device) string {
	t.Helper()
	return ownServerOn(t, filepath.Join(t.TempDir(), "nbd.sock"), &Export{Device: dev})
}

func ownServerOn(t testing.TB, socket string, exports ...*Export) string {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ownServe(t, listener, exports...)
	return URI{Socket: socket}.String()
}

func ownServe(t testing.TB, listener net.Listener, exports ...*Export) {
	t.Helper()
	var catalog Exports
	for _, x := range exports {
		if err := catalog.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	server := NewServer(ServerConfig{Catalog: &catalog})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
}

func newRAM(t testing.TB, size int64) *mem.Device {
	t.Helper()
	dev, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// TestClientOnOwnServer runs the conformance suite over this package's client and
// server together, in each form of headers and with several connections.
func TestClientOnOwnServer(t *testing.T) {
	for name, cfg := range map[string]ClientConfig{
		"extended":   {},
		"structured": {NoExtended: true},
		"simple":     {NoStructured: true},
		"four":       {Connections: 4},
	} {
		var uri string
		open := func(t testing.TB) block.Device {
			c, err := Dial(background, uri, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		blocktest.Suite{Name: name, LooseZero: true, Reopen: open, Open: func(t testing.TB) block.Device {
			uri = ownServer(t, newRAM(t, blocktest.MinSize))
			return open(t)
		}}.Run(t)
	}
}

// TestClientTransports goes over TCP and over an abstract socket.
func TestClientTransports(t *testing.T) {
	for _, addr := range []string{"tcp 127.0.0.1:0", "unix @" + t.TempDir()} {
		network, address, _ := strings.Cut(addr, " ")
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		ownServe(t, listener, &Export{Name: "disk", Device: newRAM(t, 1<<20)})
		u := URI{Export: "disk"}
		switch a := listener.Addr().(type) {
		case *net.TCPAddr:
			u.Host, u.Port = a.IP.String(), uint16(a.Port)
		case *net.UnixAddr:
			u.Socket = "\x00" + a.Name[1:]
		}
		c, err := Dial(background, u.String(), ClientConfig{Connections: 2})
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFromGoNBD: a go-nbd backend is a Device like any other, and can be served.
func TestFromGoNBD(t *testing.T) {
	memory := func(t testing.TB) block.Device {
		dev, err := FromGoNBD(backend.NewMemoryBackend(make([]byte, 2<<20)))
		if err != nil {
			t.Fatal(err)
		}
		return dev
	}
	blocktest.Suite{Name: "alone", Open: memory}.Run(t)
	c, err := Dial(background, ownServer(t, memory(t)), ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// brokenBackend moves less than it should, and says nothing.
type brokenBackend struct{ backend.Backend }

func (brokenBackend) Size() (int64, error)                        { return 4096, nil }
func (brokenBackend) ReadAt(p []byte, _ int64) (n int, err error) { return len(p) - 1, nil }

func TestFromGoNBDShortRead(t *testing.T) {
	dev, err := FromGoNBD(brokenBackend{})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, dev.ReadAt(background, make([]byte, 512), 0), block.IO)
	wantKind(t, dev.WriteAt(background, make([]byte, 512), 0, block.FUA), block.Invalid)
}

// syncBackend counts Sync, which fails when told to.
type syncBackend struct {
	backend.Backend
	syncs atomic.Int64
	fails atomic.Bool
}

func (b *syncBackend) Sync() error {
	if b.syncs.Add(1); b.fails.Load() {
		return syscall.EIO
	}
	return b.Backend.Sync()
}

// TestFromGoNBDSyncs: each FLUSH, and each change with FUA, reaches the backend's
// Sync once before it is answered, and nothing else does. Its failure is told.
func TestFromGoNBDSyncs(t *testing.T) {
	b := &syncBackend{Backend: backend.NewMemoryBackend(make([]byte, 1<<20))}
	dev, err := FromGoNBD(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(background, ownServer(t, dev), ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, step := range []struct {
		name  string
		syncs int64
		do    func() error
	}{
		{"write", 0, func() error { return c.WriteAt(background, make([]byte, 512), 0, 0) }},
		{"flush", 1, func() error { return c.Flush(background) }},
		{"flush with nothing new", 1, func() error { return c.Flush(background) }},
		{"FUA write", 1, func() error { return c.WriteAt(background, make([]byte, 512), 0, block.FUA) }},
		{"FUA zeroes", 1, func() error { return c.WriteZeroes(background, 0, 4096, block.FUA) }},
		{"zeroes", 0, func() error { return c.WriteZeroes(background, 0, 4096, 0) }},
		{"read", 0, func() error { return c.ReadAt(background, make([]byte, 512), 0) }},
	} {
		was := b.syncs.Load()
		if err := step.do(); err != nil || b.syncs.Load()-was != step.syncs {
			t.Errorf("%s: %d calls of Sync, want %d; %v", step.name, b.syncs.Load()-was, step.syncs, err)
		}
	}
	b.fails.Store(true)
	wantKind(t, c.Flush(background), block.IO)
	wantKind(t, c.WriteAt(background, make([]byte, 512), 0, block.FUA), block.IO)
}

// BenchmarkClient reads and writes over a unix socket to this package's server.
func BenchmarkClient(b *testing.B) {
	uri := ownServer(b, newRAM(b, 64<<20))
	for _, bench := range []struct {
		name        string
		size, depth int
	}{{"4KiB/depth1", 4 << 10, 1}, {"4KiB/depth16", 4 << 10, 16}, {"1MiB/depth1", 1 << 20, 1}, {"1MiB/depth4", 1 << 20, 4}} {
		b.Run("read/"+bench.name, func(b *testing.B) { benchmarkClient(b, uri, bench.size, bench.depth, (*Client).ReadAt) })
		b.Run("write/"+bench.name, func(b *testing.B) {
			benchmarkClient(b, uri, bench.size, bench.depth, func(c *Client, ctx context.Context, p []byte, off int64) error {
				return c.WriteAt(ctx, p, off, 0)
			})
		})
	}
}

func benchmarkClient(b *testing.B, uri string, size, depth int, do func(*Client, context.Context, []byte, int64) error) {
	c, err := Dial(background, uri, ClientConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var wg sync.WaitGroup
	b.ResetTimer()
	for d := range depth {
		wg.Go(func() {
			p := bytes.Repeat([]byte{1}, size)
			for i := d; i < b.N; i += depth {
				if err := do(c, background, p, int64(i*size)%(64<<20)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
