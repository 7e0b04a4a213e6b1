package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
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
					if round%50 == 0 {
						time.Sleep(2 * clientLinger) // the reading goes back to run
					}
				}
			})
		})
	}
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
