package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dataset is the image that all servers serve and the file that copies read, both full of data without a page of zeroes.
type dataset struct {
	dir    string // removed at the end, with all in it
	disk   string
	source string // empty unless a workload copies from a file
	size   int64
}

// newDataset writes the files below parent. The caller removes them, also after an error.
func newDataset(ctx context.Context, parent string, size int64, withSource bool) (*dataset, error) {
	parent, err := filepath.Abs(parent) // a configuration that names the image wants it so
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	d := &dataset{dir: dir, disk: filepath.Join(dir, "disk.raw"), size: size}
	if err := fill(ctx, d.disk, size, 1); err != nil {
		return d, err
	}
	if withSource {
		d.source = filepath.Join(dir, "source.raw")
		return d, fill(ctx, d.source, size, 2)
	}
	return d, nil
}

// copied is where a program puts the copy that it makes of the image.
func (d *dataset) copied() string { return filepath.Join(d.dir, "copied.raw") }

func (d *dataset) remove() error { return os.RemoveAll(d.dir) }

// fill writes pseudo-random bytes and brings them to the disk, so that no write-back runs during the first samples.
func fill(ctx context.Context, path string, size int64, seed byte) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	random := rand.NewChaCha8([32]byte{seed})
	buf := make([]byte, 1<<20)
	for done := int64(0); done < size; done += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := random.Read(buf); err != nil {
			return err
		}
		if _, err := f.Write(buf[:min(int64(len(buf)), size-done)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// cache reads the files, so that they are in the page cache when they are measured.
func (d *dataset) cache(ctx context.Context) error {
	for _, path := range []string{d.disk, d.source} {
		if path == "" {
			continue
		}
		if err := readAll(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

func readAll(ctx context.Context, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// settle writes back what a sample has left dirty, so that the next sample does not pay for it.
func (d *dataset) settle() (err error) {
	f, err := os.OpenFile(d.disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

// fileSystem names the type of the file system that holds a directory.
func fileSystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name := names[int64(st.Type)]; name != "" {
		return name, nil
	}
	return fmt.Sprintf("type %#x", st.Type), nil
}
