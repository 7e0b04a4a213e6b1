package nbd

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
)

// TestClientNoReconnect: a lost connection fails what is in flight and what comes
// after, at once.
func TestClientNoReconnect(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) { _, _, _ = c.next() } // and closes
	c := s.start().dial(ClientConfig{})
	for range 2 {
		err := c.ReadAt(background, make([]byte, 512), 0)
		wantKind(t, err, block.Transient)
		if !strings.Contains(err.Error(), "the server closed the connection") {
			t.Error(err)
		}
	}
}

// TestClientReconnectUnderLoad breaks connections again and again under many
// readers and writers; none sees it, and every byte is right.
func TestClientReconnectUnderLoad(t *testing.T) {
	for name, conns := range map[string]int{"one connection": 1, "three connections": 3} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			s.flags |= tfMultiConn
			var count atomic.Int64
			s.serve = func(c *fakeConn) {
				c.memory(func(r request, payload []byte) bool {
					if count.Add(1)%97 == 0 {
						_ = c.Conn.Close() // the request is lost
						return true
					}
					return false
				})
			}
			c := s.start().dial(ClientConfig{Reconnect: ReconnectForever, Connections: conns, StableCache: true})
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { reconnectLoad(t, c, int64(i)*(128<<10)) })
			}
			within(t, "load", wg.Wait)
			if c.Reconnects() < 5 {
				t.Errorf("%d reconnects", c.Reconnects())
			}
		})
	}
}

func reconnectLoad(t *testing.T, c *Client, base int64) {
	for i := range 100 {
		off := base + int64(i%7)*16384
		want := bytes.Repeat([]byte{byte(i), byte(base >> 17)}, 50+i*60)
		if err := c.WriteAt(background, want, off, 0); err != nil {
			t.Error(err)
			return
		}
		got := make([]byte, len(want))
		if err := c.ReadAt(background, got, off); err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(got, want) {
			t.Errorf("wrong bytes at %d", off)
		}
	}
}

// TestClientFlushAfterCrash: a flush does not vouch for what a killed server had
// acknowledged and may have lost. It says so once.
func TestClientFlushAfterCrash(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever})
	one := bytes.Repeat([]byte{1}, 1000)
	steps := func(calls ...func() error) {
		t.Helper()
		for i, call := range calls {
			if err := call(); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	}
	write := func(off int64, flags block.Flags) func() error {
		return func() error { return c.WriteAt(background, one, off, flags) }
	}
	flush := func() error { return c.Flush(background) }
	crash := func() error {
		s.crash(false)
		return c.ReadAt(background, make([]byte, 1), 0) // over the next connection
	}

	steps(write(0, 0), flush, crash, flush)                    // flushed before: nothing to tell
	steps(write(4096, block.FUA), crash, flush)                // FUA needs no flush
	steps(write(8192, 0), write(12288, 0), write(0, 0), crash) // 3000 bytes are gone …
	err := flush()                                             // … and this would lie
	wantKind(t, err, block.IO)
	if !strings.Contains(err.Error(), "3000 acknowledged bytes") {
		t.Error(err)
	}
	got := make([]byte, 1000)
	steps(func() error { return c.ReadAt(background, got, 8192) })
	if bytes.Equal(got, one) {
		t.Fatal("the fake server lost nothing: the test shows nothing")
	}
	steps(flush, write(8192, 0), flush, crash, flush) // once only; what came later is whole
	steps(func() error { return c.ReadAt(background, got, 8192) })
	if !bytes.Equal(got, one) {
		t.Fatal("a flushed write was lost")
	}
	steps(func() error { return c.WriteZeroes(background, 0, 512, 0) }, crash)
	wantKind(t, flush(), block.IO)
}

// TestClientFlushSurvivingConnection: where a connection was there all the time,
// the server was too, and its flush covers the writes of one that broke.
func TestClientFlushSurvivingConnection(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.flags |= tfMultiConn
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever, Connections: 2})
	for i := range 4 { // on both connections
		lane := c.lanes[i%2]
		r := clientRequest{op: "write", cmd: cmdWrite, off: 0, n: 512, buf: make([]byte, 512)}
		if _, err := c.requestOn(background, lane, r); err != nil {
			t.Fatal(err)
		}
	}
	breakOne := func(i int) {
		was := c.Reconnects()
		_ = c.lanes[i].current().stream.conn.Close()
		for c.Reconnects() == was {
			wait(t)
		}
	}
	breakOne(0)
	if err := c.Flush(background); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteAt(background, make([]byte, 512), 0, 0); err != nil {
		t.Fatal(err)
	}
	breakOne(0)
	breakOne(1) // now no connection is left that was there for the write
	wantKind(t, c.Flush(background), block.IO)
	wantKind(t, c.Flush(background), block.OK)
}

