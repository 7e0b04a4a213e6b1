package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/backends/nfs/xdr"
)

// script is a connection over which a server says what the test has it say, once it has
// got all calls.
type script struct {
	net.Conn // nil
	mu       sync.Mutex
	calls    int // still to come
	called   chan struct{}
	says     []byte
	closed   chan struct{}
	once     sync.Once
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for rest := p; len(rest) >= markSize; { // a batch has whole calls
		n, _ := markOf(rest)
		rest = rest[min(markSize+n, len(rest)):]
		if s.calls--; s.calls == 0 {
			close(s.called)
		}
	}
	return len(p), nil
}

func (s *script) Read(p []byte) (int, error) {
	select {
	case <-s.called:
	case <-s.closed:
		return 0, net.ErrClosed
	}
	if len(s.says) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.says)
	s.says = s.says[n:]
	return n, nil
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *script) SetDeadline(time.Time) error { return nil }

const fuzzMaxReply = 64 << 10

// fuzzCalls: without payload, with a short one, with a long one, with status, and one
// whose caller has left (see outcomes).
var fuzzCalls = []struct {
	find Finder
	into int
}{{nil, 0}, {bulk{}, 100}, {bulk{}, 48 << 10}, {halfway{}, 64}, {bulk{}, 32}}

func fuzzXID(i int) uint32 { return 1<<indexBits | uint32(i+1) } // the place 0 is watch's

// FuzzReplies: whatever a server says while calls are outstanding, each ends once, and
// no reply takes more memory than it may.
func FuzzReplies(f *testing.F) {
	payload := func(n int) []byte { return append(words(uint32(n)), make([]byte, n+xdr.Pad(n))...) }
	var all []byte
	for i, c := range fuzzCalls {
		results := payload(c.into)
		if i == 3 {
			results = append(words(0), results...)
		}
		reply := marked(accepted(fuzzXID(i), results))
		f.Add(reply)
		f.Add(reply[:len(reply)/2])
		f.Add(append(reply, reply...))
		fragments := append(xdr.AppendUint32(nil, 24), reply[4:28]...)
		f.Add(append(append(fragments, words(lastFragment|uint32(len(reply)-28))...), reply[28:]...))
		all = append(all, reply...)
	}
	f.Add(all)
	f.Add(marked(words(fuzzXID(0), msgReply, 1, 1, 1)))
	f.Add(marked(words(fuzzXID(1), msgReply, 0, 0, 0, 2, 1, 4)))
	f.Add(marked(words(7, msgCall, 2, 0x40000000)))
	f.Add(marked(words(fuzzXID(2), msgReply, 7)))
	f.Add(words(1 << 30))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, says []byte) { outcomes(t, says) })
}

// outcomes has calls meet what a server says.
func outcomes(t *testing.T, says []byte) {
	s := &script{calls: len(fuzzCalls), called: make(chan struct{}), says: says, closed: make(chan struct{})}
	dials := 0
	tr, err := Open(context.Background(), Config{MaxReply: fuzzMaxReply,
		Answer: func(call []byte) []byte { return call[:min(len(call), 64)] },
		Dial: func(context.Context) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("only once")
			}
			return s, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	leaver := len(fuzzCalls) - 1
	drained := make(chan struct{}, 2)
	left := false
	var calls []*Call
	var callers sync.WaitGroup
	for i, like := range fuzzCalls {
		c := tr.NewCall()
		c.gen = 0
		c.Head = tr.Start(nil, 6)
		c.Find, c.Into = like.find, make([]byte, like.into)
		calls = append(calls, c)
		if i != leaver {
			callers.Go(func() { _, _ = tr.Do(context.Background(), c) })
			continue
		}
		c.Drained = func() { drained <- struct{}{} }
		callers.Go(func() { left, _ = tr.Do(ctx, c) })
	}
	go func() { <-s.called; cancel() }()
	callers.Wait()
	if left {
		<-drained
	}
	_ = tr.Close()
	for i, c := range calls {
		if len(c.done) > 0 || c.live.Load() != 0 || cap(c.Reply) > 2*(fuzzMaxReply+prefix) || c.N > fuzzCalls[i].into {
			t.Errorf("call %d: %d completions to come, xid %#x, %d bytes of results, %d of data", i, len(c.done), c.live.Load(), cap(c.Reply), c.N)
		}
	}
	if tr.flight.Load() != 0 || len(drained) > 0 {
		t.Errorf("%d calls in flight, %d drained", tr.flight.Load(), len(drained))
	}
}
