package nbd

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stream is a connection after the handshake, as the data path sees it. recv is
// called by one goroutine, send by one at a time (server_send.go sees to that), the
// others by anyone.
type stream interface {
	// recv waits for bytes and reads at least one into p; io.EOF when the peer
	// sends no more. Unless the rest of a request is waited for, it returns
	// errIdle when nothing came for a while, so that the caller can give up
	// buffers before it waits on.
	recv(p []byte, what waiting) (int, error)

	// send writes as much as it can and takes that from v: less than all only
	// with an error. errStalled means that the peer took nothing for a while;
	// the caller goes on after a wait.
	send(v *ioVec) error

	// wait returns when the peer has sent bytes, or takes bytes again.
	wait(d direction) error

	// stopReceiving makes recv return what has arrived and then io.EOF.
	stopReceiving()

	// close ends the connection; everything that waits returns an error.
	close()

	// release frees the descriptor. The owner calls it last, when no other
	// method but close and stopReceiving can be running.
	release()
}

// fileSender is a stream to which the kernel can move a file's bytes.
type fileSender interface {
	// sendFile writes n bytes of a file, with the same rules as send, and
	// returns how many were sent.
	sendFile(fd int, off, n int64) (int64, error)
}

// hangUpTeller is a stream that knows, once the peer sends no more, whether it
// takes no more bytes either. TLS does not.
type hangUpTeller interface{ hungUp() bool }

// waiting is what a receive waits for.
type waiting uint8

const (
	forRequest waiting = iota
	forAnswer          // a request too, of a client that sends one at a time
	forRest            // the rest of a request
)

// direction is what a wait is for.
type direction bool

const (
	toReceive direction = false
	toSend    direction = true
)

var (
	// errStalled: the peer's receive buffer stayed full for stallTime.
	errStalled = errors.New("peer does not read")
	// errIdle: nothing came for idleTime.
	errIdle = errors.New("peer is silent")
)

const (
	// stallTime is how long a send blocks its goroutine before it is handed to
	// one that can wait: long enough that a client that reads never gets there.
	stallTime = 20 * time.Millisecond
	// idleTime is how long a receive blocks its thread before the wait moves to
	// the poller, which needs no thread.
	idleTime = 100 * time.Millisecond
	// maxBlocked bounds the threads of the process that block in receives.
	maxBlocked = 32
)

// ioVec is a list of byte slices to send, consumed from the front.
type ioVec struct {
	bufs [][]byte
	head int // the first that is not sent yet
	iov  []unix.Iovec
	more bool // a file follows at once: do not push out a partial packet

	nowait bool // errStalled at once when the peer's buffer is full
}

func (v *ioVec) reset() {
	clear(v.bufs)
	v.bufs, v.head, v.more = v.bufs[:0], 0, false
}

func (v *ioVec) add(p []byte) {
	if len(p) > 0 {
		v.bufs = append(v.bufs, p)
	}
}

// rest is what is still to be sent.
func (v *ioVec) rest() [][]byte { return v.bufs[v.head:] }

// advance drops n sent bytes.
func (v *ioVec) advance(n int) {
	for n > 0 {
		first := v.bufs[v.head]
		if n < len(first) {
			v.bufs[v.head] = first[n:]
			return
		}
		n -= len(first)
		v.head++
	}
}

// plainStream moves bytes through a net.Conn: TLS, pipes, what tests wrap.
type plainStream struct {
	conn   net.Conn
	gather []byte // small pieces go out together: each Write is a TLS record
	end    lastBytes
}

func (s *plainStream) recv(p []byte, _ waiting) (int, error) {
	p, bounded := s.end.limit(p)
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := s.conn.Read(p)
	if bounded {
		s.end.took(n)
	}
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

func (s *plainStream) send(v *ioVec) error {
	for rest := v.rest(); len(rest) > 0; rest = v.rest() {
		s.gather = s.gather[:0]
		for _, p := range rest {
			if len(rest) == 1 || len(s.gather)+len(p) > gatherSize {
				break
			}
			s.gather = append(s.gather, p...)
		}
		p := s.gather
		if len(p) == 0 {
			p = rest[0]
		}
		n, err := s.conn.Write(p)
		v.advance(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// gatherSize is how much plainStream copies together for one Write: four TLS
// records.
const gatherSize = 64 << 10

func (s *plainStream) wait(direction) error { return nil } // its calls wait themselves
func (s *plainStream) release()             { _ = s.conn.Close() }

// close does not wait for a TLS close_notify that a stuck peer would not take:
// it closes what lies below.
func (s *plainStream) close() { _ = netConn(s.conn).Close() }

func (s *plainStream) stopReceiving() {
	inner := netConn(s.conn)
	c, ok := inner.(interface {
		syscall.Conn
		CloseRead() error
	})
	if !ok {
		_ = inner.SetReadDeadline(time.Unix(1, 0))
		return
	}
	_ = c.CloseRead()
	if raw, err := c.SyscallConn(); err == nil {
		// TLS may hold some bytes that it has received.
		_ = raw.Control(func(fd uintptr) { s.end.set(unread(int(fd)) + gatherSize) })
	}
}

// lastBytes bounds what is received after stopReceiving: TCP goes on to take what
// the peer sends, even when the socket is shut for reading.
type lastBytes struct {
	left atomic.Int64 // one more than may still be received; 0: no bound
}

func (l *lastBytes) set(n int) { l.left.CompareAndSwap(0, int64(n)+1) }

// limit is how much of p may be received into; bounded: took has to be told.
func (l *lastBytes) limit(p []byte) (part []byte, bounded bool) {
	left := l.left.Load()
	if left == 0 {
		return p, false
	}
	return p[:min(int64(len(p)), left-1)], true
}

func (l *lastBytes) took(n int) { l.left.Add(-int64(n)) }

// unread is the number of bytes that have arrived.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// netConn is the connection below TLS.
func netConn(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}
