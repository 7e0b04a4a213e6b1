package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/nfs/xdr"
	"sluice/block"
)

// server answers calls as the test says. Each connection reads one call after the
// other and hands it to answer, which may write what it likes.
type server struct {
	listener net.Listener
	answer   func(conn net.Conn, xid uint32, args []byte)
	records  func(conn net.Conn, record []byte) // instead, if set
	serving  sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func serve(t *testing.T, answer func(conn net.Conn, xid uint32, args []byte)) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, &server{listener: listener, answer: answer})
}

// serveRecords is serve for who wants to see all of a call.
func serveRecords(t *testing.T, f func(conn net.Conn, record []byte)) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, &server{listener: listener, records: f})
}

func start(t *testing.T, s *server) *server {
	s.serving.Go(s.accept)
	t.Cleanup(func() {
		_ = s.listener.Close()
		s.cut()
		s.serving.Wait()
	})
	return s
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.serving.Go(func() { s.read(conn) })
	}
}

func (s *server) read(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var mark [4]byte
		if _, err := io.ReadFull(conn, mark[:]); err != nil {
			return
		}
		record := make([]byte, binary.BigEndian.Uint32(mark[:])&^lastFragment)
		if _, err := io.ReadFull(conn, record); err != nil {
			return
		}
		if s.records != nil {
			s.records(conn, record)
			continue
		}
		// xid, CALL, 2, program, version, procedure, two empty authentications
		s.answer(conn, binary.BigEndian.Uint32(record), record[40:])
	}
}

func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

// accepted is an accepted reply without its record mark.
func accepted(xid uint32, results []byte) []byte {
	b := xdr.AppendUint32(nil, xid)
	for _, v := range []uint32{msgReply, 0, 0, 0, 0} {
		b = xdr.AppendUint32(b, v)
	}
	return append(b, results...)
}

func marked(record []byte) []byte {
	return append(xdr.AppendUint32(nil, lastFragment|uint32(len(record))), record...)
}

