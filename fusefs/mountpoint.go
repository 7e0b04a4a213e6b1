package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// checkMountPoint tells why a folder cannot be mounted at, if it cannot.
func checkMountPoint(dir string) error {
	var st unix.Statx_t // whoever serves what is mounted there is not asked: he may be stopped
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	isMount := err == nil && st.Attributes&st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
	if ended(err) || isMount && Dead(dir) {
		return block.Errorf(block.Busy, "mount", dir, -1,
			"a file system whose server is gone is still mounted there; unmount it first: umount -l %s", dir)
	}
	if err != nil {
		return block.Wrap(err, "mount", dir, -1)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return block.Errorf(block.Invalid, "mount", dir, -1, "it is not a folder")
	}
	if isMount {
		return block.Errorf(block.Busy, "mount", dir, -1, "something is mounted there already")
	}
	return checkEmpty(dir)
}

// lookWait is how long whoever serves a mount may take to say that he does.
const lookWait = 2 * time.Second

// Dead reports whether nobody serves what is mounted at a folder any more. A server
// that is stopped, or still to come, is not dead.
func Dead(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t // a dead file system's folder may still be in the kernel's cache
		answer <- unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_TYPE, &st)
	}()
	late := time.NewTimer(lookWait)
	defer late.Stop()
	select {
	case err := <-answer:
		return ended(err)
	case <-late.C:
		return false
	}
}

// ended reports whether a call failed because the connection has ended.
func ended(err error) bool { return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) }

func checkEmpty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return block.Wrap(err, "mount", dir, -1)
	}
	defer func() { _ = f.Close() }() // it was only read
	if names, _ := f.Readdirnames(1); len(names) > 0 {
		return block.Errorf(block.Exists, "mount", dir, -1, "the folder is not empty (%s is in it)", names[0])
	}
	return nil
}

// absolute gives a folder's whole path: it must stay right when the process
// changes its own folder.
func absolute(dir string) (string, error) {
	if dir == "" {
		return "", block.Errorf(block.Invalid, "mount", dir, -1, "no folder is given")
	}
	abs, err := filepath.Abs(dir)
	return abs, block.Wrap(err, "mount", dir, -1)
}
