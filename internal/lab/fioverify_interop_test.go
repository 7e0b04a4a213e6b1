//go:build interop

package lab

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/nbd"
)

// TestFioSeesAStall: fio verifies a server that stands still for a while, and
// tells for how long.
func TestFioSeesAStall(t *testing.T) {
	server := Start(t, Sluice(t), "serve", sparse(t, 64<<20), "--nbd", "unix:"+Socket(t))
	began := time.Now()
	fio := StartFio(t, FioConfig{URI: server.Ready(), Runtime: 3 * time.Second})
	const pause = 300 * time.Millisecond
	server.Signal(syscall.SIGSTOP)
	if fio.Proc().waited(pause) {
		t.Fatal("fio ended too early")
	}
	server.Signal(syscall.SIGCONT)
	r := fio.Finish()
	t.Logf("%+v", r)
	// No request may be under way when it stops; none outlasts fio.
	if lasted := time.Since(began); r.Longest() < pause*3/4 || r.Longest() > lasted {
		t.Errorf("the longest request took %v, the server stood for %v, fio ran for %v", r.Longest(), pause, lasted)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

func TestFioOnAFile(t *testing.T) {
	r := StartFio(t, FioConfig{File: sparse(t, 64<<20), Runtime: 2 * time.Second, Size: 8 << 20, Block: 4 << 10, Depth: 4}).Finish()
	if r.Writes < 2048 || r.Reads < 2048 {
		t.Errorf("not even all blocks once: %+v", r)
	}
}

// lossy is a device that says that it has written, and sometimes has not.
type lossy struct {
	under *mem.Device
	count atomic.Int64
	every int64
}

func (d *lossy) Info() block.Info {
	info := d.under.Info()
	info.Caps &= block.CapFlush | block.CapMultiConn
	return info
}

func (d *lossy) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.under.ReadAt(ctx, p, off)
}

func (d *lossy) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if d.count.Add(1)%d.every == 0 {
		return nil
	}
	return d.under.WriteAt(ctx, p, off, flags)
}

func (d *lossy) Flush(ctx context.Context) error { return d.under.Flush(ctx) }

func (d *lossy) Close() error { return d.under.Close() }

// serveDevice serves a device from within the test and returns its URI.
func serveDevice(t *testing.T, dev block.Device) string {
	t.Helper()
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Device: dev}); err != nil {
		t.Fatal(err)
	}
	sock := Socket(t)
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	server, served := nbd.NewServer(nbd.ServerConfig{Catalog: &exports}), make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return "nbd+unix:///?socket=" + sock
}

// TestFioFindsALostWrite: the first write that is lost is of the second time that
// fio writes all its 1000 blocks, so it leaves a block that is whole, but old.
func TestFioFindsALostWrite(t *testing.T) {
	disk, err := mem.New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	uri := serveDevice(t, &lossy{under: disk, every: 1501})
	failure, _ := failing(t, func(t TB) {
		StartFio(t, FioConfig{URI: uri, Runtime: 3 * time.Second, Size: 1000 * 16 << 10}).Finish()
	})
	if !strings.Contains(failure, "fio: exit status 1\nverify: bad header numberio") {
		t.Errorf("failure: %s", failure)
	}
}
