package throttle

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sluice/backends/file"
	"sluice/block"
	"sluice/filters/filtertest"
	"sluice/nbd"
)

// serve puts the device behind an NBD server and gives a client of it.
func serve(t *testing.T, d block.Device, socket string) *nbd.Client {
	t.Helper()
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Device: d}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	c, err := nbd.Dial(ctx, "nbd+unix:///?socket="+socket, nbd.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filtertest.Close(t, c)
		if err := srv.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		<-served
	})
	return c
}

// A client of the NBD server has the pace that was set, whichever way the server
// takes: small reads from its loop, large ones by sendfile, small writes one at a
// time from its loop, large ones in pieces.
func TestPaceOfAnNBDClient(t *testing.T) {
	const size, mb = 16 << 20, 1 << 20
	dir, err := os.MkdirTemp("/dev/shm", "sluice-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	below, err := file.Open(ctx, path, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := New(below, Limits{})
	t.Cleanup(func() { filtertest.Close(t, d) })
	c := serve(t, d, filepath.Join(dir, "socket"))
	readSome := func(_ *Device, n int, i int64) error { return c.ReadAt(ctx, make([]byte, n), i%16*mb) }
	writeSome := func(_ *Device, n int, i int64) error { return c.WriteAt(ctx, make([]byte, n), i%16*mb, 0) }
	for name, k := range map[string]struct {
		load            load
		requests, bytes int64 // a second
	}{
		"small reads":  {load{4, []int{4096}, 0, readSome}, 600, 0},
		"large reads":  {load{4, []int{256 << 10}, 0, readSome}, 0, 20 * mb},
		"small writes": {load{4, []int{4096}, 0, writeSome}, 600, 0},
		"large writes": {load{2, []int{512 << 10}, 0, writeSome}, 0, 20 * mb},
	} {
		t.Run(name, func(t *testing.T) { clocked(t, d, k.load, k.requests, k.bytes) })
	}
}