func TestClientStableCache(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever, StableCache: true})
	if err := c.WriteAt(background, make([]byte, 512), 0, 0); err != nil {
		t.Fatal(err)
	}
	s.crash(false)
	if err := c.Flush(background); err != nil {
		t.Fatal(err)
	}
}

// TestClientReconnectLimit: requests wait as long as the policy says, then fail.
func TestClientReconnectLimit(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectFor(300 * time.Millisecond)})
	s.crash(true)
	began := time.Now()
	err := c.ReadAt(background, make([]byte, 512), 0)
	wantKind(t, err, block.Transient)
	if took := time.Since(began); took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("failed after %v", took)
	}
	if !strings.Contains(err.Error(), "no connection within 300ms") {
		t.Error(err)
	}
	wantKind(t, c.ReadAt(background, make([]byte, 512), 0), block.Transient)
}

// TestClientComesBack: after the time that requests wait, those that come fail at
// once; when the server is back, they work, and a flush tells what may be lost.
func TestClientComesBack(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectFor(50 * time.Millisecond)})
	read := func() error { return c.ReadAt(background, make([]byte, 512), 0) }
	if err := c.WriteAt(background, make([]byte, 512), 0, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.crash(true)
		wantKind(t, read(), block.Transient)
		wantKind(t, c.Flush(background), block.Transient)
		s.crash(false)
		for err := read(); err != nil; err = read() {
			wantKind(t, err, block.Transient)
			wait(t)
		}
	}
	wantKind(t, c.Flush(background), block.IO)
	wantKind(t, c.Flush(background), block.OK)
	s.crash(true)
	wantKind(t, read(), block.Transient)
	within(t, "close of a client whose server is away", func() { _ = c.Close() })
	wantKind(t, read(), block.Closed)
}

// TestClientAway: while there is no connection a call returns with its context,
// and Close returns at once.
func TestClientAway(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever})
	s.crash(true)
	ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
	defer cancel()
	within(t, "calls with a deadline", func() {
		wantCanceled(t, c.ReadAt(ctx, make([]byte, 512), 0))
		wantCanceled(t, c.WriteAt(ctx, make([]byte, 512), 0, 0))
		wantCanceled(t, c.Flush(ctx))
	})
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			if err := c.ReadAt(background, make([]byte, 512), 0); block.KindOf(err) != block.Closed {
				t.Errorf("met by Close: %v", err)
			}
		})
	}
	for len(c.lanes[0].free) > 124 {
		wait(t)
	}
	within(t, "close", func() { _ = c.Close() })
	within(t, "waiting calls", waiting.Wait)
	wantKind(t, c.Flush(background), block.Closed)
}

// TestClientCancelSent: a request that the server has is waited for; when the
// connection breaks a cancelled read gives up, a cancelled write is carried out.
func TestClientCancelSent(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	got := make(chan request, 2)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			if c.number == 1 {
				got <- r
				return true
			}
			return false
		})
	}
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever})
	ctx, cancel := context.WithCancel(background)
	var read, write sync.WaitGroup
	read.Go(func() { wantCanceled(t, c.ReadAt(ctx, make([]byte, 512), 0)) })
	write.Go(func() {
		if err := c.WriteAt(ctx, []byte("kept"), 4096, 0); err != nil {
			t.Error(err)
		}
	})
	<-got
	<-got
	cancel()
	for c.lanes[0].waiters() < 2 {
		wait(t)
	}
	s.crash(false)
	within(t, "cancelled calls", func() { read.Wait(); write.Wait() })
	p := make([]byte, 4)
	if err := c.ReadAt(background, p, 4096); err != nil || string(p) != "kept" {
		t.Fatalf("%q %v", p, err)
	}
}

