package nbd

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var blockedReceives atomic.Int32

// socketStream moves bytes by system calls on a blocking socket. A blocked
// system call wakes up faster than a goroutine parked in the runtime's poller
// and saves the two calls around it, which at queue depth one is most of the
// cost. The price is a thread, so only active connections do that: a receive
// gives up after idleTime, and waits on in the server's poller.
type socketStream struct {
	fd     int // a descriptor of our own, not in the runtime's poller
	poll   *poller
	closed atomic.Bool

	end     lastBytes
	busy    busyPoll
	in, out watch // out has a descriptor of its own, made when it is needed
	msg     unix.Msghdr

	mu       sync.Mutex // guards the descriptor's end against shutdown
	released bool
}

// newStream takes a connection over for the data path: a socket becomes the
// stream's, and conn is closed.
func newStream(conn net.Conn, poll func() (*poller, error), busy time.Duration) (stream, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return &plainStream{conn: conn}, nil
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetNoDelay(true)
	}
	p, err := poll()
	if err != nil {
		return nil, err
	}
	s, err := newSocketStream(conn, sc, p)
	if err != nil {
		return nil, err
	}
	s.busy = newBusyPoll(busy)
	return s, nil
}

func newSocketStream(conn net.Conn, sc syscall.Conn, p *poller) (*socketStream, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(theirs uintptr) { fd, failed = unix.FcntlInt(theirs, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	// Closing conn takes the socket out of the runtime's poller; it stays open
	// through ours.
	if err := errors.Join(conn.Close(), setTimeouts(fd)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &socketStream{fd: fd, poll: p, in: newWatch(fd), out: newWatch(-1)}, nil
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

func (s *socketStream) recv(p []byte, what waiting) (int, error) {
	p, bounded := s.end.limit(p)
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := s.recvBlocking(p, what)
	if bounded {
		s.end.took(n)
	}
	s.busy.received(n)
	return n, err
}

func (s *socketStream) recvBlocking(p []byte, what waiting) (int, error) {
	if s.busy.begin(what) {
		n := s.recvBusy(p)
		s.busy.end(n > 0)
		if n > 0 {
			return n, nil
		}
	}
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
			if what != forRest {
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

// recvBusy asks again and again for a short while; 0 when nothing came, or when it
// is better asked in the ordinary way. It does not tell the scheduler of its system
// calls, which do not wait.
func (s *socketStream) recvBusy(p []byte) int {
	for end := now() + s.busy.limit; now() < end; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			return int(n) // 0 at the end of the stream
		case errno != unix.EAGAIN && errno != unix.EINTR:
			return 0
		}
	}
	return 0
}

func (s *socketStream) wait(d direction) error {
	if d == toReceive {
		return s.poll.wait(&s.in, unix.EPOLLIN|unix.EPOLLRDHUP)
	}
	if s.out.fd < 0 { // a set takes a descriptor once: one more to wait both ways at once
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.out.fd = fd
	}
	return s.poll.wait(&s.out, unix.EPOLLOUT)
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
	if v.nowait {
		flags |= unix.MSG_DONTWAIT
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

// stopReceiving and close come from outside, perhaps when the descriptor is no
// longer ours.
func (s *socketStream) stopReceiving() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		_ = unix.Shutdown(s.fd, unix.SHUT_RD)
		s.end.set(unread(s.fd))
	}
}

func (s *socketStream) hungUp() bool {
	fds := []unix.PollFd{{Fd: int32(s.fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func (s *socketStream) close() {
	if s.closed.CompareAndSwap(false, true) {
		s.shutdown(unix.SHUT_RDWR)
	}
}

func (s *socketStream) shutdown(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		_ = unix.Shutdown(s.fd, how)
	}
}

func (s *socketStream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = true
	if s.out.fd >= 0 {
		_ = unix.Close(s.out.fd)
	}
	_ = unix.Close(s.fd)
}
