package file

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// The image lock that QEMU's file driver takes, byte for byte.
//
// A permission is a bit. Who uses permission i holds a shared lock on the byte
// permBase+i of the file; who does not let others use it holds one on
// sharedBase+i. Nobody ever holds an exclusive lock: after taking its own locks,
// each tests whether an exclusive one would be refused on the bytes that speak
// against it: sharedBase+i for what it uses, permBase+i for what it does not
// share. Two that start at the same moment may both be refused.
//
// The locks belong to the open file description and go with it. The kernel's own
// users of a block device take none of them: see openFD for those.

const (
	permBase   = 100
	sharedBase = 200

	// permissionBytes is how many bytes QEMU has ever used from each base.
	permissionBytes = 5
)

// permission is a set of QEMU's block permissions.
type permission uint

const (
	consistentRead permission = 1 << 0
	write          permission = 1 << 1
	resize         permission = 1 << 3
)

var permissions = [...]struct {
	bit  int64
	mask permission
	verb string
}{
	{0, consistentRead, "read"},
	{1, write, "write"},
	{3, resize, "resize"},
}

// imageLock is the lock held through a descriptor.
type imageLock struct {
	fd   int
	path string
}

// lockImage takes the lock that an image opened with these options needs. Where
// the file system knows no such locks it returns nil, or an error if the lock
// is required.
func lockImage(fd int, path string, opts block.OpenOptions, required bool) (*imageLock, error) {
	l := &imageLock{fd: fd, path: path}
	if err := l.probe(); err != nil {
		if required {
			return nil, block.Errorf(block.Unsupported, "lock", path, -1, "the file system has no such locks: %w", err)
		}
		return nil, nil
	}
	uses, refuses := consistentRead, resize
	if !opts.ReadOnly {
		uses |= write
	}
	if !opts.Share {
		refuses |= write
	}
	return l, l.take(uses, refuses)
}

// InUse reports whether another opening, in this or another process, holds an
// image lock on the file or block device that the path or URL names. It takes no
// lock and needs no more than the right to read; a symbolic link is followed.
// Where that cannot be found out it gives an error: Unsupported where the file
// system knows no such locks, else that of opening.
func InUse(url string) (bool, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return false, err
	}
	var fd int
	err = retry(func() error {
		fd, err = unix.Open(cfg.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return false, block.Wrap(err, "open", cfg.Path, -1)
	}
	defer func() { _ = unix.Close(fd) }()
	return inUse(fd, cfg.Path)
}

// inUse looks at the file that fd, opened with O_PATH, stands for. Opening what
// is no image could do something to it, so that is found out first.
func inUse(fd int, path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, block.Wrap(err, "open", path, -1)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return false, block.Errorf(block.Invalid, "open", path, -1, "neither a file nor a block device")
	}
	probe, err := reopen(fd, unix.O_RDONLY)
	if err != nil {
		return false, block.Wrap(err, "open", path, -1)
	}
	defer func() { _ = unix.Close(probe) }()
	l := &imageLock{fd: probe, path: path}
	for _, base := range []int64{permBase, sharedBase} {
		held, err := l.takenAny(base, permissionBytes)
		if err != nil {
			return false, block.Errorf(block.Unsupported, "lock", path, -1, "the file system has no such locks: %w", err)
		}
		if held {
			return true, nil
		}
	}
	return false, nil
}

// reopen gives another open file description of what fd stands for.
func reopen(fd, flags int) (again int, err error) {
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	err = retry(func() error { again, err = unix.Open(self, flags|unix.O_CLOEXEC, 0); return err })
	return again, err
}

// probe asks for a lock without taking it.
func (l *imageLock) probe() error {
	_, err := l.taken(permBase)
	return err
}

// take locks what the permissions need and checks that nobody objects.
func (l *imageLock) take(uses, refuses permission) error {
	for _, p := range permissions {
		if uses&p.mask != 0 {
			if err := l.set(permBase+p.bit, unix.F_RDLCK); err != nil {
				return err
			}
		}
		if refuses&p.mask != 0 {
			if err := l.set(sharedBase+p.bit, unix.F_RDLCK); err != nil {
				return err
			}
		}
	}
	return l.check(uses, refuses)
}

func (l *imageLock) check(uses, refuses permission) error {
	for _, p := range permissions {
		if uses&p.mask != 0 {
			if held, err := l.taken(sharedBase + p.bit); err != nil || held {
				return l.busy(err, "in use by another process that lets nobody %s it", p.verb)
			}
		}
		if refuses&p.mask != 0 {
			if held, err := l.taken(permBase + p.bit); err != nil || held {
				return l.busy(err, "in use by another process that may %s it", p.verb)
			}
		}
	}
	return nil
}

// withResize runs f while the permission to resize is held.
func (l *imageLock) withResize(f func() error) error {
	if l == nil {
		return f()
	}
	at := int64(permBase + 3)
	if err := l.set(at, unix.F_RDLCK); err != nil {
		return err
	}
	defer func() { _ = l.set(at, unix.F_UNLCK) }() // nothing can be done about a failure; Close unlocks
	if held, err := l.taken(sharedBase + 3); err != nil || held {
		return l.busy(err, "in use by another process that lets nobody resize it")
	}
	return f()
}

func (l *imageLock) busy(err error, format string, args ...any) error {
	if err != nil {
		return block.Wrap(err, "lock", l.path, -1)
	}
	return block.Errorf(block.Busy, "lock", l.path, -1, format, args...)
}

func (l *imageLock) set(at int64, kind int16) error {
	lk := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: 1}
	err := retry(func() error { return unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_SETLK, &lk) })
	if err == unix.EAGAIN || err == unix.EACCES {
		return l.busy(nil, "another process holds it exclusively")
	}
	return block.Wrap(err, "lock", l.path, -1)
}

// taken reports whether another open file description holds a lock on the byte.
func (l *imageLock) taken(at int64) (bool, error) { return l.takenAny(at, 1) }

// takenAny is taken for any of n bytes.
func (l *imageLock) takenAny(at, n int64) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: n}
	err := retry(func() error { return unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_GETLK, &lk) })
	return lk.Type != unix.F_UNLCK, err
}
