//go:build !race

package nbd_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/backends/file"
	"sluice/block"
	"sluice/metrics"
	"sluice/nbd"
)

// Allocations per request in steady state, through a real socket: none. Not in
// builds with the race detector, which allocates itself.

// steady is a client that asks the same over and over without allocating:
// requests are prepared, replies counted but not looked at.
type steady struct {
	conn     net.Conn
	requests []byte // depth of them
	replies  []byte // room for their replies
}

// newSteady prepares depth requests of n bytes each, spread over the disk.
func newSteady(t testing.TB, addr net.Addr, mode rawMode, what steadyCase) *steady {
	t.Helper()
	cmd, n, depth := what.cmd, what.n, what.depth
	c := enter(t, addr, mode, "")
	s := &steady{conn: c.conn}
	var payload []byte
	if cmd == rCmdWrite {
		payload = pattern(n, 1)
	}
	for i := range depth {
		p, _ := c.encode(rawRequest{cmd: cmd, offset: uint64(i * n), length: uint64(n), payload: payload})
		s.requests = append(s.requests, p...)
	}
	reply := 16
	switch {
	case mode == structured && cmd == rCmdRead:
		reply = 20 + 8
	case mode == extended && cmd == rCmdRead:
		reply = 32 + 8
	case mode == extended:
		reply = 32
	}
	if cmd == rCmdRead {
		reply += n
	}
	s.replies = make([]byte, reply*depth)
	_ = c.conn.SetDeadline(time.Now().Add(5 * time.Minute))
	return s
}

// round sends the requests and takes their replies. Requests and replies that
// lie in the sockets are few enough that neither end waits for the other.
func (s *steady) round(t testing.TB) {
	if _, err := s.conn.Write(s.requests); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s.conn, s.replies); err != nil {
		t.Fatal(err)
	}
}

// steadyCase is a request that is asked over and over.
type steadyCase struct {
	name     string
	cmd      uint16
	n, depth int // bytes of one, and how many at a time
}

// steadyCases are what has to work without allocating.
var steadyCases = []steadyCase{
	{"read 4 KiB", rCmdRead, 4096, 1},
	{"read 4 KiB depth 16", rCmdRead, 4096, 16},
	{"write 4 KiB", rCmdWrite, 4096, 1},
	{"write 4 KiB depth 16", rCmdWrite, 4096, 16},
	{"read 1 MiB", rCmdRead, 1 << 20, 1},
	{"read 1 MiB depth 4", rCmdRead, 1 << 20, 4},
	{"write 1 MiB", rCmdWrite, 1 << 20, 1},
}

const steadySize = 16 << 20

// steadyDevices are a RAM disk and a file, full of data.
func steadyDevices(t testing.TB) map[string]block.Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, steadySize), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := file.Open(context.Background(), path, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	all := map[string]block.Device{"mem": newMem(t, steadySize), "file": f}
	for name, dev := range all {
		if err := dev.WriteAt(context.Background(), pattern(steadySize, 1), 0, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// TestServerAllocations counts what the whole process allocates over many
// requests: under one in a hundred requests, so none that repeats. The same with
// the metrics that every export of the command has.
func TestServerAllocations(t *testing.T) {
	devices := steadyDevices(t)
	all := map[string]*nbd.Export{
		"file observed": {Device: devices["file"], Observer: metrics.New(metrics.Build{}).Export("")},
	}
	for name, dev := range devices {
		all[name] = &nbd.Export{Device: dev}
	}
	for name, x := range all {
		addr := serveWith(t, nbd.ServerConfig{}, x).addr
		for _, test := range steadyCases {
			for _, mode := range allModes {
				if x.Observer != nil && mode != structured {
					continue // it is not told of the mode
				}
				t.Run(name+" "+test.name+" "+mode.String(), func(t *testing.T) {
					s := newSteady(t, addr, mode, test)
					rounds := max(4000/test.depth, 20)
					if test.n > 4096 {
						rounds = 300
					}
					for range 50 {
						s.round(t)
					}
					per := 1.0
					for try := 0; try < 3 && per >= 0.01; try++ { // a collection may have emptied the pools
						per = mallocs(func() {
							for range rounds {
								s.round(t)
							}
						}) / float64(rounds*test.depth)
					}
					if per >= 0.01 {
						t.Errorf("%.3f allocations for a request", per)
					}
				})
			}
		}
	}
}

// mallocs counts the allocations of the process during fn.
func mallocs(fn func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

func BenchmarkServer(b *testing.B) {
	for dev, device := range steadyDevices(b) {
		addr := serveDevice(b, device).addr
		for _, test := range steadyCases {
			b.Run(dev+"/"+strings.ReplaceAll(test.name, " ", "_"), func(b *testing.B) {
				s := newSteady(b, addr, structured, test)
				s.round(b)
				b.SetBytes(int64(test.n * test.depth))
				b.ReportAllocs()
				for b.Loop() {
					s.round(b)
				}
			})
		}
	}
}
