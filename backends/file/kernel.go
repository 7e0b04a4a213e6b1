package file

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is the system calls that move data, change allocation or sync. Like
// the calls themselves they may transfer less than asked and be interrupted.
type kernel interface {
	transfers
	changes
}

type transfers interface {
	pread(fd int, p []byte, off int64) (int, error)
	preadNowait(fd int, p []byte, off int64) (int, error)
	pwrite(fd int, p []byte, off int64, dsync bool) (int, error)

	// cached reports whether the page cache can give the byte at once.
	cached(fd int, off int64) bool
}

type changes interface {
	fallocate(fd int, mode uint32, off, n int64) error
	discard(fd int, off, n int64) error // of a block device
	fdatasync(fd int) error

	// writeBackError gives the error of write-back that the descriptor was not
	// yet told of. It starts no write-back; it waits for that of the page at off
	// alone.
	writeBackError(fd int, off int64) error
}

// linux is the kernel that is there.
type linux struct{}

func (linux) pread(fd int, p []byte, off int64) (int, error) { return unix.Pread(fd, p, off) }

// rawLimit is how many bytes preadNowait copies without telling Go's scheduler
// about the system call: some microseconds.
const rawLimit = 64 << 10

// preadNowait reads what the page cache holds. RWF_NOWAIT does not block, so
// that short reads need not pay for the scheduler's part in a system call.
func (linux) preadNowait(fd int, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	lo, hi := uintptr(off), uintptr(uint64(off)>>32)
	var n uintptr
	var errno unix.Errno
	if len(p) <= rawLimit {
		n, _, errno = unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, lo, hi, unix.RWF_NOWAIT)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, lo, hi, unix.RWF_NOWAIT)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// cached reads the byte to a place on the stack: a p of preadNowait, called
// through the interface, would have to be allocated.
func (linux) cached(fd int, off int64) bool {
	var b [1]byte
	n, err := linux{}.preadNowait(fd, b[:], off)
	return err == nil && n == 1
}

func (linux) pwrite(fd int, p []byte, off int64, dsync bool) (int, error) {
	if !dsync || len(p) == 0 {
		return unix.Pwrite(fd, p, off)
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	lo, hi := uintptr(off), uintptr(uint64(off)>>32)
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, lo, hi, unix.RWF_DSYNC)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (linux) fallocate(fd int, mode uint32, off, n int64) error {
	return unix.Fallocate(fd, mode, off, n)
}

func (linux) discard(fd int, off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	return ioctl(fd, unix.BLKDISCARD, unsafe.Pointer(&span))
}

func (linux) fdatasync(fd int) error { return unix.Fdatasync(fd) }

func (linux) writeBackError(fd int, off int64) error {
	return unix.SyncFileRange(fd, off, 1, unix.SYNC_FILE_RANGE_WAIT_BEFORE)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
