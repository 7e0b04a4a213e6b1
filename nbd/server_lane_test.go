package nbd_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// TestServerLaneSpansConnections: writes to a device that orders them go there
// one at a time, whichever connection they come from, and each connection gets
// its own answers.
func TestServerLaneSpansConnections(t *testing.T) {
	d := newDisk(4<<20, diskCaps|block.CapSerialWrites)
	var inside, most atomic.Int32
	d.before = func(c call) error {
		if c.op == "write" {
			most.Store(max(most.Load(), inside.Add(1)))
			time.Sleep(50 * time.Microsecond)
			inside.Add(-1)
		}
		return nil
	}
	s := serveDevice(t, d)
	var clients []*rawClient
	var cookies [4]map[uint64]bool
	for i := range cookies {
		clients = append(clients, enter(t, s.addr, structured, ""))
		cookies[i] = map[uint64]bool{}
	}
	for k := range 64 {
		for i, c := range clients {
			off := uint64(i)<<20 + uint64(k)<<12
			cookies[i][c.start(rawRequest{cmd: rCmdWrite, offset: off, payload: pattern(4096, byte(i+k))})] = true
		}
	}
	for i, c := range clients {
		for range 64 {
			ch := c.chunk(0)
			if ch.err != 0 || !cookies[i][ch.cookie] {
				t.Fatalf("client %d: reply %+v", i, ch)
			}
			delete(cookies[i], ch.cookie)
		}
		for k := range 64 {
			mustEqual(t, d.content(i<<20+k<<12, 4096), pattern(4096, byte(i+k)), "device")
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d writes at a time", most.Load())
	}
}

// TestServerLaneDeafClient: a client that does not take its replies stops nobody
// else's writes.
func TestServerLaneDeafClient(t *testing.T) {
	d := newDisk(8<<20, diskCaps|block.CapSerialWrites)
	s := serveDevice(t, d)
	deaf := enter(t, s.addr, structured, "")
	for range 3 { // far more than the socket takes
		deaf.start(rawRequest{cmd: rCmdRead, length: 8 << 20})
	}
	waitFor(t, "its reads", func() bool { return len(d.took("read")) == 3 })
	for i := range uint64(20) {
		deaf.start(rawRequest{cmd: rCmdWrite, offset: i << 12, payload: pattern(4096, 1)})
	}
	c := enter(t, s.addr, structured, "")
	best := time.Hour
	for try := 0; try < 3 && best > 2*time.Second; try++ { // once, unless the machine is busy
		start := time.Now()
		for i := range uint64(200) {
			c.mustOK(c.write(4<<20+i<<12, pattern(4096, 2)))
		}
		best = time.Since(start)
	}
	if best > 2*time.Second {
		t.Errorf("200 writes beside a deaf client took %v", best)
	}
}

// TestServerLaneHoldsNothingLong: the reply to a write that is done does not wait
// for one that is stuck.
func TestServerLaneHoldsNothingLong(t *testing.T) {
	d := newDisk(1<<20, diskCaps|block.CapSerialWrites)
	second := make(chan struct{})
	first := make(chan struct{})
	d.before = func(c call) error {
		switch {
		case c.op == "write" && c.off == 0:
			<-first
		case c.op == "write":
			<-second
		}
		return nil
	}
	c := enter(t, serveDevice(t, d).addr, structured, "")
	one := c.start(rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)})
	waitFor(t, "the first write", func() bool { return len(d.took("write")) == 1 })
	for i := range uint64(3) {
		c.start(rawRequest{cmd: rCmdWrite, offset: (i + 1) << 12, payload: pattern(4096, 2)})
	}
	c.mustOK(c.read(1<<19, 4096)) // the server has all of them
	close(first)
	if ch := c.chunk(0); ch.cookie != one || ch.err != 0 {
		t.Errorf("reply %+v, want one to the first write", ch)
	}
	close(second)
	for range 3 {
		c.chunk(0)
	}
}

// TestServerBatchOvertakes: a request that arrives together with one that gets
// stuck does not wait for it, although a worker is idle for one of them only.
func TestServerBatchOvertakes(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := make(chan struct{})
	d.before = func(c call) error {
		if c.op == "read" && c.off == 0 {
			<-release
		}
		return nil
	}
	c := enter(t, serveDevice(t, d).addr, structured, "")
	for range 20 {
		c.mustOK(c.read(8192, 4096)) // leaves one worker idle
		stuck, _ := c.encode(rawRequest{cmd: rCmdRead, length: 4096})
		other, req := c.encode(rawRequest{cmd: rCmdRead, offset: 4096, length: 4096})
		_ = req
		c.send(append(stuck, other...))
		if ch := c.chunk(4096); ch.err != 0 {
			t.Fatalf("reply %+v", ch)
		}
		release <- struct{}{}
		c.chunk(4096)
	}
}

