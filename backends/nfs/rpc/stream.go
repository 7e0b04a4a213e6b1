package rpc

import (
	"net"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// readBuffer is how much one read may bring in: at depth, dozens of replies to
	// 4 KiB reads.
	readBuffer = 256 << 10
	// headRead bounds a read while a long payload is awaited, so that little of it
	// lands in the buffer and has to be copied out of it.
	headRead = 4 << 10
	// directRead is the remainder of a payload from which on it is read into the
	// caller's memory with a system call of its own. Below, a copy is cheaper than
	// the call.
	directRead = 16 << 10
)

// stream is a connection (see socket for what that is in the end): a buffered reader whose buffer is passed by for long
// payloads, and a writer for batches. One goroutine may read and one may write at a
// time.
type stream struct {
	conn net.Conn
	buf  []byte
	r, w int         // buf[r:w] is read and not consumed
	vecs net.Buffers // what a batch consists of, cut up as it is sent

	woke bool // somebody was woken since the last read

	mu     sync.Mutex // guards closed, and sock's beginning against close
	closed bool
	sock   *socket // instead of conn, once the connection is at work
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, buf: make([]byte, readBuffer)}
}

// work makes the connection's way shorter. It comes before anybody else reads or
// writes; there are no deadlines any more, nor is conn of use.
func (s *stream) work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.sock = takeSocket(s.conn)
	}
}

// close ends the connection for who reads and who writes.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.sock != nil {
		s.sock.shut()
		return
	}
	_ = s.conn.Close()
}

// release closes, and gives back what is kept until nobody reads or writes any more.
func (s *stream) release() {
	s.close()
	if s.sock != nil {
		s.sock.release()
	}
}

// read reads some bytes into p; all of it, where that takes no more calls.
func (s *stream) read(p []byte, all bool) (int, error) {
	if s.sock == nil {
		return s.conn.Read(p)
	}
	if s.woke {
		// A thread that waits in recv keeps its processor for a while, and with it those
		// that the replies woke; they go first.
		s.woke = false
		runtime.Gosched()
	}
	flags := 0
	if all {
		flags = unix.MSG_WAITALL
	}
	n, err := s.sock.recv(p, flags)
	if err != nil {
		err = s.ending(err)
	}
	return n, err
}

// ending tells an end that was made here from the other side's.
func (s *stream) ending(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return err
}

// buffered is what has been read and not consumed.
func (s *stream) buffered() []byte { return s.buf[s.r:s.w] }

// need makes sure that n bytes (at most the buffer's size) are buffered. A read that
// has to be made asks for at most limit bytes, or for the missing ones if they are
// more.
func (s *stream) need(n, limit int) error {
	if s.w-s.r >= n {
		return nil
	}
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	for s.w < n {
		end := min(max(limit, n), len(s.buf))
		m, err := s.read(s.buf[s.w:end], false)
		s.w += m
		if err != nil && s.w < n {
			return err
		}
	}
	return nil
}

// next consumes n buffered bytes. They stay valid until the next call.
func (s *stream) next(n int) []byte {
	p := s.buf[s.r : s.r+n]
	s.r += n
	return p
}

// fill fills dst: from the buffer first, long remainders straight from the
// connection, short ones together with what follows them.
func (s *stream) fill(dst []byte) error {
	n := copy(dst, s.buffered())
	s.r += n
	for dst = dst[n:]; len(dst) >= directRead; dst = dst[n:] {
		var err error
		if n, err = s.read(dst, true); n == 0 && err != nil {
			return err
		}
	}
	if len(dst) == 0 {
		return nil
	}
	// The buffer is empty here: had it held more than dst wanted, dst were full.
	if err := s.need(len(dst), len(s.buf)); err != nil {
		return err
	}
	copy(dst, s.next(len(dst)))
	return nil
}

// discard consumes n bytes.
func (s *stream) discard(n int) error {
	for n > 0 {
		k := min(n, len(s.buf))
		if have := s.w - s.r; have > 0 {
			k = min(k, have)
		}
		if err := s.need(k, len(s.buf)); err != nil {
			return err
		}
		s.r += k
		n -= k
	}
	return nil
}

// send writes the pieces with as few system calls as possible. It does not keep
// them.
func (s *stream) send(pieces [][]byte) error {
	if s.sock != nil {
		if err := s.sock.send(pieces); err != nil {
			return s.ending(err)
		}
		return nil
	}
	if len(pieces) == 1 {
		_, err := s.conn.Write(pieces[0])
		return err
	}
	s.vecs = append(s.vecs[:0], pieces...)
	whole := s.vecs
	_, err := s.vecs.WriteTo(s.conn)
	clear(whole) // the callers' buffers are not ours any more
	s.vecs = whole[:0]
	return err
}