func open(t *testing.T, s *server, cfg Config) *Transport {
	t.Helper()
	cfg.Dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.listener.Addr().String())
	}
	cfg.Program, cfg.Version, cfg.Object = 100003, 3, "test"
	if cfg.MaxReply == 0 {
		cfg.MaxReply = 1 << 20
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	tr, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// bulk finds opaque data at the beginning of the results.
type bulk struct{}

func (bulk) Payload(results []byte) (at, n int) {
	if len(results) < 4 {
		return 0, 0
	}
	return 4, int(binary.BigEndian.Uint32(results))
}

// echo sends the arguments back, in whatever order the connections get at it.
func echo(conn net.Conn, xid uint32, args []byte) { _, _ = conn.Write(marked(accepted(xid, args))) }

// send calls with p as an argument and wants it back as a payload.
func send(t *testing.T, tr *Transport, c *Call, p []byte) error {
	t.Helper()
	got := make([]byte, len(p))
	c.Head = xdr.AppendUint32(tr.Start(c.Head, 7), uint32(len(p)))
	c.Data, c.Into, c.Find, c.Changes = p, got, bulk{}, true
	_, err := tr.Do(t.Context(), c)
	if err == nil && (c.N != len(p) || !bytes.Equal(got, p)) {
		t.Errorf("%d bytes came back, of %d", c.N, len(p))
	}
	return err
}

// TestCalls: many callers at once get their own bytes back, of all sizes.
func TestCalls(t *testing.T) {
	tr := open(t, serve(t, echo), Config{})
	var callers sync.WaitGroup
	for g := range 16 {
		c := tr.NewCall()
		callers.Go(func() {
			for i := range 60 {
				p := bytes.Repeat([]byte{byte(g*16 + i)}, 1+(g*7919+i*104729)%(200<<10))
				if err := send(t, tr, c, p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
}

// TestCutsAreRepaired: whatever was in flight when a connection broke is answered
// over the next one.
func TestCutsAreRepaired(t *testing.T) {
	var count atomic.Int64
	s := serve(t, func(conn net.Conn, xid uint32, args []byte) {
		reply := marked(accepted(xid, args))
		if n := count.Add(1); n%50 == 0 {
			_, _ = conn.Write(reply[:int(n)%len(reply)])
			_ = conn.Close()
			return
		}
		_, _ = conn.Write(reply)
	})
	tr := open(t, s, Config{})
	var callers sync.WaitGroup
	for g := range 8 {
		c := tr.NewCall()
		callers.Go(func() {
			for i := range 50 {
				if err := send(t, tr, c, bytes.Repeat([]byte{byte(g + i)}, 3000+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if tr.Losses() < 5 {
		t.Errorf("%d connections lost", tr.Losses())
	}
}

// TestOddReplies: replies in fragments, twice, with strange xids, and calls of the
// server's in between.
func TestOddReplies(t *testing.T) {
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		_, _ = conn.Write(marked(accepted(xid+1, args)))
		whole := accepted(xid, args)
		var out []byte
		for len(whole) > 5 {
			out = append(xdr.AppendUint32(out, 5), whole[:5]...)
			whole = whole[5:]
		}
		_, _ = conn.Write(append(out, marked(whole)...))
		_, _ = conn.Write(marked(accepted(xid, args)))
		_, _ = conn.Write(marked([]byte{1, 2, 3, 4, 0, 0, 0, 0}))
	}), Config{})
	c := tr.NewCall()
	for i := range 20 {
		if err := send(t, tr, c, bytes.Repeat([]byte{byte(i)}, 100+i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBreaches: a server that breaks the rules is told of, with what it did.
func TestBreaches(t *testing.T) {
	for text, reply := range map[string]func(xid uint32, args []byte) []byte{
		"a record of 1073741824 bytes": func(uint32, []byte) []byte { return xdr.AppendUint32(nil, lastFragment|1<<30) },
		"a record of 3 bytes":          func(uint32, []byte) []byte { return marked([]byte{1, 2, 3}) },
		"fragments of a record":        func(uint32, []byte) []byte { return xdr.AppendUint32(nil, 1<<30) },
		"reply_stat 9": func(xid uint32, _ []byte) []byte {
			return marked(xdr.AppendUint32(xdr.AppendUint32(xdr.AppendUint32(nil, xid), msgReply), 9))
		},
		"where 100 were asked for": func(xid uint32, args []byte) []byte {
			return marked(accepted(xid, append([]byte{0, 0, 0, 104, 1, 2, 3, 4}, args[4:]...)))
		},
	} {
		tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) { _, _ = conn.Write(reply(xid, args)) }), Config{})
		err := send(t, tr, tr.NewCall(), make([]byte, 100))
		var breach *ProtocolError
		if !errors.As(err, &breach) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRefusals: what the server says in place of results.
func TestRefusals(t *testing.T) {
	code := uint32(2)
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, _ []byte) {
		b := accepted(xid, nil)
		b[len(b)-1] = byte(code)
		_, _ = conn.Write(marked(append(b, 0, 0, 0, 4, 0, 0, 0, 4)))
	}), Config{})
	var refused *ReplyError
	if err := send(t, tr, tr.NewCall(), make([]byte, 8)); !errors.As(err, &refused) || !refused.Mismatch() || refused.High != 4 {
		t.Error(err)
	}
}

// TestLeaving: a caller that leaves does not get its buffer filled, and the Call is
// free when the reply has come.
func TestLeaving(t *testing.T) {
	came, goOn := make(chan struct{}), make(chan struct{})
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		came <- struct{}{}
		<-goOn
		echo(conn, xid, append(args, 9, 9, 9, 9))
	}), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan struct{})
	c := tr.NewCall()
	c.Drained = func() { close(drained) }
	into := make([]byte, 4)
	c.Head = xdr.AppendUint32(tr.Start(nil, 6), 4)
	c.Into, c.Find = into, bulk{}
	go func() { <-came; cancel() }()
	if left, err := tr.Do(ctx, c); !left || block.KindOf(err) != block.Canceled {
		t.Error(left, err)
	}
	close(goOn)
	<-drained
	if into[0] != 0 {
		t.Error("a buffer was filled that its caller had taken back")
	}
}

// TestSilence: a server that says nothing any more is left and asked anew.
func TestSilence(t *testing.T) {
	var calls atomic.Int64
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, args []byte) {
		if calls.Add(1) > 2 { // the call and the question
			echo(conn, xid, args)
		}
	}), Config{Silence: 200 * time.Millisecond})
	if err := send(t, tr, tr.NewCall(), make([]byte, 8)); err != nil || tr.Losses() != 1 {
		t.Error(err, tr.Losses())
	}
}

// TestPatience: with no server, calls fail when patience is over, those after it at
// once, until it is back.
func TestPatience(t *testing.T) {
	s := serve(t, echo)
	tr := open(t, s, Config{Patience: 50 * time.Millisecond})
	_ = s.listener.Close()
	s.cut()
	var lost *LostError
	for range 2 {
		if err := send(t, tr, tr.NewCall(), make([]byte, 8)); !errors.As(err, &lost) || block.KindOf(err) != block.Transient {
			t.Errorf("%v (%v)", err, block.KindOf(err))
		}
	}
}

// TestCloseInUse: Close ends what is under way.
func TestCloseInUse(t *testing.T) {
	came := make(chan struct{}, 1)
	tr := open(t, serve(t, func(net.Conn, uint32, []byte) { came <- struct{}{} }), Config{})
	go func() { <-came; _ = tr.Close() }()
	if err := send(t, tr, tr.NewCall(), make([]byte, 8)); block.KindOf(err) != block.Closed {
		t.Error(err)
	}
	if err := send(t, tr, tr.NewCall(), make([]byte, 8)); block.KindOf(err) != block.Closed {
		t.Error(err)
	}
}

// TestLostIsTransient whatever the connection ended with.
func TestLostIsTransient(t *testing.T) {
	if kind := block.KindOf(&LostError{Cause: errors.New("gone")}); kind != block.Transient {
		t.Error(kind)
	}
}

// TestCallsAllocateNothing in steady state.
func TestCallsAllocateNothing(t *testing.T) {
	pong := marked(accepted(0, append([]byte{0, 0, 16, 0}, make([]byte, 4096)...)))
	tr := open(t, serve(t, func(conn net.Conn, xid uint32, _ []byte) {
		binary.BigEndian.PutUint32(pong[4:], xid)
		_, _ = conn.Write(pong)
	}), Config{})
	c, into := tr.NewCall(), make([]byte, 4096)
	call := func() {
		c.Head = xdr.AppendUint32(tr.Start(c.Head, 6), 4096)
		c.Into, c.Find = into, bulk{}
		if _, err := tr.Do(context.Background(), c); err != nil || c.N != 4096 {
			t.Fatal(err, c.N)
		}
	}
	call()
	// The server of the test takes a buffer for what it reads, and the mark that it reads.
	if n := testing.AllocsPerRun(200, call); n > 2 {
		t.Errorf("%v allocations a call, 2 of them the server's", n)
	}
}
