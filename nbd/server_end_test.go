package nbd_test

import (
	"context"
	"net"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

// How sessions end: by the client, by the server, and by death.

func testAbort(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.mustAck(rOptAbort, nil)
	c.mustClose()
	c = dial(t, s.addr)
	c.mustAck(rOptAbort, []byte("and so on"))
	c.mustClose()
}

// testDisconnect: what was in flight is carried out and answered, then the
// connection is closed without a reply to the disconnect itself.
func testDisconnect(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		release := d.hold("write")
		s := serveDevice(t, d)
		c := enter(t, s.addr, mode, "")
		req := rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)}
		cookie := c.start(req)
		c.start(rawRequest{cmd: rCmdDisc})
		waitFor(t, "the write", func() bool { return len(d.took("write")) == 1 })
		close(release)
		c.mustOK(c.finish(cookie, rawRequest{}))
		c.mustClose()
		mustEqual(t, d.content(0, 4096), req.payload, "device")
	})
}

func testShutdownDrains(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := d.hold("write")
	s := serveDevice(t, d)
	idle := enter(t, s.addr, simple, "")
	idle.alive()
	c := enter(t, s.addr, structured, "")
	cookies := map[uint64]bool{}
	for i := range 3 {
		cookies[c.start(rawRequest{cmd: rCmdWrite, offset: uint64(i) << 12, payload: pattern(4096, byte(i))})] = true
	}
	waitFor(t, "the writes", func() bool { return len(d.took("write")) == 3 })
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	idle.mustClose()
	close(release)
	for range 3 {
		ch := c.chunk(0)
		if ch.err != 0 || !cookies[ch.cookie] {
			t.Errorf("reply %+v", ch)
		}
		delete(cookies, ch.cookie)
	}
	c.mustClose()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := net.Dial(s.addr.Network(), s.addr.String()); err == nil {
		t.Error("somebody still listens after Shutdown")
	}
}

