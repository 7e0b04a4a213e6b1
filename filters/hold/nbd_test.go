package hold

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/block"
	"sluice/filters/filtertest"
	"sluice/nbd"
)

// server is an NBD server that can be stopped and started again, with what it had
// acknowledged lost or not; for a client it is another process each time.
type server struct {
	t      *testing.T
	socket string
	disk   block.Device
	srv    *nbd.Server
	served chan error
}

func (s *server) start() {
	s.t.Helper()
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Device: s.disk}); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.srv, s.served = nbd.NewServer(nbd.ServerConfig{Catalog: &exports}), make(chan error, 1)
	go func() { s.served <- s.srv.Serve(l) }()
}

// kill breaks all connections.
func (s *server) kill() {
	s.t.Helper()
	ended, end := context.WithCancel(context.Background())
	end()
	_ = s.srv.Shutdown(ended)
	<-s.served
}

// TestNBDServerRestarts: an NBD server that is away, for longer than its client
// has patience, is a wait; but that it may have lost writes is told to everybody
// who flushes then.
func TestNBDServerRestarts(t *testing.T) {
	s := &server{t: t, socket: filepath.Join(t.TempDir(), "s"), disk: filtertest.NewMem(t, 1<<20)}
	s.start()
	c, err := nbd.Dial(t.Context(), "nbd+unix:///?socket="+s.socket, nbd.ClientConfig{Reconnect: nbd.ReconnectFor(50 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	heldNow := make(chan State, 100)
	d := New(c, Config{Object: "disk", Changed: func(s State) { heldNow <- s }})
	awaitHeld := func() {
		for (<-heldNow).Status != Held {
		}
	}
	want := bytes.Repeat([]byte{5}, 4096)
	write := func(off int64) error { return d.WriteAt(t.Context(), want, off, 0) }
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	s.kill()
	results := make(chan error)
	got := make([]byte, 4096)
	go func() { results <- d.ReadAt(t.Context(), got, 0) }()
	go func() { results <- write(8192) }()
	awaitHeld()
	s.start()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("wrong bytes")
	}

	s.kill() // the second write was acknowledged and not flushed
	var flushes sync.WaitGroup
	for range 4 {
		flushes.Go(func() {
			if err := d.Flush(t.Context()); block.KindOf(err) != block.IO || !strings.Contains(err.Error(), "4096 acknowledged bytes") {
				t.Errorf("a flush hides that writes may be lost: %v", err)
			}
		})
	}
	awaitHeld()
	s.start()
	flushes.Wait()
	if err := d.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.kill()
}
