package rpc

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/block"
)

// TestSocketsAreGivenBack, whatever ends a connection; and without one, calls are made
// all the same.
func TestSocketsAreGivenBack(t *testing.T) {
	before := sockets.Load()
	for _, limit := range []bool{false, true} {
		s := serve(t, echo)
		if limit {
			sockets.Add(maxSockets)
		}
		tr := open(t, s, Config{})
		var direct bool
		c := tr.NewCall()
		for range 5 {
			must(t, send(t, tr, c, make([]byte, 100<<10)))
			tr.mu.Lock()
			direct = tr.link != nil && tr.link.stream.sock != nil
			tr.mu.Unlock()
			if direct == limit {
				t.Errorf("a socket of its own: %v", direct)
			}
			tr.Break()
		}
		must(t, tr.Close())
		if limit {
			sockets.Add(-maxSockets)
		}
		if n := sockets.Load(); n != before {
			t.Errorf("%d sockets, %d before", n, before)
		}
	}
}

// TestConnClose: who kept Link.Conn can still break the connection with it, and do no harm
// when that is gone.
func TestConnClose(t *testing.T) {
	came := make(chan struct{}, 4)
	var conns []net.Conn
	var calls atomic.Int64
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		came <- struct{}{}
		if calls.Add(1) > 1 {
			echo(conn, xid, args)
		}
	}), Config{Revive: keepConn(&conns)})
	first := conns[0]
	go func() { <-came; _ = first.Close() }()
	must(t, send(t, tr, tr.NewCall(), make([]byte, 8)))
	if tr.Losses() != 1 {
		t.Errorf("%d losses", tr.Losses())
	}
	_ = first.Close()
	must(t, send(t, tr, tr.NewCall(), make([]byte, 8)))
	if tr.Losses() != 1 {
		t.Errorf("%d losses", tr.Losses())
	}
}

// pair is two ends of a TCP connection.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = listener.Close() }()
	ours, err = net.Dial("tcp", listener.Addr().String())
	must(t, err)
	theirs, err = listener.Accept()
	must(t, err)
	return ours, theirs
}

// TestStreamPieces: what the other side gets of many pieces, of all sizes, is what was
// given, and what is read is what it sends, wherever it is cut.
func TestStreamPieces(t *testing.T) {
	ours, theirs := pair(t)
	s := newStream(ours)
	s.work()
	var pieces [][]byte
	for i := range 3000 {
		pieces = append(pieces, bytes.Repeat([]byte{byte(i)}, i*7919%3000))
	}
	pieces = append(pieces, bytes.Repeat([]byte{1}, 5<<20), nil, []byte{2})
	want := bytes.Join(pieces, nil)
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := s.send(pieces); err != nil {
			t.Error(err)
		}
	})
	sending.Go(func() { _, _ = io.CopyN(theirs, theirs, int64(len(want))) })
	got := make([]byte, len(want))
	for rest := got; len(rest) > 0; {
		n := min(len(rest), 1+len(rest)/3)
		must(t, s.fill(rest[:n]))
		rest = rest[n:]
	}
	sending.Wait()
	if !bytes.Equal(got, want) {
		t.Error("other bytes came back")
	}
	s.close()
	if err := s.need(1, 1); err == nil || block.KindOf(err) == block.Corrupt || describe(err).Error() != "the connection broke" {
		t.Error(err)
	}
	_ = theirs.Close()
	s.release()
	s.release()
}
