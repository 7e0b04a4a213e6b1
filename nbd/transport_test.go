package nbd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair makes two connected unix sockets; ours is the one to make a stream
// of.
func socketPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		conns[i] = c.(*net.UnixConn)
	}
	_ = conns[0].SetDeadline(time.Time{})
	return conns[0], conns[1]
}

// streamPair makes a stream of one end.
func streamPair(t *testing.T) (*socketStream, *net.UnixConn) {
	t.Helper()
	ours, theirs := socketPair(t)
	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(poll.close)
	s, err := newStream(ours, func() (*poller, error) { return poll, nil }, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.release)
	return s.(*socketStream), theirs
}

func vecOf(parts ...string) *ioVec {
	v := new(ioVec)
	for _, p := range parts {
		v.add([]byte(p))
	}
	return v
}

func TestVecAdvance(t *testing.T) {
	for n := range 7 {
		v := vecOf("ab", "", "c", "def")
		v.advance(n)
		if got := string(bytes.Join(v.rest(), nil)); got != "abcdef"[n:] {
			t.Errorf("after %d bytes %q is left", n, got)
		}
	}
	v := vecOf("ab")
	v.reset()
	if len(v.rest()) != 0 {
		t.Error("reset left something")
	}
}

func TestStreamReceives(t *testing.T) {
	s, peer := streamPair(t)
	p := make([]byte, 100)
	if _, err := s.recv(p, forRequest); err != errIdle {
		t.Fatalf("recv of a silent peer: %v", err)
	}
	_, _ = peer.Write([]byte("hello"))
	if err := s.wait(toReceive); err != nil {
		t.Fatal(err)
	}
	if n, err := s.recv(p, forRequest); err != nil || string(p[:n]) != "hello" {
		t.Fatalf("%q, %v", p[:n], err)
	}
	// Without idle it waits as long as it takes, first in a system call and
	// then in the poller.
	got := make(chan string, 1)
	go func() {
		n, _ := s.recv(p, forRest)
		got <- string(p[:n])
	}()
	select {
	case <-got:
		t.Fatal("recv returned without bytes")
	case <-time.After(2 * idleTime):
	}
	_, _ = peer.Write([]byte("again"))
	if text := <-got; text != "again" {
		t.Fatalf("%q", text)
	}
	_ = peer.Close()
	if _, err := s.recv(p, forRequest); err != io.EOF {
		t.Fatalf("recv after the peer has gone: %v", err)
	}
}

// TestStreamReceivesWithManyBlocked: when too many receives block their threads
// already, one goes to the poller at once and works as well.
func TestStreamReceivesWithManyBlocked(t *testing.T) {
	blockedReceives.Add(maxBlocked)
	defer blockedReceives.Add(-maxBlocked)
	s, peer := streamPair(t)
	p := make([]byte, 10)
	took := time.Hour
	for try := 0; try < 10 && took > idleTime/2; try++ { // once, unless the machine is busy
		begin := time.Now()
		if _, err := s.recv(p, forRequest); err != errIdle {
			t.Fatalf("recv: %v", err)
		}
		took = time.Since(begin)
	}
	if took > idleTime/2 {
		t.Errorf("recv took %v", took)
	}
	_, _ = peer.Write([]byte("x"))
	if n, err := s.recv(p, forRest); n != 1 || err != nil {
		t.Errorf("recv: %d, %v", n, err)
	}
}

