package fusefs

import (
	"fmt"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// A handle is what the kernel sends along with a request on an open file:
//
//	bits 32-63  era: which process gave it out
//	bits  0-31  number, counted up
//
// Nothing is looked up by it, so that a handle from before the file was added
// here, by another process or by this one, is as good as any. It only serves to
// count such openings once they are seen again.
type handle uint64

func newHandle(era uint32, number uint32) handle { return handle(uint64(era)<<32 | uint64(number)) }

func (h handle) era() uint32 { return uint32(h >> 32) }

// openings counts how many times a file is open.
type openings struct {
	first handle // those that it gives out are not less, in their era
	doubt bool   // it may be open from before; who has it open need not be seen

	mu   sync.Mutex
	now  int                 // opened since it was added
	seen map[handle]struct{} // from before, seen since then
	gone bool                // the file is being taken away
	over bool                // it is, and no opening counts any more
}

// own reports whether a handle was given out since the file was added.
func (o *openings) own(h handle) bool {
	return h.era() == o.first.era() && int32(uint32(h)-uint32(o.first)) >= 0
}

// open counts one more; false when the file is being taken away.
func (o *openings) open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.gone {
		o.now++
	}
	return !o.gone
}

// shut lets nobody open the file any more. Unless forced it refuses while the
// file is open, and says how many times, or may be.
func (o *openings) shut(force bool) (open int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if open = o.now + len(o.seen); (open > 0 || o.doubt) && !force {
		return open, false
	}
	o.gone = true
	return open, true
}

// meet counts a handle from before; true when it was not known yet.
func (o *openings) meet(h handle) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[h]; known {
		return false
	}
	if o.seen == nil {
		o.seen = map[handle]struct{}{}
	}
	o.seen[h] = struct{}{}
	return true
}

// close takes an opening away; false when it had not been counted.
func (o *openings) close(h handle) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return false
	}
	if o.own(h) {
		o.now--
		return true
	}
	_, known := o.seen[h]
	delete(o.seen, h)
	return known
}

// drop takes all openings away, and says how many there were.
func (o *openings) drop() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.now + len(o.seen)
	o.now, o.seen, o.over = 0, nil, true
	return n
}

func (o *openings) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now + len(o.seen)
}

// answer is what the kernel says of a file.
type answer struct {
	known, open bool
	err         error  // when it is not known
	end         func() // until it is called, nobody can open a file that is not open
}

// askOpen asks the kernel whether any client has a file open: it gives a lease for
// writing (fcntl(2), F_SETLEASE) only to one who is alone. Who opens the file
// meanwhile waits. The caller holds no lock, since this sends requests to this very
// process. To close the file asks nothing (see Open), so that the process can be
// killed before.
func (fs *FS) askOpen(f *file) answer {
	a := answer{err: fmt.Errorf("%s is not served", fs.cfg.Dir), end: func() {}}
	fs.tell(func() {
		fd, err := unix.Open(filepath.Join(fs.cfg.Dir, f.Name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			a.err = fmt.Errorf("open: %w", err)
			return
		}
		a.end = func() { _ = unix.Close(fd) }
		a.open, a.err = fs.others(fd, f.ID)
		a.known = a.err == nil
	})
	return a
}

// others reports whether the file that fd is open on is open elsewhere.
func (fs *FS) others(fd int, id uint64) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return false, err
	}
	if st.Ino != id || unix.Mkdev(st.Dev_major, st.Dev_minor) != fs.mountDev {
		return false, fmt.Errorf("something else is mounted at %s", fs.cfg.Dir)
	}
	switch _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err {
	case nil:
		return false, nil
	case unix.EAGAIN:
		return true, nil
	default:
		return false, fmt.Errorf("lease: %w", err)
	}
}
