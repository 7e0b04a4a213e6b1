package nbd_test

import (
	"bytes"
	"context"
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