// TestStreamStalls: a peer that does not read is told of, and what was sent so
// far is not sent again.
func TestStreamStalls(t *testing.T) {
	s, peer := streamPair(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	v := new(ioVec)
	for p := want; len(p) > 0; p = p[1<<12:] {
		v.add(p[:1<<12])
	}
	if err := s.send(v); err != errStalled {
		t.Fatalf("send: %v", err)
	}
	read := make(chan []byte, 1)
	go func() {
		p := make([]byte, len(want))
		_, _ = io.ReadFull(peer, p)
		read <- p
	}()
	for {
		if err := s.wait(toSend); err != nil {
			t.Fatal(err)
		}
		err := s.send(v)
		if err == nil {
			break
		}
		if err != errStalled {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(<-read, want) {
		t.Error("the peer got something else")
	}
}

func TestStreamSendsFiles(t *testing.T) {
	s, peer := streamPair(t)
	want := bytes.Repeat([]byte("file"), 1<<18)
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	n, err := s.sendFile(int(f.Fd()), 0, int64(len(want)))
	if err != errStalled || n == 0 || n == int64(len(want)) {
		t.Fatalf("sendFile: %d, %v", n, err)
	}
	read := make(chan []byte, 1)
	go func() {
		p, _ := io.ReadAll(peer)
		read <- p
	}()
	// On a busy machine the peer can be late at any time.
	send := func(off, n int64) (sent int64, err error) {
		for {
			k, err := s.sendFile(int(f.Fd()), off+sent, n-sent)
			if sent += k; err != errStalled {
				return sent, err
			}
			if err := s.wait(toSend); err != nil {
				return sent, err
			}
		}
	}
	rest := int64(len(want)) - n
	if k, err := send(n, rest); k != rest || err != nil {
		t.Fatalf("the rest: %d of %d, %v", k, rest, err)
	}
	if k, err := send(int64(len(want))-4, 8); k != 4 || err != io.ErrUnexpectedEOF {
		t.Errorf("beyond the end: %d, %v", k, err)
	}
	s.close()
	if got := <-read; !bytes.Equal(got, append(want, "file"...)) {
		t.Errorf("the peer got %d bytes", len(got))
	}
}

func TestStreamStopReceiving(t *testing.T) {
	s, peer := streamPair(t)
	_, _ = peer.Write([]byte("before"))
	s.stopReceiving()
	p := make([]byte, 100)
	if n, err := s.recv(p, forRequest); err != nil || string(p[:n]) != "before" {
		t.Fatalf("%q, %v", p[:n], err)
	}
	if _, err := s.recv(p, forRequest); err != io.EOF {
		t.Fatalf("recv: %v", err)
	}
	if err := s.send(vecOf("reply")); err != nil {
		t.Errorf("send: %v", err)
	}
}

// TestStreamCloseWakes: whatever waits returns with an error.
func TestStreamCloseWakes(t *testing.T) {
	for name, wait := range map[string]func(s *socketStream) error{
		"recv": func(s *socketStream) error { _, err := s.recv(make([]byte, 1), forRest); return err },
		"wait to receive": func(s *socketStream) error {
			_ = s.wait(toReceive)
			_, err := s.recv(make([]byte, 1), forRest)
			return err
		},
		"send": func(s *socketStream) error {
			v := vecOf(string(make([]byte, 1<<20)))
			for {
				if err := s.send(v); err != errStalled {
					return err
				}
				if err := s.wait(toSend); err != nil {
					return err
				}
			}
		},
	} {
		s, _ := streamPair(t)
		ended := make(chan error, 1)
		go func() { ended <- wait(s) }()
		select {
		case err := <-ended:
			t.Fatalf("%s returned %v by itself", name, err)
		case <-time.After(2 * idleTime): // by then it waits in the poller
		}
		s.close()
		if err := <-ended; err == nil {
			t.Errorf("%s succeeded on a closed stream", name)
		}
		s.close() // twice is as good as once
		if err := s.send(vecOf("x")); err == nil {
			t.Errorf("send succeeded on a closed stream")
		}
	}
}

// TestPlainStream: the same over a connection that is no socket.
func TestPlainStream(t *testing.T) {
	ours, theirs := net.Pipe()
	s, err := newStream(ours, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	if _, files := s.(fileSender); files {
		t.Error("a pipe claims to send files")
	}
	large := string(bytes.Repeat([]byte("x"), gatherSize+1))
	parts := []string{"a", "bc", large, "d", "", large[:gatherSize], "e"}
	want := ""
	for _, p := range parts {
		want += p
	}
	read := make(chan string, 1)
	go func() {
		p, _ := io.ReadAll(theirs)
		read <- string(p)
	}()
	if err := s.send(vecOf(parts...)); err != nil {
		t.Fatal(err)
	}
	s.stopReceiving()
	if _, err := s.recv(make([]byte, 1), forRequest); err == nil {
		t.Error("recv succeeded after stopReceiving")
	}
	s.close()
	if got := <-read; got != want {
		t.Errorf("the peer got %d bytes, want %d", len(got), len(want))
	}
	if err := s.send(vecOf("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("send on a closed stream: %v", err)
	}
}
