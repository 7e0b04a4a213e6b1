package fusefs

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sluice/block"
)

// Passthrough: the kernel reads and writes a local file itself, for a client that
// opened ours. It does so from offset 0 and to the file's own end, so the device
// must be that file, all of it. Everything but reading, writing and mmap still
// comes here.

// The ioctls of /dev/fuse (FUSE_DEV_IOC_BACKING_OPEN and _CLOSE).
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// passthrough is a file's part in it. The zero value takes none.
type passthrough struct {
	mu     sync.Mutex // guards the rest
	on     bool
	local  local
	pinned block.FileRange
}

// local is a file that the kernel reads and writes.
type local struct {
	ID       int32 // by which the kernel knows it
	Dev, Ino uint64
}

// backing gives the local file.
func (p *passthrough) backing() (l local, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.local, p.on
}

func (p *passthrough) active() bool {
	_, ok := p.backing()
	return ok
}

// status is what the local file says of itself: when it was written last
// (nanoseconds since 1970), and its blocks of 512 bytes. Where it lies on a server,
// that is not asked, since the reader of all requests would wait for it.
func (p *passthrough) status() (modified int64, blocks uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var st unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if !p.on || unix.Statx(p.pinned.FD, "", flags, unix.STATX_MTIME|unix.STATX_BLOCKS, &st) != nil {
		return 0, 0, false
	}
	return st.Mtime.Sec*int64(time.Second) + int64(st.Mtime.Nsec), st.Blocks, true
}

// register pins the device's file and makes it known to the kernel. known is what a
// process before has made known: as long as a client has the file open, no other
// number will do. It is of no use when the image is another file by now.
func (p *passthrough) register(dev device, f *file, known local) error {
	r, l, err := pinWhole(f)
	if err != nil {
		return err
	}
	if l.ID = known.ID; l != known || l.ID == 0 {
		if l.ID, err = dev.openBacking(r.FD); err != nil {
			f.dev.Ranger.UnpinRange(r)
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on, p.local, p.pinned = true, l, r
	return nil
}

// pinWhole pins the file that a device is a plain view of.
func pinWhole(f *file) (r block.FileRange, l local, err error) {
	var ok bool
	size := f.size.Load()
	if f.dev.Ranger != nil {
		r, ok = f.dev.Ranger.PinRange(0, size)
	}
	if !ok {
		return r, l, block.Errorf(block.Unsupported, "pass through", f.Name, -1, "the device is not a local file")
	}
	var st unix.Stat_t
	err = unix.Fstat(r.FD, &st)
	if err == nil && (r.Off != 0 || r.Len != size || st.Size != size || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = block.Errorf(block.Unsupported, "pass through", f.Name, -1, "the device is not the whole of one local file")
	}
	if err != nil {
		f.dev.Ranger.UnpinRange(r)
	}
	return r, local{Dev: st.Dev, Ino: st.Ino}, err
}

// release ends what register began.
func (p *passthrough) release(dev device, f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on {
		return
	}
	p.on = false
	dev.closeBacking(p.local.ID)
	f.dev.Ranger.UnpinRange(p.pinned)
}

// openBacking makes a local file known to the kernel, which keeps it open for longer
// than this process lives. So it gets one that was opened for it: those who open the
// image have locks on theirs, and the next process must find it unlocked.
func (d device) openBacking(local int) (id int32, err error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", local), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open it again: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	m := fuse.BackingMap{Fd: int32(fd)}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), backingOpen, uintptr(unsafe.Pointer(&m)))
	if errno != 0 {
		return 0, errno
	}
	return int32(n), nil
}

// closeBacking makes the kernel forget a number. Without the connection it has done
// so by itself.
func (d device) closeBacking(id int32) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), backingClose, uintptr(unsafe.Pointer(&id)))
}

// leave gives the device's file back, while the kernel keeps its own hold of it
// for the process that comes next.
func (p *passthrough) leave(f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		p.on = false
		f.dev.Ranger.UnpinRange(p.pinned)
	}
}
