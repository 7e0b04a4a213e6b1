package fusefs

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// checkMountPoint tells why a folder cannot be mounted at, if it cannot.
func checkMountPoint(dir string) error {
	var st unix.Statx_t
	// A dead file system's folder may still be in the kernel's cache.
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_TYPE, &st)
	if errors.Is(err, unix.ENOTCONN) {
		return block.Errorf(block.Busy, "mount", dir, -1,
			"a file system whose server is gone is still mounted there; unmount it first: umount -l %s", dir)
	}
	if err != nil {
		return block.Wrap(err, "mount", dir, -1)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return block.Errorf(block.Invalid, "mount", dir, -1, "it is not a folder")
	}
	if st.Attributes&st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return block.Errorf(block.Busy, "mount", dir, -1, "something is mounted there already")
	}
	return checkEmpty(dir)
}

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
