package file

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/buffer"
)

// Creating an image: make a file without a name (O_TMPFILE), give it its size
// and space, sync it, link it to its name, sync the folder. Until the link, a
// failure or a crash leaves nothing; the link fails where the name is taken. A
// file system without O_TMPFILE gets the name first, exclusively, and loses it
// again on failure.

// Create makes an image that reads as zeroes, with mode 0644 less the umask, or
// 0600 where it is to be private.
func (s *Store) Create(ctx context.Context, name string, opts block.CreateOptions) error {
	if err := s.check("create", name); err != nil {
		return err
	}
	if opts.Size < 0 {
		return block.Errorf(block.Invalid, "create", filepath.Join(s.cfg.Path, name), -1, "negative size %d", opts.Size)
	}
	if _, err := s.root.Lstat(name); err == nil {
		return s.fail("create", name, fs.ErrExist) // spare the work; the link decides
	}
	folder, err := s.root.Open(path.Dir(name))
	if err != nil {
		return s.fail("create", name, err)
	}
	defer func() { _ = folder.Close() }()
	c := creation{folder: folder, base: path.Base(name), mode: 0o644}
	if opts.Private {
		c.mode = 0o600
	}
	return s.fail("create", name, c.run(ctx, opts))
}

// creation is one Create in progress.
type creation struct {
	folder *os.File
	base   string
	mode   uint32 // less the umask
	fd     int
	named  bool // the file has its name, or gets it when it is opened
}

func (c *creation) run(ctx context.Context, opts block.CreateOptions) (err error) {
	if err := c.open(); err != nil {
		return err
	}
	defer func() {
		_ = unix.Close(c.fd) // it was synced
		if err != nil && c.named {
			if left := unix.Unlinkat(c.folderFD(), c.base, 0); left != nil {
				err = fmt.Errorf("%w; it could not be removed again: %w", err, left)
			}
		}
	}()
	if err := c.fill(ctx, opts); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Fsync(c.fd) }); err != nil {
		return err
	}
	if !c.named {
		self := fmt.Sprintf("/proc/self/fd/%d", c.fd)
		if err := unix.Linkat(unix.AT_FDCWD, self, c.folderFD(), c.base, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		c.named = true
	}
	return c.folder.Sync()
}

func (c *creation) folderFD() int { return int(c.folder.Fd()) }

func (c *creation) open() (err error) {
	if !c.named {
		c.fd, err = unix.Openat(c.folderFD(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, c.mode)
		if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.ENOENT {
			return err
		}
		c.named = true
	}
	c.fd, err = unix.Openat(c.folderFD(), c.base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, c.mode)
	return err
}

// fill gives the file its size and space.
func (c *creation) fill(ctx context.Context, opts block.CreateOptions) error {
	if err := retry(func() error { return unix.Ftruncate(c.fd, opts.Size) }); err != nil || opts.Size == 0 {
		return err
	}
	switch opts.Preallocate {
	case "", block.PreallocateOff, block.PreallocateMetadata:
		return nil
	case block.PreallocateFalloc:
		err := retry(func() error { return unix.Fallocate(c.fd, 0, 0, opts.Size) })
		if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
			return err
		}
		return c.writeZeroes(ctx, opts.Size)
	case block.PreallocateFull:
		return c.writeZeroes(ctx, opts.Size)
	}
	return fmt.Errorf("unknown preallocation %q (off, metadata, falloc, full): %w", opts.Preallocate, block.Invalid)
}

func (c *creation) writeZeroes(ctx context.Context, size int64) error {
	b := buffer.Get(int(min(size, bounceSize)))
	defer b.Release()
	clear(b.B)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pwrite(c.fd, b.B[:min(size-off, int64(len(b.B)))], off)
		if err != nil && err != unix.EINTR {
			return err
		}
		off += int64(max(n, 0))
	}
	return nil
}