func testShutdownInHandshake(t *testing.T) {
	release := make(chan struct{})
	d := newDisk(1<<20, diskCaps)
	d.before = func(call) error { <-release; return nil }
	s := serveDevice(t, d)
	busy := enter(t, s.addr, simple, "") // keeps Shutdown from being done at once
	busy.start(rawRequest{cmd: rCmdFlush})
	waitFor(t, "the flush", func() bool { return len(d.took("flush")) == 1 })
	c := dial(t, s.addr)
	c.mustAck(rOptStructured, nil)
	silent := dial(t, s.addr)
	silent.mustAck(rOptStructured, nil)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	waitFor(t, "the listener to close", func() bool {
		conn, err := net.Dial(s.addr.Network(), s.addr.String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	c.mustAnswer(rOptGo, infoData(""), rErrShutdwn)
	c.mustAck(rOptAbort, nil)
	c.mustClose()
	silent.mustClose()
	close(release)
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// testShutdownGivesUp: when the time is over the rest is cut off, but a request
// that is in the device is still waited for.
func testShutdownGivesUp(t *testing.T) {
	release := make(chan struct{})
	d := newDisk(1<<20, diskCaps)
	d.before = func(call) error { <-release; return nil }
	s := serveDevice(t, d)
	c := enter(t, s.addr, simple, "")
	c.start(rawRequest{cmd: rCmdFlush})
	waitFor(t, "the flush", func() bool { return len(d.took("flush")) == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	c.mustClose() // without a reply
	select {
	case err := <-down:
		t.Errorf("Shutdown returned %v while the device worked", err)
	default:
	}
	close(release)
	if err := <-down; err != context.Canceled {
		t.Errorf("Shutdown: %v", err)
	}
}

// voidDisk is a disk of any size that keeps nothing and cannot zero by itself.
type voidDisk struct{ *disk }

func (d voidDisk) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	d.forget()
	return d.enter("write", off, int64(len(p)), flags)
}

// testCloseEndsZeroing: a request that would go on for days does not keep the
// server from closing.
func testCloseEndsZeroing(t *testing.T) {
	d := voidDisk{newDisk(0, 0)}
	d.info.Size = 1 << 60
	begun := make(chan struct{}, 1)
	d.before = func(call) error {
		select {
		case begun <- struct{}{}:
		default:
		}
		return nil
	}
	s := serveDevice(t, d)
	c := enter(t, s.addr, extended, "")
	c.start(rawRequest{cmd: rCmdZeroes, length: 1 << 60})
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); err != context.Canceled {
		t.Errorf("Shutdown: %v", err)
	}
	c.mustClose()
}

// testDeathInWrite: a write whose payload did not arrive whole is never
// answered. Below 512 KiB nothing of it reaches the device; of a longer one no more
// than whole pieces of what arrived.
func testDeathInWrite(t *testing.T) {
	for _, size := range []int{2, 4096, 60 << 10, 1 << 20, 32 << 20} {
		d := newDisk(32<<20, diskCaps)
		released := make(chan struct{}, 1)
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
		c := enter(t, s.addr, structured, "")
		p, _ := c.encode(rawRequest{cmd: rCmdWrite, payload: pattern(size, 9)})
		c.send(p[:len(p)-size/2])
		_ = c.conn.Close()
		<-released
		for _, w := range d.took("write") {
			if size < 512<<10 || w.n != 256<<10 || w.off+w.n > int64(size-size/2) {
				t.Errorf("size %d: device was asked %v", size, w)
			}
		}
	}
}

func testDeathInFlight(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := make(chan struct{})
	d.before = func(call) error { <-release; return nil }
	released := make(chan struct{}, 1)
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
	c := enter(t, s.addr, structured, "")
	for i := range 8 {
		c.start(rawRequest{cmd: rCmdWrite, offset: uint64(i) << 12, payload: pattern(4096, byte(i))})
		c.start(rawRequest{cmd: rCmdRead, offset: uint64(i) << 12, length: 4096})
	}
	waitFor(t, "the requests", func() bool { return len(d.took("read", "write")) == 16 })
	_ = c.conn.Close()
	select {
	case <-released:
		t.Error("export given back while its device was in use")
	default:
	}
	close(release)
	<-released
	for i := range 8 {
		mustEqual(t, d.content(i<<12, 4096), pattern(4096, byte(i)), "a write of the dead client")
	}
}

// testDeathDrops: requests that were received but not begun when the client died
// are not carried out.
func testDeathDrops(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := make(chan struct{})
	d.before = func(call) error { <-release; return nil }
	released := make(chan struct{}, 1)
	s := serveWith(t, nbd.ServerConfig{MaxRequests: 4, Workers: 2}, &nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
	c := enter(t, s.addr, structured, "")
	var all []byte
	for range 100 {
		p, _ := c.encode(rawRequest{cmd: rCmdZeroes, length: 4096})
		all = append(all, p...)
	}
	c.send(all)
	waitFor(t, "the first", func() bool { return len(d.took("zero")) == 2 })
	_ = c.conn.Close()
	close(release)
	<-released
	if n := len(d.took("zero")); n > 20 {
		t.Errorf("%d requests of a dead client were carried out", n)
	}
}

// testHalfClosed: a client that sends no more still gets what it asked for.
func testHalfClosed(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	release := make(chan struct{})
	d.before = func(call) error { <-release; return nil }
	s := serveDevice(t, d)
	c := enter(t, s.addr, structured, "")
	req := rawRequest{cmd: rCmdRead, offset: 0, length: 4096}
	cookie := c.start(req)
	if err := c.conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the read", func() bool { return len(d.took("read")) == 1 })
	close(release)
	c.mustOK(c.finish(cookie, req))
	c.mustClose()
}

// End lets the clients of one export finish and sends them away; those of another
// do not notice.
func TestServerEnd(t *testing.T) {
	d, other := newDisk(1<<20, diskCaps), newDisk(1<<20, diskCaps)
	release := d.hold("write")
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "a", Device: d}, &nbd.Export{Name: "b", Device: other})
	c, stays := enter(t, s.addr, simple, "a"), enter(t, s.addr, simple, "b")
	req := rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)}
	cookie := c.start(req)
	waitFor(t, "the write", func() bool { return len(d.took("write")) == 1 })
	ended := make(chan error, 1)
	go func() { ended <- s.End(context.Background(), "a") }()
	close(release)
	c.mustOK(c.finish(cookie, rawRequest{}))
	c.mustClose()
	if err := <-ended; err != nil {
		t.Errorf("End: %v", err)
	}
	mustEqual(t, d.content(0, 4096), req.payload, "device")
	stays.alive()
	enter(t, s.addr, simple, "a").alive() // it is still in the catalog
}

// stuckFlush is a Device whose flushes end with their context.
type stuckFlush struct {
	*disk
	began chan struct{}
}

func (d stuckFlush) Flush(ctx context.Context) error {
	close(d.began)
	<-ctx.Done()
	return ctx.Err()
}

// A request that does not end is cut off when the context ends, and its device
// told.
func TestServerEndCuts(t *testing.T) {
	d := stuckFlush{newDisk(1<<20, diskCaps), make(chan struct{})}
	s := serveDevice(t, d)
	c := enter(t, s.addr, simple, "")
	c.start(rawRequest{cmd: rCmdFlush})
	<-d.began
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.End(ctx, "") }()
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("End: %v", err)
	}
	c.mustClose()
}

// A connection that was opened before End and transmits after it ends by itself.
func TestServerEndMeetsHandshake(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, 1<<20), Withdrawn: func() bool { return true }})
	c := dial(t, s.addr)
	c.goExport("")
	c.mustClose()
}
