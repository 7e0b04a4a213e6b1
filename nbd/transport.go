package nbd

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stream is a connection after the handshake, as the data path sees it. recv is
// called by one goroutine, send by one at a time (server_send.go sees to that), the
// others by anyone.
type stream interface {
	// recv waits for bytes and reads at least one into p; io.EOF when the peer
	// sends no more. With idle it returns errIdle when nothing came for a while,
	// so that the caller can give up buffers before it waits on.
	recv(p []byte, idle bool) (int, error)

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
	// the runtime's poller, which needs no thread.
	idleTime = 100 * time.Millisecond
	// maxBlocked bounds the threads of the process that block in receives.
	maxBlocked = 32
)

var blockedReceives atomic.Int32

// ioVec is a list of byte slices to send, consumed from the front.
type ioVec struct {
	bufs [][]byte
	head int // the first that is not sent yet
	iov  []unix.Iovec
	more bool // a file follows at once: do not push out a partial packet
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

// socketStream moves bytes by system calls on a blocking socket. A blocked
// system call wakes up faster than a goroutine parked in the runtime's poller
// and saves the two calls around it, which at queue depth one is most of the
// cost. The price is a thread, so only active connections do that: a receive
// gives up after idleTime and parks.
type socketStream struct {
	conn   net.Conn
	raw    syscall.RawConn
	fd     int
	closed atomic.Bool

	// The arguments and results of the poller's call-backs, which are made once
	// so that waiting allocates nothing.
	readable, writable func(uintptr) bool
	readTried          bool
	writeTried         bool

	msg unix.Msghdr // of send
}

// newStream takes a connection over for the data path.
func newStream(conn net.Conn) (stream, error) {
	switch c := conn.(type) {
	case *net.TCPConn:
		_ = c.SetNoDelay(true)
		return newSocketStream(conn, c)
	case *net.UnixConn:
		return newSocketStream(conn, c)
	}
	return &plainStream{conn: conn}, nil
}

func newSocketStream(conn net.Conn, sc syscall.Conn) (*socketStream, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socketStream{conn: conn, raw: raw}
	// Inside Control: somebody may close conn meanwhile, and the number be
	// another connection's.
	var failed error
	err = raw.Control(func(fd uintptr) {
		s.fd = int(fd)
		failed = setTimeouts(s.fd)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	// Each is called first before the wait (says no) and again after it.
	s.readable = func(uintptr) bool { tried := s.readTried; s.readTried = true; return tried || s.hasInput() }
	s.writable = func(uintptr) bool { tried := s.writeTried; s.writeTried = true; return tried || s.hasRoom() }
	return s, nil
}

func setTimeouts(fd int) error {
	recv, send := unix.NsecToTimeval(int64(idleTime)), unix.NsecToTimeval(int64(stallTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &recv); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &send); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

func (s *socketStream) recv(p []byte, idle bool) (int, error) {
	flags := uintptr(0)
	if blockedReceives.Add(1) > maxBlocked {
		flags = unix.MSG_DONTWAIT
	}
	n, errno := s.recvOnce(p, flags)
	blockedReceives.Add(-1)
	for {
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			if idle {
				return 0, errIdle
			}
			if err := s.wait(toReceive); err != nil {
				return 0, err
			}
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
		n, errno = s.recvOnce(p, unix.MSG_DONTWAIT)
	}
}

func (s *socketStream) wait(d direction) error {
	if d == toSend {
		s.writeTried = false
		return s.raw.Write(s.writable)
	}
	s.readTried = false
	return s.raw.Read(s.readable)
}

func (s *socketStream) recvOnce(p []byte, flags uintptr) (int, syscall.Errno) {
	if s.closed.Load() {
		return 0, unix.ESHUTDOWN
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), flags, 0, 0)
	return int(n), errno
}

func (s *socketStream) send(v *ioVec) error {
	for len(v.rest()) > 0 {
		n, errno := s.sendOnce(v)
		switch errno {
		case 0:
			v.advance(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return errStalled
		default:
			return errno
		}
	}
	return nil
}

func (s *socketStream) sendOnce(v *ioVec) (int, syscall.Errno) {
	if s.closed.Load() {
		return 0, unix.ESHUTDOWN
	}
	flags := uintptr(unix.MSG_NOSIGNAL)
	if v.more {
		flags |= unix.MSG_MORE
	}
	rest := v.rest()
	if len(rest) == 1 {
		p := rest[0]
		n, _, errno := syscall.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), flags, 0, 0)
		return int(n), errno
	}
	v.iov = v.iov[:0]
	for _, p := range rest[:min(len(rest), 1024)] {
		iov := unix.Iovec{Base: unsafe.SliceData(p)}
		iov.SetLen(len(p))
		v.iov = append(v.iov, iov)
	}
	s.msg.Iov = unsafe.SliceData(v.iov)
	s.msg.SetIovlen(len(v.iov))
	n, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), flags)
	clear(v.iov)
	return int(n), errno
}

func (s *socketStream) sendFile(fd int, off, n int64) (int64, error) {
	var sent int64
	for sent < n {
		if s.closed.Load() {
			return sent, unix.ESHUTDOWN
		}
		pos := off + sent
		k, _, errno := syscall.Syscall6(unix.SYS_SENDFILE, uintptr(s.fd), uintptr(fd),
			uintptr(unsafe.Pointer(&pos)), uintptr(n-sent), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return sent, errStalled
		case errno != 0:
			return sent, errno
		case k == 0:
			return sent, io.ErrUnexpectedEOF // the file has become shorter
		default:
			sent += int64(k)
		}
	}
	return sent, nil
}

func (s *socketStream) hasInput() bool { return s.poll(unix.POLLIN) }
func (s *socketStream) hasRoom() bool  { return s.poll(unix.POLLOUT) }

// poll asks without waiting; errors and hang-ups count as ready.
func (s *socketStream) poll(events int16) bool {
	fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: events}}
	n, err := unix.Poll(fds[:], 0)
	return n > 0 || err != nil
}

// stopReceiving and close may come from outside at any time, so they go through
// raw, which knows whether the descriptor is still ours.
func (s *socketStream) stopReceiving() { s.shutdown(unix.SHUT_RD) }

func (s *socketStream) close() {
	if s.closed.CompareAndSwap(false, true) {
		s.shutdown(unix.SHUT_RDWR)
	}
}

func (s *socketStream) shutdown(how int) {
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
}

func (s *socketStream) release() { _ = s.conn.Close() }

// plainStream moves bytes through a net.Conn: TLS, pipes, what tests wrap.
type plainStream struct {
	conn   net.Conn
	gather []byte // small pieces go out together: each Write is a TLS record
}

func (s *plainStream) recv(p []byte, _ bool) (int, error) {
	n, err := s.conn.Read(p)
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
	if c, ok := inner.(interface{ CloseRead() error }); ok {
		_ = c.CloseRead()
		return
	}
	_ = inner.SetReadDeadline(time.Unix(1, 0))
}

// netConn is the connection below TLS.
func netConn(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}