// TestServerDeadClientIsNotServed: what a client asked for before it was killed
// and what has not begun is not done: it may be back, writing something newer.
func TestServerDeadClientIsNotServed(t *testing.T) {
	for _, caps := range []block.Cap{diskCaps, diskCaps | block.CapSerialWrites} {
		d := &waitingDisk{disk: newDisk(1<<20, caps)}
		released := make(chan struct{})
		s := serveWith(t, nbd.ServerConfig{Workers: 1},
			&nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
		c := enter(t, s.addr, structured, "")
		for i := range uint64(100) {
			c.start(rawRequest{cmd: rCmdWrite, offset: i << 12, payload: pattern(4096, 9)})
		}
		waitFor(t, "the first", func() bool { return len(d.took("write")) == 1 })
		_ = c.conn.Close()
		<-released // the first write has seen its context end
		if n := len(d.took("write")); n != 1 {
			t.Errorf("%d writes of a dead client were begun", n)
		}
	}
}

// waitingDisk is a disk whose writes wait until nobody wants them any more.
type waitingDisk struct{ *disk }

func (d *waitingDisk) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if err := d.disk.WriteAt(ctx, p, off, flags); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestServerShutdownInWrite: a large write of which the shutdown has cut off the
// end is not answered at all: an error would reach the client's user, where the
// end of the connection makes it try again.
func TestServerShutdownInWrite(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(8<<20, diskCaps)
		release := make(chan struct{})
		d.before = func(call) error { <-release; return nil }
		s := serveDevice(t, d)
		c := enter(t, s.addr, mode, "")
		p, _ := c.encode(rawRequest{cmd: rCmdWrite, payload: pattern(4<<20, 9)})
		c.send(p[:3<<20])
		waitFor(t, "a piece", func() bool { return len(d.took("write")) > 0 })
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(context.Background()) }()
		waitFor(t, "the shutdown", func() bool { _, err := net.Dial(s.addr.Network(), s.addr.String()); return err != nil })
		close(release)
		if rest, err := io.ReadAll(c.conn); len(rest) > 0 {
			t.Errorf("client was sent %x (%v)", rest, err)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

// TestServerShutdownOfBusyTCPClient: a client that never stops sending does not
// keep the server from ending. (TCP takes bytes even for a socket that is shut for
// reading.)
func TestServerShutdownOfBusyTCPClient(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, l, nbd.ServerConfig{MaxRequests: 1}, &nbd.Export{Device: d})
	c := enter(t, s.addr, structured, "")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p, _ := c.encode(rawRequest{cmd: rCmdTrim, length: 4096})
		var batch []byte
		for range 1000 {
			batch = append(batch, p...)
		}
		for {
			if _, err := c.conn.Write(batch); err != nil {
				return
			}
		}
	}()
	go func() { _, _ = io.Copy(io.Discard, c.conn) }()
	waitFor(t, "its requests", func() bool { return len(d.took("discard")) > 1000 })
	ctx, cancel := context.WithTimeout(context.Background(), rawTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	_ = c.conn.Close()
	<-ended
}

// TestServerWorkersOfAll: the connections share the workers, and each has one.
func TestServerWorkersOfAll(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := make(chan struct{})
	d.before = func(call) error { <-release; return nil }
	s := serveWith(t, nbd.ServerConfig{MaxWorkers: 3}, &nbd.Export{Device: d})
	one, other := enter(t, s.addr, structured, ""), enter(t, s.addr, structured, "")
	for range 10 {
		one.start(rawRequest{cmd: rCmdRead, length: 4096})
	}
	waitFor(t, "three workers", func() bool { return len(d.took("read")) == 3 })
	for range 10 {
		other.start(rawRequest{cmd: rCmdRead, offset: 8192, length: 4096})
	}
	waitFor(t, "one more", func() bool { return len(d.took("read")) == 4 })
	close(release)
	for range 10 {
		one.chunk(4096)
		other.chunk(4096)
	}
	if n := len(d.took("read")); n != 20 {
		t.Errorf("%d reads", n)
	}
}

// TestServerWorkersAreGivenBack: workers that have nothing to do are not counted:
// a connection that stays can do without them.
func TestServerWorkersAreGivenBack(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	var release atomic.Pointer[chan struct{}]
	first, second := make(chan struct{}), make(chan struct{})
	release.Store(&first)
	d.before = func(call) error { <-*release.Load(); return nil }
	s := serveWith(t, nbd.ServerConfig{MaxWorkers: 3}, &nbd.Export{Device: d})
	one, other := enter(t, s.addr, structured, ""), enter(t, s.addr, structured, "")
	for range 3 {
		one.start(rawRequest{cmd: rCmdRead, length: 4096})
	}
	waitFor(t, "three workers", func() bool { return len(d.took("read")) == 3 })
	release.Store(&second)
	close(first)
	for range 3 {
		one.chunk(4096)
	}
	// The workers look for more before they end, and the connection is not silent.
	waitFor(t, "three workers of the other", func() bool {
		one.mustOK(one.read(0, 0))
		other.start(rawRequest{cmd: rCmdRead, offset: 8192, length: 4096})
		return len(d.took("read")) >= 6
	})
	close(second)
}
