package rpc

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket moves bytes by system calls that block, past the runtime's poller: a thread
// that waits in recv wakes up with one context switch, where a goroutine in the poller
// costs a failed read, an epoll_wait and the hand-over between two threads. The price is
// a thread for each connection, so there are at most maxSockets of them.
type socket struct {
	fd  int
	msg unix.Msghdr // the writer's
	iov []unix.Iovec

	mu       sync.Mutex // guards the descriptor's end against shut, which may come late
	released bool
}

const (
	maxSockets = 32
	maxVector  = 1024 // UIO_MAXIOV
)

var sockets atomic.Int32

// takeSocket takes a TCP connection out of the runtime's poller and closes conn. nil: it
// cannot be done, and conn is as it was.
func takeSocket(conn net.Conn) *socket {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	if sockets.Add(1) > maxSockets {
		sockets.Add(-1)
		return nil
	}
	fd, err := blockingCopy(tcp)
	if err != nil {
		sockets.Add(-1)
		return nil
	}
	return &socket{fd: fd}
}

// blockingCopy makes a second descriptor of a connection, closes the first and has the
// socket block.
func blockingCopy(conn *net.TCPConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(theirs uintptr) { fd, failed = unix.FcntlInt(theirs, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return -1, err
	}
	_ = conn.Close() // which takes it out of the poller; the socket lives on in fd
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// recv receives into p, with unix.MSG_WAITALL until it is full.
func (s *socket) recv(p []byte, flags int) (int, error) {
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), uintptr(flags), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// send sends all the pieces. It does not keep them.
func (s *socket) send(pieces [][]byte) error {
	for len(pieces) > 0 {
		n, errno := s.sendOnce(pieces)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		for len(pieces) > 0 && n >= len(pieces[0]) {
			n -= len(pieces[0])
			pieces = pieces[1:]
		}
		if n > 0 {
			if err := s.sendRest(pieces[0][n:]); err != nil {
				return err
			}
			pieces = pieces[1:]
		}
	}
	return nil
}

// sendRest sends what is left of a piece.
func (s *socket) sendRest(p []byte) error {
	for len(p) > 0 {
		n, errno := s.sendOnce([][]byte{p})
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		p = p[n:]
	}
	return nil
}

func (s *socket) sendOnce(pieces [][]byte) (int, syscall.Errno) {
	if len(pieces) == 1 {
		p := pieces[0]
		n, _, errno := syscall.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		return sent(n, errno), errno
	}
	s.iov = s.iov[:0]
	for _, p := range pieces[:min(len(pieces), maxVector)] {
		iov := unix.Iovec{Base: unsafe.SliceData(p)}
		iov.SetLen(len(p))
		s.iov = append(s.iov, iov)
	}
	s.msg.Iov = unsafe.SliceData(s.iov)
	s.msg.SetIovlen(len(s.iov))
	n, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_NOSIGNAL)
	clear(s.iov) // the callers' buffers are not ours any more
	return sent(n, errno), errno
}

func sent(n uintptr, errno syscall.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n)
}

// shut ends both directions; whoever is blocked in one wakes up.
func (s *socket) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
}

// release gives the descriptor back, when nobody reads or writes any more.
func (s *socket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		s.released = true
		_ = unix.Close(s.fd)
		sockets.Add(-1)
	}
}
