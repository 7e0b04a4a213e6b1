package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{nil, OK},
		{errors.New("whatever"), IO},
		{NoSpace, NoSpace},
		{fmt.Errorf("grow: %w", NoSpace), NoSpace},
		{Errorf(Fenced, "write", "disk", 0, ""), Fenced},
		{fmt.Errorf("outer: %w", Errorf(Corrupt, "open", "disk", -1, "")), Corrupt},
		{&Error{Kind: Transient, Op: "read", Err: Errorf(Corrupt, "read", "", -1, "")}, Transient},
		{&Error{Kind: Busy, Op: "open", Err: syscall.EIO}, Busy},
		{syscall.EIO, IO},
		{syscall.EINVAL, Invalid},
		{syscall.ENOSPC, NoSpace},
		{syscall.EDQUOT, NoSpace},
		{syscall.EROFS, ReadOnly},
		{syscall.EACCES, Permission},
		{syscall.ENOENT, NotFound},
		{syscall.EEXIST, Exists},
		{syscall.EAGAIN, Busy},
		{syscall.EOPNOTSUPP, Unsupported},
		{syscall.ENOSYS, Unsupported},
		{syscall.ECONNRESET, Transient},
		{syscall.ESTALE, Transient},
		{syscall.EBADF, Closed},
		{syscall.Errno(0), OK},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EPERM}, Permission},
		{os.NewSyscallError("pwrite", syscall.ENOSPC), NoSpace},
		{context.Canceled, Canceled},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), Canceled},
		{fs.ErrNotExist, NotFound},
		{fs.ErrExist, Exists},
		{fs.ErrPermission, Permission},
		{os.ErrClosed, Closed},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("KindOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestEveryKindHasNameAndErrno(t *testing.T) {
	names := map[string]bool{}
	for k := OK; k <= Canceled; k++ {
		if names[k.String()] || k.String() == "" {
			t.Errorf("kind %d is called %q", uint8(k), k)
		}
		names[k.String()] = true
		if (k.Errno() == 0) != (k == OK) {
			t.Errorf("errno of %v is %v", k, k.Errno())
		}
	}
	unknown := Kind(200)
	if unknown.String() != "kind 200" || unknown.Errno() != syscall.EIO {
		t.Errorf("an unknown kind is %q, %v", unknown, unknown.Errno())
	}
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{Errorf(NoSpace, "write", "disk.img", 4096, ""), "write disk.img at 4096: no space left"},
		{Errorf(Invalid, "write", "", -1, "flags %#x", 8), "write: flags 0x8"},
		{Errorf(NotFound, "open", "a/b", -1, ""), "open a/b: not found"},
		{Wrap(syscall.EIO, "read", "lun", 0), "read lun at 0: input/output error"},
		{Wrap(Errorf(NoSpace, "write", "inner", 1, ""), "copy", "outer", 2), "write inner at 1: no space left"},
		{Wrap(errors.Join(syscall.EIO, NoSpace), "close", "lun", -1), "close lun: input/output error; no space left"},
		{Wrap(Errorf(NoSpace, "write", "", 1, ""), "copy", "outer", -1), "copy outer: write at 1: no space left"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("text %q, want %q", got, c.want)
		}
		if strings.ContainsRune(c.err.Error(), '\n') {
			t.Errorf("%q is more than one line", c.err)
		}
	}
}

func TestWrap(t *testing.T) {
	if err := Wrap(nil, "read", "disk", 0); err != nil {
		t.Errorf("Wrap(nil) = %v", err)
	}
	named := Errorf(Corrupt, "read", "disk", 7, "")
	if got := Wrap(named, "copy", "other", 9); got != error(named) {
		t.Errorf("an error that names its object became %v", got)
	}
	got := Wrap(&os.PathError{Op: "pwrite", Path: "x", Err: syscall.ENOSPC}, "write", "disk", 7)
	var e *Error
	if !errors.As(got, &e) || e.Kind != NoSpace || e.Op != "write" || e.Object != "disk" || e.Off != 7 {
		t.Errorf("wrapped: %#v", got)
	}
	if !errors.Is(got, NoSpace) || errors.Is(got, ReadOnly) || !errors.Is(got, syscall.ENOSPC) {
		t.Errorf("errors.Is does not see kind and cause of %v", got)
	}
	if KindOf(Wrap(fmt.Errorf("late: %w", Transient), "read", "nfs", 0)) != Transient {
		t.Error("the kind of the cause is lost")
	}
}
