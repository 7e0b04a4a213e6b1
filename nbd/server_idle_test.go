//go:build !race

package nbd_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

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

// TestServerManyExports: a thousand exports in one process, each with a client,
// stay under 150 MiB.
func TestServerManyExports(t *testing.T) {
	const count, limit = 1000, 150 << 20
	s := serveWith(t, nbd.ServerConfig{})
	for i := range count {
		if err := s.exports.Add(&nbd.Export{Name: fmt.Sprint("disk", i), Device: newMem(t, 1<<40)}); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, s.addr)
	if all := c.ask(rOptList, nil); len(all) != count+1 {
		t.Errorf("%d exports listed", len(all)-1)
	}
	for i := range count {
		c := enter(t, s.addr, structured, fmt.Sprint("disk", i))
		c.mustOK(c.write(1<<39, pattern(4096, 1)))
	}
	waitFor(t, "a thousand exports under 150 MiB", func() bool { return residentMemory(t) < limit })
	t.Logf("%d MiB resident", residentMemory(t)>>20)
}
