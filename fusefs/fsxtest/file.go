package fsxtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk does operations. buf holds the data of a writing operation, and takes what a reading one reads, from its start
// on; n is how many bytes that were. at is where a seek ended, the file's size when there is no data any more.
type disk interface {
	do(op Op, buf []byte) (n int, at int64, err error)
	close() error
}

// file is the file under test, opened twice: with and without O_DIRECT.
type file struct {
	path        string
	size        int64
	f, directly *os.File
}

func openFile(path string, size int64) (*file, error) {
	d := &file{path: path, size: size}
	return d, d.open()
}

func (d *file) open() (err error) {
	if d.f, err = os.OpenFile(d.path, os.O_RDWR, 0); err != nil {
		return err
	}
	if d.directly, err = os.OpenFile(d.path, os.O_RDWR|syscall.O_DIRECT, 0); err != nil {
		return errors.Join(err, d.f.Close())
	}
	return nil
}

func (d *file) close() error { return errors.Join(d.f.Close(), d.directly.Close()) }

func (d *file) do(op Op, buf []byte) (n int, at int64, err error) {
	fd := int(d.f.Fd())
	switch op.Kind {
	case Read:
		n, err = readAt(d.f, buf, op.Off)
	case DirectRead:
		n, err = readAt(d.directly, buf, op.Off)
	case Write:
		n, err = d.f.WriteAt(buf, op.Off)
	case DirectWrite:
		n, err = d.directly.WriteAt(buf, op.Off)
	case MapRead, MapWrite:
		n, err = len(buf), d.mapped(op, buf)
	case Punch:
		err = retry(func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Len)
		})
	case Zero:
		err = retry(func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Len)
		})
	case Allocate:
		err = retry(func() error { return unix.Fallocate(fd, 0, op.Off, op.Len) })
	case Sync:
		err = retry(func() error { return unix.Fsync(fd) })
	case DataSync:
		err = retry(func() error { return unix.Fdatasync(fd) })
	case SeekData:
		at, err = d.seek(op.Off, unix.SEEK_DATA)
	case SeekHole:
		at, err = d.seek(op.Off, unix.SEEK_HOLE)
	case Copy:
		err = d.copy(op)
	case Reopen:
		err = errors.Join(d.close(), d.open())
	}
	return n, at, err
}

// readAt reads as much of buf as there is.
func readAt(f *os.File, buf []byte, off int64) (int, error) {
	n, err := f.ReadAt(buf, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// mapped reads or writes through a mapping of the pages of the range. A fault that the file system cannot answer is an
// error of the operation.
func (d *file) mapped(op Op, buf []byte) (err error) {
	begin := op.Off / pageSize * pageSize
	pages, err := unix.Mmap(int(d.f.Fd()), begin, int(op.Off+op.Len-begin), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(pages)) }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("mapping: %v", fault)
		}
	}()
	if op.Kind == MapRead {
		copy(buf, pages[op.Off-begin:])
		return nil
	}
	copy(pages[op.Off-begin:], buf)
	flags := unix.MS_ASYNC
	if op.Wait {
		flags = unix.MS_SYNC
	}
	return retry(func() error { return unix.Msync(pages, flags) })
}

func (d *file) seek(off int64, whence int) (int64, error) {
	at, err := unix.Seek(int(d.f.Fd()), off, whence)
	if whence == unix.SEEK_DATA && errors.Is(err, unix.ENXIO) {
		return d.size, nil
	}
	return at, err
}

func (d *file) copy(op Op) error {
	from, to := op.Off, op.To
	for left := op.Len; left > 0; {
		n, err := unix.CopyFileRange(int(d.f.Fd()), &from, int(d.f.Fd()), &to, int(left), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("nothing was copied, %d bytes are left", left)
		}
		left -= int64(n)
	}
	return nil
}