// waiters counts the slots whose callers want to leave.
func (l *clientLane) waiters() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots {
		if l.slots[i].giveUp {
			n++
		}
	}
	return n
}

// TestClientExportChanged: another export under the old name is not written to.
func TestClientExportChanged(t *testing.T) {
	cases := map[string]struct {
		change func(*fakeServer)
		text   string
	}{
		"size":         {func(s *fakeServer) { s.size /= 2 }, "524288 bytes, was 1048576"},
		"flags":        {func(s *fakeServer) { s.flags &^= tfFUA }, "flags 0x8 are missing"},
		"read-only":    {func(s *fakeServer) { s.flags |= tfReadOnly }, "read-only now"},
		"block size":   {func(s *fakeServer) { s.blockSize = [3]uint32{512, 4096, 32 << 20} }, "minimum block size 512, was 0"},
		"max payload":  {func(s *fakeServer) { s.blockSize = [3]uint32{1, 4096, 1 << 20} }, "maximum payload 1048576"},
		"replies":      {func(s *fakeServer) { s.noExtended = true }, "structured replies, were extended"},
		"contexts":     {func(s *fakeServer) { s.contexts = s.contexts[:0] }, "metadata contexts"},
		"wrong at all": {func(s *fakeServer) { s.greeting = bytes.Repeat([]byte("x"), 18) }, "not an NBD server"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			s.contexts = []string{ContextAllocation}
			c := s.start().dial(ClientConfig{Reconnect: ReconnectForever})
			s.crash(true)
			s.conns.Wait()
			s.mu.Lock()
			tc.change(s)
			s.cut = false
			s.mu.Unlock()
			err := c.ReadAt(background, make([]byte, 512), 0)
			wantKind(t, err, block.IO)
			if !strings.Contains(err.Error(), tc.text) {
				t.Error(err)
			}
		})
	}
}

// TestClientServerShutsDown: requests that a server refuses because it ends go to
// its successor.
func TestClientServerShutsDown(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			if c.number < 3 {
				c.fail(r, wireESHUTDOWN, "")
				return true
			}
			return false
		})
	}
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever})
	roundTrip(t, c)
	if n := c.Reconnects(); n != 2 {
		t.Errorf("%d reconnects", n)
	}
}

// TestClientCloseHungServer: Close waits for a silent server no longer than told.
func TestClientCloseHungServer(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	got := make(chan request, 1)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool { got <- r; return true })
	}
	c := s.start().dial(ClientConfig{CloseTimeout: 100 * time.Millisecond})
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := c.ReadAt(background, make([]byte, 512), 0); block.KindOf(err) != block.Closed {
			t.Error(err)
		}
	})
	<-got
	within(t, "close", func() { _ = c.Close() })
	within(t, "the read", reading.Wait)
}

// TestClientSaysGoodbye: Close sends DISC after the last reply.
func TestClientSaysGoodbye(t *testing.T) {
	for name, mode := range fakeModes {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			mode(s)
			last := make(chan request, 1)
			s.serve = func(c *fakeConn) {
				r, _, err := c.next()
				if err != nil {
					t.Error(err)
				}
				last <- r
			}
			c := s.start().dial(ClientConfig{})
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if r := <-last; r.cmd != cmdDisconnect || r.offset != 0 || r.length != 0 || r.flags != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestClientWriterHandsOver: a caller that writes for others does not do so for
// ever.
func TestClientWriterHandsOver(t *testing.T) {
	s := newFakeServer(t, 8<<20)
	c := s.start().dial(ClientConfig{})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, 200<<10)
			for range 10 {
				if err := c.WriteAt(background, p, int64(i)*(256<<10), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	within(t, "writers", wg.Wait)
	for i := range int64(32) {
		p := make([]byte, 200<<10)
		if err := c.ReadAt(background, p, i*(256<<10)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, bytes.Repeat([]byte{byte(i + 1)}, len(p))) {
			t.Fatalf("wrong bytes of writer %d", i)
		}
	}
}

func TestClientErrorsUnwrap(t *testing.T) {
	err := clientErrorf(block.NotFound, "x: %w", ErrProtocol)
	if !errors.Is(err, block.NotFound) || !errors.Is(err, ErrProtocol) || block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
}
