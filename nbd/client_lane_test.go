package nbd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
)

// header reads a request without its payload.
func (c *fakeConn) header() (request, error) {
	p := make([]byte, requestExtendedSize)
	if !c.extended {
		p = p[:requestSize]
	}
	if _, err := io.ReadFull(c, p); err != nil {
		return request{}, err
	}
	if c.extended {
		return decodeRequestExtended(p), nil
	}
	return decodeRequest(p), nil
}

const longWrite = 4 << 20 // more than a socket takes

// lentServer answers a long write that another call sends by its header alone, and
// reads the payload only then. Before that it sends a long reply, which the client
// has to take while its writer is stuck.
type lentServer struct {
	*fakeServer
	first  chan struct{} // the first write's header is here
	queued chan struct{} // closed when the others wait behind it
	back   chan struct{} // closed when the refused write has returned
	abrupt bool          // end the connection instead of reading on
	got    chan []byte   // the refused write's payload
}

func newLentServer(t *testing.T, mode string) *lentServer {
	s := &lentServer{fakeServer: newFakeServer(t, 16<<20), first: make(chan struct{}, 1),
		queued: make(chan struct{}), back: make(chan struct{}), got: make(chan []byte, 1)}
	fakeModes[mode](s.fakeServer)
	s.serve = func(c *fakeConn) {
		if c.number > 1 || s.script(c) {
			c.memory(nil)
		}
	}
	return s
}

func (s *lentServer) script(c *fakeConn) bool {
	one, err := c.header()
	if err != nil {
		s.t.Error(err)
		return false
	}
	s.first <- struct{}{}
	<-s.queued
	_, err1 := io.CopyN(io.Discard, c, int64(one.length))
	c.ok(one)
	read, err2 := c.header()
	refused, err3 := c.header()
	if err1 != nil || err2 != nil || err3 != nil || read.cmd != cmdRead || refused.cmd != cmdWrite {
		s.t.Error(err1, err2, err3, read, refused)
		return false
	}
	c.fail(refused, wireEPERM, "")
	c.read(read, make([]byte, read.length))
	if s.abrupt {
		return false
	}
	select {
	case <-s.back: // too early: the caller has its buffer again
	case <-time.After(100 * time.Millisecond):
	}
	payload := make([]byte, refused.length)
	_, err = io.ReadFull(c, payload)
	if err != nil {
		s.t.Error(err)
	}
	s.got <- payload
	return err == nil
}

// play makes the three calls and gives the refused one's error.
func (s *lentServer) play(c *Client) (refusal error) {
	var calls sync.WaitGroup
	defer calls.Wait()
	calls.Go(func() {
		if err := c.WriteAt(background, make([]byte, longWrite), 0, 0); err != nil {
			s.t.Error(err)
		}
	})
	<-s.first
	calls.Go(func() {
		if err := c.ReadAt(background, make([]byte, longWrite), 0); err != nil {
			s.t.Error(err)
		}
	})
	for c.lanes[0].waiting() < 1 {
		wait(s.t)
	}
	refused := make(chan error, 1)
	calls.Go(func() {
		p := bytes.Repeat([]byte{7}, longWrite)
		err := c.WriteAt(background, p, 8<<20, 0)
		for i := range p {
			p[i] = 9 // it is the caller's again
		}
		close(s.back)
		refused <- err
	})
	for c.lanes[0].waiting() < 2 {
		wait(s.t)
	}
	close(s.queued)
	return <-refused
}

// waiting counts the slots in the queue.
func (l *clientLane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) - l.head
}

// TestClientAnsweredBeforeSent: a write that is refused before it is sent returns
// when its buffer is no longer needed, and replies are read meanwhile.
func TestClientAnsweredBeforeSent(t *testing.T) {
	for mode := range fakeModes {
		t.Run(mode, func(t *testing.T) {
			s := newLentServer(t, mode)
			s.start()
			c := s.dial(ClientConfig{})
			within(t, "the calls", func() { wantKind(t, s.play(c), block.ReadOnly) })
			if got := <-s.got; !bytes.Equal(got, bytes.Repeat([]byte{7}, longWrite)) {
				t.Error("the server got bytes that the caller wrote after its call")
			}
			roundTrip(t, c)
		})
	}
}

