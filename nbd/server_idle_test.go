//go:build !race

package nbd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"sluice/backends/file"
	"sluice/block"
	"sluice/metrics"
	"sluice/nbd"
)

// What idle connections and exports cost. Not in builds with the race detector,
// which costs several times the memory.

// residentMemory is what the kernel counts for the process.
func residentMemory(t testing.TB) int64 {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestServerIdleConnections: a connection that is silent costs under 256 KiB,
// client's end included, and works when it wakes up.
func TestServerIdleConnections(t *testing.T) {
	const clients, limit = 1000, 256 << 10
	s := serveDevice(t, newMem(t, 1<<20))
	live, resident := liveMemory(), residentMemory(t)
	all := make([]*rawClient, clients)
	for i := range all {
		all[i] = enter(t, s.addr, allModes[i%3], "")
		all[i].mustOK(all[i].write(0, pattern(128<<10, 1)))
		all[i].mustOK(all[i].flush())
		all[i].mustOK(all[i].read(0, 128<<10))
		all[i].r.Reset(all[i].conn) // drops nothing: everything was read
	}
	var perLive, perResident int64
	waitFor(t, "idle connections under 256 KiB each", func() bool {
		perLive = (liveMemory() - live) / clients
		perResident = (residentMemory(t) - resident) / clients
		return perLive < limit/4 && perResident < limit
	})
	t.Logf("%d bytes live, %d resident for an idle connection", perLive, perResident)
	for _, c := range all {
		mustEqual(t, c.mustOK(c.read(0, 4096)).data, pattern(4096, 1), "read")
	}
}

// TestServerManyExports: a thousand exports in one process, sparse files with
// metrics, each with a client that has used every operation, stay under 150 MiB.
func TestServerManyExports(t *testing.T) {
	const count, limit, size = 1000, 150 << 20, 1 << 30
	s := serveWith(t, nbd.ServerConfig{})
	registry := metrics.New(metrics.Build{})
	before := residentMemory(t)
	for i := range count {
		name := fmt.Sprint("disk", i)
		x := &nbd.Export{Name: name, Device: sparseFile(t, name, size), Observer: registry.Export(name)}
		if err := s.exports.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, s.addr)
	if all := c.ask(rOptList, nil); len(all) != count+1 {
		t.Errorf("%d exports listed", len(all)-1)
	}
	for i := 0; i < count; {
		var group [20]*rawClient // they flush together, which saves the disk's time
		var flushes [len(group)]uint64
		for k := range group {
			c, _ := enterStatus(t, s.addr, structured, fmt.Sprint("disk", i), qAllocation, qDepth)
			c.mustOK(c.write(size/2, pattern(4096, 1)))
			group[k], flushes[k], i = c, c.start(rawRequest{cmd: rCmdFlush}), i+1
		}
		for k, c := range group {
			c.mustOK(c.finish(flushes[k], rawRequest{cmd: rCmdFlush}))
			mustEqual(t, c.mustOK(c.read(size/2, 4096)).data, pattern(4096, 1), "read")
			c.status(0, 0, size)
			for _, cmd := range []uint16{rCmdCache, rCmdZeroes, rCmdTrim} {
				c.mustOK(c.do(rawRequest{cmd: cmd, offset: size / 2, length: 4096}))
			}
		}
	}
	waitFor(t, "a thousand exports under 150 MiB", func() bool { return residentMemory(t) < limit })
	t.Logf("%d MiB resident, %d before", residentMemory(t)>>20, before>>20)
}

// sparseFile is a file that is all hole.
func sparseFile(t testing.TB, name string, size int64) block.Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	dev, err := file.Open(context.Background(), path, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}
