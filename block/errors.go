package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Kind says what sort of failure an error is. Exporters map it to their
// protocol's codes, callers match on it with errors.Is(err, block.NoSpace) or
// KindOf. A Kind is itself an error.
type Kind uint8

// The kinds. OK is the kind of a nil error; IO that of everything unknown.
const (
	OK          Kind = iota
	IO               // the medium or the transport failed for good
	Invalid          // the request makes no sense (alignment, unknown flag, bad argument)
	OutOfRange       // beyond the end of the device
	NoSpace          // no room: device, file system or quota
	ReadOnly         // the device does not take changes
	Permission       // not allowed
	NotFound         // no such object
	Exists           // the object is there already
	Busy             // in use by somebody else (locked)
	Corrupt          // what was read breaks the format's rules
	Transient        // failed this time, may work when repeated
	Fenced           // the lease that allows writing is lost
	Closed           // the device was closed
	Unsupported      // the device cannot do this
	Canceled         // the caller gave up
)

var kinds = [...]struct {
	name  string
	errno syscall.Errno
}{
	OK:          {"ok", 0},
	IO:          {"input/output error", syscall.EIO},
	Invalid:     {"invalid request", syscall.EINVAL},
	OutOfRange:  {"out of range", syscall.EINVAL},
	NoSpace:     {"no space left", syscall.ENOSPC},
	ReadOnly:    {"read-only", syscall.EROFS},
	Permission:  {"permission denied", syscall.EACCES},
	NotFound:    {"not found", syscall.ENOENT},
	Exists:      {"already exists", syscall.EEXIST},
	Busy:        {"in use", syscall.EBUSY},
	Corrupt:     {"corrupt", syscall.EIO},
	Transient:   {"temporarily unavailable", syscall.EIO},
	Fenced:      {"lease lost", syscall.EIO},
	Closed:      {"closed", syscall.ESHUTDOWN},
	Unsupported: {"not supported", syscall.EOPNOTSUPP},
	Canceled:    {"canceled", syscall.EINTR},
}

// Error gives the kind's name.
func (k Kind) Error() string { return k.String() }

// String gives the kind's name.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Errno is the operating system's code for the kind.
func (k Kind) Errno() syscall.Errno {
	if int(k) < len(kinds) {
		return kinds[k].errno
	}
	return syscall.EIO
}

// ErrWouldBlock is what ReadNowait returns instead of waiting. It is a plain
// value, since it is on the data path.
var ErrWouldBlock = errors.New("block: would block")

// Error is a failure of a Device or a Store. Its text is one line:
// "write disk.img at 4096: no space left".
type Error struct {
	Kind   Kind
	Op     string // what was tried: "read", "flush", "open" …
	Object string // path, URL or name; may be empty
	Off    int64  // byte offset, or -1
	Err    error  // the cause; may be nil
}

// Errorf makes an Error whose cause is the formatted text (none when format is
// empty). off is -1 where an offset makes no sense.
func Errorf(kind Kind, op, object string, off int64, format string, args ...any) *Error {
	e := &Error{Kind: kind, Op: op, Object: object, Off: off}
	if format != "" {
		e.Err = fmt.Errorf(format, args...)
	}
	return e
}

// Wrap makes an Error around a cause and takes the kind from it. It returns nil
// for a nil cause, and an *Error that already names its object unchanged.
func Wrap(err error, op, object string, off int64) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e.Object != "" {
		return err
	}
	kind := KindOf(err)
	if p, ok := err.(*fs.PathError); ok && p.Path == object {
		err = p.Err // the path is told already
	}
	return &Error{Kind: kind, Op: op, Object: object, Off: off, Err: err}
}

// Error gives operation, object, offset and cause in one line.
func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Off >= 0 {
		s += fmt.Sprintf(" at %d", e.Off)
	}
	if e.Err != nil {
		cause := strings.TrimSpace(e.Err.Error()) // joined errors and tools' output have more lines
		return s + ": " + strings.ReplaceAll(cause, "\n", "; ")
	}
	return s + ": " + e.Kind.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf classifies any error: OK for nil, the Kind of the outermost Error, a
// system call's code by table, context errors as Canceled, and IO otherwise.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return kindOfErrno(errno)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Canceled
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return Exists
	case errors.Is(err, fs.ErrPermission):
		return Permission
	case errors.Is(err, fs.ErrClosed):
		return Closed
	}
	return IO
}

func kindOfErrno(errno syscall.Errno) Kind {
	switch errno {
	case 0:
		return OK
	case syscall.EINVAL, syscall.EISDIR, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP:
		return Invalid
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return NoSpace
	case syscall.EROFS, syscall.ETXTBSY:
		return ReadOnly
	case syscall.EPERM, syscall.EACCES:
		return Permission
	case syscall.ENOENT, syscall.ENXIO, syscall.ENODEV:
		return NotFound
	case syscall.EEXIST, syscall.ENOTEMPTY:
		return Exists
	case syscall.EBUSY, syscall.EWOULDBLOCK:
		return Busy
	case syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.ENOTTY:
		return Unsupported
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EINTR, syscall.ESTALE:
		return Transient
	case syscall.ESHUTDOWN, syscall.EBADF:
		return Closed
	}
	return IO
}
