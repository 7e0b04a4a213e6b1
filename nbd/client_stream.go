package nbd

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
)

const (
	// clientReadBuffer is how much one read may bring in: at depth, a dozen 4 KiB
	// replies.
	clientReadBuffer = 64 << 10
	// clientHeadRead bounds a read while a long reply is awaited, so that little
	// of the payload lands in the buffer and has to be copied out of it.
	clientHeadRead = 4 << 10
	// clientDirect is the remainder of a payload from which on it is read into
	// the caller's memory with a system call of its own. Below, a copy is
	// cheaper than the call.
	clientDirect = 16 << 10
)

// clientStream is one connection to a server: a buffered reader whose buffer is
// passed by for long payloads, and a writer for batches. Handshake and data path
// share it, so that nothing read ahead is lost between them. One goroutine may
// read and one may write at a time.
type clientStream struct {
	conn net.Conn

	in   io.Reader // conn, but for tests of the reply parser
	buf  []byte
	r, w int // buf[r:w] is read and not consumed

	secure *bufio.Writer // collects small pieces into TLS records; nil in plain text
	vecs   net.Buffers   // what a batch consists of, cut up as it is sent
}

func newClientStream(conn net.Conn) *clientStream {
	s := &clientStream{conn: conn, in: conn, buf: make([]byte, clientReadBuffer)}
	if _, ok := conn.(*tls.Conn); ok {
		s.secure = bufio.NewWriterSize(conn, 32<<10)
	}
	return s
}

// buffered is what has been read and not consumed.
func (s *clientStream) buffered() []byte { return s.buf[s.r:s.w] }

// need makes sure that n bytes (at most the buffer's size) are buffered. A read
// that has to be made asks for at most limit bytes, or for the missing ones if
// they are more.
func (s *clientStream) need(n, limit int) error {
	if s.w-s.r >= n {
		return nil
	}
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	for s.w < n {
		end := min(max(limit, n), len(s.buf))
		m, err := s.in.Read(s.buf[s.w:end])
		s.w += m
		if err != nil && s.w < n {
			return err
		}
	}
	return nil
}

// next consumes n buffered bytes. They stay valid until the next call.
func (s *clientStream) next(n int) []byte {
	p := s.buf[s.r : s.r+n]
	s.r += n
	return p
}

// readFull fills dst: from the buffer first, long remainders straight from the
// connection, short ones together with what follows them.
func (s *clientStream) readFull(dst []byte) error {
	n := copy(dst, s.buffered())
	s.r += n
	for dst = dst[n:]; len(dst) >= clientDirect; dst = dst[n:] {
		var err error
		if n, err = s.in.Read(dst); n == 0 && err != nil {
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

// send writes the pieces with as few system calls as possible. It does not keep
// them.
func (s *clientStream) send(pieces [][]byte) error {
	if s.secure != nil {
		for _, p := range pieces {
			if _, err := s.secure.Write(p); err != nil {
				return err
			}
		}
		return s.secure.Flush()
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
