package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
)

// starter is RAM that starts requests, in all the ways that it may.
type starter struct {
	block.Device
	mood func() int // what becomes of the next one: see begin

	mu   sync.Mutex
	held []func() // started, and waiting for Kick
	all  sync.WaitGroup

	began, failed atomic.Int64
}

func newStarter(t testing.TB, size int64) *starter {
	s := &starter{Device: newRAM(t, size)}
	rng := rand.New(rand.NewPCG(5, 5))
	var mu sync.Mutex
	s.mood = func() int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(10)
	}
	return s
}

func (s *starter) Info() block.Info {
	info := s.Device.Info()
	info.Caps = block.CapFlush | block.CapFUA | block.CapMultiConn | block.CapStart
	return info
}

func (s *starter) Close() error {
	s.all.Wait()
	return s.Device.Close()
}

const (
	refuse  = 0 // it is not begun
	atOnce  = 1 // it ends before its start returns
	fail    = 2 // nothing was done, and it ends in an error
	halfWay = 3 // it was done, and ends in an error all the same
)

func (s *starter) begin(do func() error, done block.Done) bool {
	mood := s.mood()
	if mood == refuse {
		return false
	}
	s.began.Add(1)
	end := func() block.Pusher {
		err := block.Transient
		if mood != fail {
			if e := do(); e != nil {
				return done.Done(e)
			}
		}
		if mood == fail || mood == halfWay {
			s.failed.Add(1)
			return done.Done(err)
		}
		return done.Done(nil)
	}
	if mood == atOnce {
		if p := end(); p != nil {
			p.Push()
		}
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, func() {
		if p := end(); p != nil {
			p.Push()
		}
	})
	return true
}

func (s *starter) StartRead(p []byte, off int64, done block.Done) bool {
	return s.begin(func() error { return s.ReadAt(context.Background(), p, off) }, done)
}

func (s *starter) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	return s.begin(func() error { return s.WriteAt(context.Background(), p, off, flags) }, done)
}

func (s *starter) Kick() {
	s.mu.Lock()
	held := s.held
	s.held = nil
	s.mu.Unlock()
	if len(held) > 0 {
		s.all.Go(func() {
			for _, end := range held {
				end()
			}
		})
	}
}

// TestServerStartsRequests runs the conformance suite over a server whose device starts
// requests.
func TestServerStartsRequests(t *testing.T) {
	for name, cfg := range map[string]ClientConfig{"structured": {}, "simple": {NoStructured: true}, "four": {Connections: 4}} {
		var dev *starter
		var uri string
		open := func(t testing.TB) block.Device {
			c, err := Dial(background, uri, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		blocktest.Suite{Name: name, LooseZero: true, Reopen: open, Open: func(t testing.TB) block.Device {
			dev = newStarter(t, blocktest.MinSize)
			uri = ownServer(t, dev)
			return open(t)
		}}.Run(t)
		if dev != nil && dev.began.Load() == 0 {
			t.Errorf("%s: no request was started", name)
		}
	}
}

// TestStartedRequestsOfAClientThatLeaves: the connection ends only when all that was
// started has.
func TestStartedRequestsOfAClientThatLeaves(t *testing.T) {
	dev := newStarter(t, 1<<20)
	dev.mood = func() int { return 9 }
	c, err := Dial(background, ownServer(t, dev), ClientConfig{Reconnect: NoReconnect})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, 4096)
			if err := c.WriteAt(background, p, int64(i)*4096, 0); err != nil {
				t.Error(err)
			}
			q := make([]byte, 4096)
			if err := c.ReadAt(background, q, int64(i)*4096); err != nil || !slices.Equal(p, q) {
				t.Errorf("read back other bytes, %v", err)
			}
		})
	}
	all.Wait()
	go func() { _ = c.ReadAt(background, make([]byte, 4096), 0) }()
	_ = c.Close()
}
