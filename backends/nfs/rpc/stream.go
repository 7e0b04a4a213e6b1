package rpc

import (
	"net"
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

// stream is a connection: a buffered reader whose buffer is passed by for long
// payloads, and a writer for batches. One goroutine may read and one may write at a
// time.
type stream struct {
	conn net.Conn
	buf  []byte
	r, w int         // buf[r:w] is read and not consumed
	vecs net.Buffers // what a batch consists of, cut up as it is sent
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, buf: make([]byte, readBuffer)}
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
		m, err := s.conn.Read(s.buf[s.w:end])
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
		if n, err = s.conn.Read(dst); n == 0 && err != nil {
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
