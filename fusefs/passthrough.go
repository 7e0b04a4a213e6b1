package fusefs

import (
	"fmt"
	"sync"
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
	id     int32 // by which the kernel knows the local file
	pinned block.FileRange
}

// backing gives the kernel's number of the local file.
func (p *passthrough) backing() (id int32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id, p.on
}

func (p *passthrough) active() bool {
	_, ok := p.backing()
	return ok
}

// status is what the local file says of itself: when it was written last
// (nanoseconds since 1970), and its blocks of 512 bytes.
func (p *passthrough) status() (modified int64, blocks uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var st unix.Stat_t
	if !p.on || unix.Fstat(p.pinned.FD, &st) != nil {
		return 0, 0, false
	}
	return st.Mtim.Nano(), uint64(st.Blocks), true
}

// register pins the device's file and makes it known to the kernel. known is the
// number that the kernel has for it from a process before, 0 without one: as long
// as a client has the file open, no other number will do.
func (p *passthrough) register(dev device, f *file, known int32) error {
	r, err := pinWhole(f)
	if err != nil {
		return err
	}
	id := known
	if id == 0 {
		if id, err = dev.openBacking(r.FD); err != nil {
			f.dev.Ranger.UnpinRange(r)
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on, p.id, p.pinned = true, id, r
	return nil
}

// pinWhole pins the file that a device is a plain view of.
func pinWhole(f *file) (block.FileRange, error) {
	if f.dev.Ranger == nil {
		return block.FileRange{}, block.Errorf(block.Unsupported, "pass through", f.Name, -1, "the device is not a local file")
	}
	size := f.size.Load()
	r, ok := f.dev.Ranger.PinRange(0, size)
	if !ok {
		return r, block.Errorf(block.Unsupported, "pass through", f.Name, -1, "the device is not a local file")
	}
	var st unix.Stat_t
	err := unix.Fstat(r.FD, &st)
	if err == nil && (r.Off != 0 || r.Len != size || st.Size != size || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = block.Errorf(block.Unsupported, "pass through", f.Name, -1, "the device is not the whole of one local file")
	}
	if err != nil {
		f.dev.Ranger.UnpinRange(r)
	}
	return r, err
}

// release ends what register began.
func (p *passthrough) release(dev device, f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on {
		return
	}
	p.on = false
	dev.closeBacking(p.id)
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
