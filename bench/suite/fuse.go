package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/bench/report"
)

// mountedName is the file that every server in FUSE shows in its mount.
const mountedName = "disk"

// mount is where a server in FUSE shows its file, and what is left to take down when it has ended.
type mount struct {
	dir  string // a new folder
	file string // in it
	onto bool   // the server mounts on the file, which has to be there, and not on the folder
}

// newMount makes the folder, in the place of one that an earlier server had.
func newMount(dir string, onto bool) (mount, error) {
	m := mount{dir: dir, file: filepath.Join(dir, mountedName), onto: onto}
	if err := m.remove(); err != nil {
		return m, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil || !onto {
		return m, err
	}
	return m, os.WriteFile(m.file, nil, 0o600)
}

// point is what the server mounts on.
func (m mount) point() string {
	if m.onto {
		return m.file
	}
	return m.dir
}

// shows returns a probe that tells whether the file is there with its size in bytes.
func (m mount) shows(size int64) probe {
	return func(context.Context) error {
		info, err := os.Stat(m.file)
		if err != nil {
			return err
		}
		if info.Size() != size {
			return fmt.Errorf("%s has %d bytes, not %d", m.file, info.Size(), size)
		}
		return nil
	}
}

// remove takes the mount down, should the server have left it behind, and removes the folder. Without a folder there is
// nothing to do.
func (m mount) remove() error {
	// Detached, because a dead server's mount is busy for as long as a client has the file open. Most often there is none.
	err := unix.Unmount(m.point(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	switch {
	case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
	case errors.Is(err, unix.EPERM): // not root: a mount that is left makes the next lines fail
	default:
		return fmt.Errorf("unmount %s: %w", m.point(), err)
	}
	return errors.Join(removeFile(m.file), removeFile(m.dir))
}

// mountDir is where the server mounts, in the folder for sockets.
func (r *runner) mountDir(s Server) string { return filepath.Join(r.sockets, s.Name+".mnt") }

// mounted measures a server in FUSE.
func (r *runner) mounted(ctx context.Context, c cell) (s report.Sample, err error) {
	m, err := newMount(r.mountDir(c.server), c.server.onto)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, m.remove()) }() // the server has ended then
	return r.served(ctx, c)
}

// lookupFUSE fails when this program cannot mount.
func lookupFUSE(user string) error {
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("%s needs /dev/fuse: %w; run as root (or leave it out with --servers)", user, err)
	}
	return nil
}
