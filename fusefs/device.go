package fusefs

import (
	"errors"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is an open /dev/fuse: the connection with the kernel.
type device struct{ fd int }

// read takes the next request; EAGAIN: there is none. The descriptor is set so
// that it does not wait. Should another of its holders (a service manager) have
// changed that, it waits here, in a system call that Go's scheduler knows of.
func (d device) read(p []byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// errStopped: the loop is to end.
var errStopped = errors.New("the readers are to end")

// sleep waits until a request can be read, or the connection has ended; it fails
// when the loop is to end.
func (d device) sleep(s stop) error {
	fds := [2]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(s.fd), Events: unix.POLLIN}}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), uintptr(len(fds)), 0, 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return errno
		case fds[1].Revents != 0:
			return errStopped
		default:
			return nil
		}
	}
}

// rawLimit is how many bytes a reply may have that is copied without telling
// Go's scheduler about the system call: some microseconds.
const rawLimit = 64 << 10

// reply sends a whole message, its header in front. A reply never waits: the
// kernel copies it and wakes the client.
func (d device) reply(p []byte) error {
	var errno unix.Errno
	at, n := uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))
	if n <= rawLimit {
		_, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), at, n)
	} else {
		_, _, errno = unix.Syscall(unix.SYS_WRITE, uintptr(d.fd), at, n)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// The notifications, by the numbers that stand where a reply has its error.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyResend     = 7
)

// notify tells the kernel something unasked. Unlike a reply it may wait for
// locks which a client holds that waits for a reply.
func (d device) notify(code int32, parts ...[]byte) error {
	n := outHeaderSize
	for _, part := range parts {
		n += len(part)
	}
	msg := make([]byte, outHeaderSize, n)
	*at[fuse.OutHeader](msg) = fuse.OutHeader{Length: uint32(n), Status: code}
	for _, part := range parts {
		msg = append(msg, part...)
	}
	for {
		if _, err := unix.Write(d.fd, msg); err != unix.EINTR {
			return err
		}
	}
}

// stop is an event that, once told, stays.
type stop struct{ fd int }

func newStop() (stop, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return stop{fd}, err
}

func (s stop) tell() {
	one := uint64(1)
	_, _ = unix.Write(s.fd, bytesOf(&one)) // it fails only when it has been told often
}

func (s stop) close() { _ = unix.Close(s.fd) }
