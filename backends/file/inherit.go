package file

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// An image that takes the place of another must not be readable by more users
// than that was, nor lose the ones who work with it.

const (
	attrACL   = "system.posix_acl_access"
	attrLabel = "security.selinux"

	// attrMost is the longest value that the kernel lets an attribute have.
	attrMost = 64 << 10
)

// Inherit gives the image to the owner, the group, the permissions and the access
// control list of the image from, and its SELinux label where that is permitted.
// Set-user-ID bits and the like are left out. On failure to may have some of them,
// and admits nobody but its owners, old or new.
func (s *Store) Inherit(_ context.Context, from, to string) error {
	const op = "keep the owner and mode of"
	if err := cmp.Or(s.check(op, from), s.check(op, to)); err != nil {
		return err
	}
	old, err := s.root.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return s.fail(op, from, err)
	}
	defer func() { _ = old.Close() }() // only read
	image, err := s.root.OpenFile(to, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return s.fail("open", to, err)
	}
	defer func() { _ = image.Close() }() // it was synced
	return s.fail(op, from, inherit(int(old.Fd()), int(image.Fd())))
}

// inherit sets the mode last: until then the image is private, whatever an access
// control list that it got from its folder says.
func inherit(from, to int) error {
	var old, now unix.Stat_t
	if err := cmp.Or(unix.Fstat(from, &old), unix.Fstat(to, &now)); err != nil {
		return err
	}
	if old.Uid != now.Uid || old.Gid != now.Gid {
		if err := unix.Fchown(to, int(old.Uid), int(old.Gid)); err != nil {
			return err
		}
	}
	label, err := getAttr(from, attrLabel)
	if err == nil {
		err = setLabel(to, label)
	}
	if err == nil {
		err = inheritACL(from, to)
	}
	if err == nil {
		err = unix.Fchmod(to, old.Mode&0o777)
	}
	if err != nil {
		return err
	}
	return retry(func() error { return unix.Fsync(to) })
}

// inheritACL makes the list of to the one of from, which may have none.
func inheritACL(from, to int) error {
	list, err := getAttr(from, attrACL)
	switch {
	case err != nil:
		return err
	case list != nil:
		return unix.Fsetxattr(to, attrACL, list, 0)
	}
	return unlessMissing(unix.Fremovexattr(to, attrACL))
}

// setLabel leaves the image with the label of its folder where it may not have
// the other one.
func setLabel(fd int, label []byte) error {
	has, err := getAttr(fd, attrLabel)
	if err != nil || label == nil || bytes.Equal(has, label) {
		return err
	}
	err = unix.Fsetxattr(fd, attrLabel, label, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return unlessMissing(err)
}

// getAttr gives an attribute, or nil where there is none.
func getAttr(fd int, name string) ([]byte, error) {
	value := make([]byte, attrMost)
	n, err := unix.Fgetxattr(fd, name, value)
	if err != nil {
		return nil, unlessMissing(err)
	}
	return value[:n], nil
}

// unlessMissing takes away the errors of attributes that are not there, or that
// the file system does not know.
func unlessMissing(err error) error {
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
