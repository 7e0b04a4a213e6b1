package nbd_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
	"sluice/nbd"
)

// TestServerSlowInlineWrites: writes that the receiver carries out itself, and of
// which some take long, arrive whole and in order for each caller, whoever
// receives meanwhile.
func TestServerSlowInlineWrites(t *testing.T) {
	const callers, rounds, size = 8, 250, 4096
	d := newDisk(callers*16*size, diskCaps|block.CapSerialWrites)
	var writes, slow atomic.Int32
	d.before = func(c call) error {
		// Further apart than the penalty after a slow write.
		if c.op == "write" && writes.Add(1)%300 == 0 {
			slow.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}
	s := serveDevice(t, d)
	ctx := context.Background()
	var all sync.WaitGroup
	for i := range 2 {
		c, err := nbd.Dial(ctx, "nbd+unix:///?socket="+s.addr.String(), nbd.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for k := range callers / 2 {
			all.Go(func() {
				base := int64(i*callers/2+k) * 16 * size
				got := make([]byte, size)
				for r := range rounds {
					off := base + int64(r%16)*size
					want := pattern(size, byte(r+k))
					if err := c.WriteAt(ctx, want, off, 0); err != nil {
						t.Error(err)
						return
					}
					if err := c.ReadAt(ctx, got, off); err != nil || !bytes.Equal(got, want) {
						t.Errorf("caller %d, round %d: read other bytes than written (%v)", k, r, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	if slow.Load() < 5 {
		t.Errorf("%d slow writes, the test wants more", slow.Load())
	}
}

// TestServerInlineWriteStuck: while a write is stuck in the device, reads, writes
// and a flush on its connection go on as far as the device lets them, and the end
// of the client ends it all.
func TestServerInlineWriteStuck(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps|block.CapSerialWrites)
		release := make(chan struct{})
		d.before = func(c call) error {
			if c.op == "write" && c.off == 0 {
				<-release
			}
			return nil
		}
		released := make(chan struct{}, 1)
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
		c := enter(t, s.addr, mode, "")
		// One batch: the stuck write, and what comes after it.
		first, cookie := c.encode(rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)})
		second, _ := c.encode(rawRequest{cmd: rCmdWrite, payload: pattern(4096, 2)})
		read, _ := c.encode(rawRequest{cmd: rCmdRead, offset: 8192, length: 4096})
		c.send(cat(first, read, second))
		if ch := c.chunk(8192); ch.err != 0 || ch.cookie == cookie {
			t.Fatalf("reply %+v", ch)
		}
		c.mustOK(c.flush())
		if n := len(d.took("write")); n != 1 {
			t.Errorf("%d writes in the device", n)
		}
		close(release)
		for range 2 {
			if ch := c.chunk(0); ch.err != 0 {
				t.Errorf("reply %+v", ch)
			}
		}
		mustEqual(t, d.content(0, 4096), pattern(4096, 2), "device")
		_ = c.conn.Close()
		<-released
	})
}

// TestServerCloseInInlineWrite: a server that is closed waits for the write, also
// when its goroutine receives no more.
func TestServerCloseInInlineWrite(t *testing.T) {
	d := newDisk(1<<20, diskCaps|block.CapSerialWrites)
	release := make(chan struct{})
	var inside atomic.Bool
	d.before = func(c call) error {
		if c.op == "write" {
			inside.Store(true)
			<-release
			inside.Store(false)
		}
		return nil
	}
	s := serveDevice(t, d)
	c := enter(t, s.addr, structured, "")
	c.start(rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)})
	c.mustOK(c.read(8192, 4096)) // somebody else receives by now
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	c.mustClose()
	select {
	case <-closed:
		t.Error("closed during a write")
	default:
	}
	close(release)
	if err := <-closed; err != nil || inside.Load() {
		t.Errorf("%v, write still there: %v", err, inside.Load())
	}
}

// TestServerSmallWritesAfterLarge: after a large write, of which only the header
// is received into the common buffer, small ones are received whole again.
func TestServerSmallWritesAfterLarge(t *testing.T) {
	const large, small, n = 64 << 10, 4096, 100
	d := newDisk(1<<20, diskCaps|block.CapSerialWrites)
	counted := &countedListener{Listener: listenUnix(t)}
	s := serveOn(t, counted, nbd.ServerConfig{}, &nbd.Export{Device: d})
	c := enter(t, s.addr, structured, "")
	want := pattern(large, 1)
	c.mustOK(c.do(rawRequest{cmd: rCmdWrite, payload: want}))
	before := counted.reads.Load()
	for i := range n {
		p := pattern(small, byte(i))
		c.mustOK(c.do(rawRequest{cmd: rCmdWrite, offset: uint64(i%16) * small, payload: p}))
		copy(want[i%16*small:], p)
	}
	// Each is one message or two.
	if got := counted.reads.Load() - before; got > 4*n {
		t.Errorf("%d receives for %d writes", got, n)
	}
	mustEqual(t, d.content(0, large), want, "device")
}

// countedListener counts what its connections read. They are no sockets to the
// server any more.
type countedListener struct {
	net.Listener
	reads atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, &l.reads}, err
}

type countedConn struct {
	net.Conn
	reads *atomic.Int32
}

func (c countedConn) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}
