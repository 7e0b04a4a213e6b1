package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
)

// untilCallersRead makes calls one after the other until they read themselves.
func untilCallersRead(t *testing.T, c *Client) {
	t.Helper()
	within(t, "callers that read", func() {
		for was := c.lanes[0].reading.uses.Load(); c.lanes[0].reading.uses.Load() == was; {
			if err := c.ReadAt(background, make([]byte, 512), 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// TestClientCallersRead changes between one caller and several, with pauses and
// without: whoever reads, every reply arrives, and soon.
func TestClientCallersRead(t *testing.T) {
	for mode := range fakeModes {
		t.Run(mode, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			fakeModes[mode](s)
			for i := range s.data {
				s.data[i] = byte(i * i >> 8)
			}
			c := s.start().dial(ClientConfig{})
			untilCallersRead(t, c)
			call := func(r *rand.Rand) {
				p, off := make([]byte, 1+r.IntN(40000)), r.Int64N(900<<10)
				if err := c.ReadAt(background, p, off); err != nil || !bytes.Equal(p, s.data[off:off+int64(len(p))]) {
					t.Errorf("%d bytes at %d: wrong, or %v", len(p), off, err)
				}
			}
			within(t, "calls", func() {
				for round := range 300 {
					var calls sync.WaitGroup
					for i := range round % 4 {
						calls.Go(func() {
							r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
							for range r.IntN(12) {
								call(r)
							}
						})
					}
					calls.Wait()
					for round%50 == 0 && c.lanes[0].reading.role.Load() != readerRun {
						wait(t) // the reading goes back to run
					}
				}
			})
		})
	}
}

// restingLane gives a lane whose run is leaving the reading to callers, and tells
// how long it did, by the clock of the bubble.
func restingLane() (l *clientLane, rested chan time.Duration) {
	l, rested = newClientLane(&Client{}, 1), make(chan time.Duration, 1)
	go func() {
		began, timer := time.Now(), time.NewTimer(time.Hour)
		_ = l.rest(timer)
		timer.Stop()
		rested <- time.Since(began)
	}()
	synctest.Wait()
	return l, rested
}

// TestClientLingers: run takes the reading back at once where nobody comes, and
// looks seldom while callers have it.
func TestClientLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, rested := restingLane()
		if took := <-rested; took != clientLinger || l.reading.role.Load() != readerRun {
			t.Errorf("taken back after %v, by %d", took, l.reading.role.Load())
		}
	})
	// So that the sum of the lingers before, 1 + 2 + 4 … + 64 + n·100 ms, is in the
	// middle between two looks.
	const use = 127*time.Millisecond + 20*clientMaxLinger + clientMaxLinger/2
	for name, busy := range map[string]time.Duration{"one long call": use, "many calls": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, rested := restingLane()
				for range use / busy {
					if !l.reading.role.CompareAndSwap(readerNone, readerCaller) {
						t.Fatal("taken from the callers")
					}
					l.reading.uses.Add(1)
					time.Sleep(busy)
					l.reading.role.Store(readerNone)
				}
				looks := use + clientMaxLinger/2
				if took := <-rested; took != looks && took != looks+clientMaxLinger {
					t.Errorf("taken back after %v, want %v or %v more", took, looks, clientMaxLinger)
				}
			})
		})
	}
}

// TestClientCloseEndsRest: Close does not wait until run looks after the reading.
func TestClientCloseEndsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, rested := restingLane()
		conn, server := net.Pipe()
		l.link = &clientLink{stream: newClientStream(conn)}
		l.hangUp(false)
		if took := <-rested; took != 0 || l.reading.role.Load() != readerRun {
			t.Errorf("after %v, by %d", took, l.reading.role.Load())
		}
		_ = server.Close()
	})
}

// hangServer answers until it is told to stop; then it tells of each request.
func hangServer(t *testing.T) (s *fakeServer, hang func(), got chan request) {
	s = newFakeServer(t, 1<<20)
	stop := make(chan struct{})
	got = make(chan request, 8)
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			select {
			case <-stop:
				if c.number == 1 {
					got <- r
					return true
				}
			default:
			}
			return false
		})
	}
	return s.start(), func() { close(stop) }, got
}

// TestClientReaderLosesConnection: what a caller reads itself when the connection
// breaks is made again; who wanted to leave leaves.
func TestClientReaderLosesConnection(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		s, hang, got := hangServer(t)
		c := s.dial(ClientConfig{Reconnect: ReconnectForever})
		untilCallersRead(t, c)
		hang()
		ctx, cancel := context.WithCancel(background)
		var reading sync.WaitGroup
		reading.Go(func() {
			if err := c.ReadAt(ctx, make([]byte, 512), 0); cancelled {
				wantCanceled(t, err)
			} else if err != nil {
				t.Error(err)
			}
		})
		<-got
		if cancelled {
			cancel()
		}
		s.crash(false)
		within(t, "the read", reading.Wait)
		roundTrip(t, c)
		cancel()
	}
}

// TestClientReaderComesLate: a caller that gets to the reading only when its request
// has long been failed, and the next connection serves others, waits for no reply.
func TestClientReaderComesLate(t *testing.T) {
	s, hang, got := hangServer(t)
	c := s.dial(ClientConfig{Reconnect: ReconnectFor(time.Minute)})
	l := c.lanes[0]
	roundTrip(t, c)
	hang()
	slot, err := l.acquire(background)
	if err != nil {
		t.Fatal(err)
	}
	slot.cmd, slot.flags, slot.off, slot.n, slot.buf = cmdRead, 0, 0, 512, make([]byte, 512)
	if !l.submit(slot) {
		t.Fatal("the request was not sent")
	}
	<-got
	l.mu.Lock()
	slot.lost = time.Now().Add(-time.Hour) // its time is over with the next loss
	l.mu.Unlock()
	s.crash(false)
	within(t, "the late caller", func() {
		for c.Reconnects() == 0 || len(slot.done) == 0 {
			wait(t)
		}
		for !l.reading.role.CompareAndSwap(readerNone, readerCaller) {
			if err := c.ReadAt(background, make([]byte, 512), 0); err != nil {
				t.Error(err)
				return
			}
		}
		if l.readFor(background, slot) {
			t.Error("withdrawn")
		}
		<-slot.done
	})
	wantKind(t, slot.result("read", ""), block.Transient)
	l.release(slot)
	roundTrip(t, c)
}

// TestClientReaderMeetsClose: Close ends a call that reads from a silent server,
// and a connection that nobody reads from.
func TestClientReaderMeetsClose(t *testing.T) {
	s, hang, got := hangServer(t)
	c := s.dial(ClientConfig{CloseTimeout: 50 * time.Millisecond})
	untilCallersRead(t, c)
	hang()
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := c.ReadAt(background, make([]byte, 512), 0); block.KindOf(err) != block.Closed {
			t.Error(err)
		}
	})
	<-got
	within(t, "close", func() { _ = c.Close() })
	within(t, "the read", reading.Wait)

	idle := newFakeServer(t, 1<<20).start().dial(ClientConfig{})
	untilCallersRead(t, idle)
	within(t, "close at rest", func() { _ = idle.Close() })
}

// TestClientNoticesLossAtRest: a connection that breaks while nothing is in flight
// is made again without anybody asking.
func TestClientNoticesLossAtRest(t *testing.T) {
	s := newFakeServer(t, 1<<20).start()
	c := s.dial(ClientConfig{Reconnect: ReconnectForever})
	untilCallersRead(t, c)
	s.crash(false)
	within(t, "reconnect", func() {
		for c.Reconnects() == 0 {
			wait(t)
		}
	})
}