// TestClientAnsweredThenLost: a write that was refused is not made again when the
// connection breaks under the rest of it.
func TestClientAnsweredThenLost(t *testing.T) {
	s := newLentServer(t, "extended")
	s.abrupt = true
	s.start()
	c := s.dial(ClientConfig{Reconnect: ReconnectForever, StableCache: true})
	within(t, "the calls", func() { wantKind(t, s.play(c), block.ReadOnly) })
	roundTrip(t, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data[8<<20] != 0 {
		t.Error("the refused write was made")
	}
}

// TestClientQueueBounded: a queue that never runs empty does not grow.
func TestClientQueueBounded(t *testing.T) {
	l := newClientLane(&Client{}, 4)
	room := cap(l.queue)
	for i := range 10000 {
		l.enqueue(&l.slots[i%4])
		if len(l.queue)-l.head > 3 { // sent
			l.queue[l.head] = nil
			l.head++
		}
		if s := l.queue[len(l.queue)-1]; s != &l.slots[i%4] || l.queue[l.head] != &l.slots[max(i-2, 0)%4] {
			t.Fatalf("out of order after %d", i)
		}
	}
	if cap(l.queue) != room {
		t.Errorf("room for %d, was %d", cap(l.queue), room)
	}
}

// pausingHandler stops whoever logs a message until it is told to go on.
type pausingHandler struct {
	slog.Handler
	message          string
	reached, proceed chan struct{}
}

func (h pausingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h pausingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.reached <- struct{}{}
		<-h.proceed
	}
	return nil
}

// TestClientCloseMeetsReconnect: Close while a connection has been made and is not
// in use yet.
func TestClientCloseMeetsReconnect(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	h := pausingHandler{slog.DiscardHandler, "NBD connection made again", make(chan struct{}), make(chan struct{})}
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever, Logger: slog.New(h)})
	s.crash(false)
	<-h.reached
	var closing sync.WaitGroup
	closing.Go(func() { _ = c.Close() })
	for len(c.lanes[0].free) > 0 {
		wait(t)
	}
	wait(t) // for hangUp, which finds no connection
	close(h.proceed)
	within(t, "close", closing.Wait)
}

// TestClientDeadlyRequest: a request on which the server ends the connection fails
// when the policy's time is over. The server is not overrun meanwhile, and others
// are served.
func TestClientDeadlyRequest(t *testing.T) {
	const deadly = 4096
	for name, die := range map[string]func(c *fakeConn, r request){
		"closes":   func(c *fakeConn, _ request) { _ = c.Close() },
		"shutdown": func(c *fakeConn, r request) { c.fail(r, wireESHUTDOWN, "") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			var conns atomic.Int64
			s.serve = func(c *fakeConn) {
				conns.Add(1)
				var kept *request // answered after another: each connection serves something
				c.memory(func(r request, _ []byte) bool {
					switch {
					case r.offset == deadly && r.cmd == cmdRead:
						kept = &r
						return true
					case kept != nil:
						c.read(r, make([]byte, r.length))
						die(c, *kept)
						return true
					}
					return false
				})
			}
			c := s.start().dial(ClientConfig{Reconnect: ReconnectFor(600 * time.Millisecond)})
			ctx, cancel := context.WithCancel(background)
			var others sync.WaitGroup
			others.Go(func() {
				for ctx.Err() == nil {
					if err := c.ReadAt(background, make([]byte, 512), 0); err != nil {
						t.Error(err)
					}
				}
			})
			began := time.Now()
			within(t, "the deadly request", func() {
				err := c.ReadAt(background, make([]byte, 512), deadly)
				wantKind(t, err, block.Transient)
				if !strings.Contains(err.Error(), "again and again") {
					t.Error(err)
				}
			})
			if took := time.Since(began); took < 600*time.Millisecond {
				t.Errorf("given up after %v", took)
			}
			cancel()
			within(t, "the others", others.Wait)
			// Six or so; a busy machine makes it fewer.
			if n := conns.Load(); n < 2 || n > 12 {
				t.Errorf("%d connections", n)
			}
			roundTrip(t, c)
		})
	}
}

// TestClientRestartsAtOnce: a server that is restarted under load costs no waiting.
func TestClientRestartsAtOnce(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	c := s.start().dial(ClientConfig{Reconnect: ReconnectForever, StableCache: true})
	const restarts = 100
	took := time.Hour
	for try := 0; try < 3 && took > restarts*clientFirstDelay; try++ { // once, unless the machine is busy
		began := time.Now()
		for range restarts {
			if err := c.ReadAt(background, make([]byte, 512), 0); err != nil {
				t.Fatal(err)
			}
			s.crash(false)
		}
		took = time.Since(began)
	}
	if took > restarts*clientFirstDelay {
		t.Errorf("%d restarts took %v", restarts, took)
	}
}
