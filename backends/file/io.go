package file

import (
	"context"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Reads and writes, from the outside in: check, pick the way (direct.go for
// O_DIRECT), loop until all bytes are moved.

// ReadAt fills p from off. A file that has become shorter than the Device is an
// error of kind IO.
func (d *Device) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	if d.align > 1 {
		return d.readDirect(p, off)
	}
	return d.readFull(d.fd, p, off)
}

// ReadNowait fills p from the page cache, or returns block.ErrWouldBlock where
// anything else would be needed, errors of the medium included.
func (d *Device) ReadNowait(p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	if n, err := d.kern.preadNowait(d.fd, p, off); err != nil || n < len(p) {
		return block.ErrWouldBlock
	}
	return nil
}

// WriteAt stores p at off.
func (d *Device) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	if err := d.enterChange("write", off, int64(len(p)), flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	if flags&block.FUA != 0 {
		return d.writeDurable(p, off)
	}
	return d.write(p, off, false)
}

func (d *Device) write(p []byte, off int64, dsync bool) error {
	if d.align > 1 {
		return d.writeDirect(p, off, dsync)
	}
	return d.writeFull(d.fd, p, off, dsync)
}

func (d *Device) readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := d.kern.pread(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return d.fail("read", off, err)
		}
		p, off = p[n:], off+int64(n)
		if n == 0 || len(p) > 0 && fd == d.fd && off&(d.align-1) != 0 {
			return block.Errorf(block.IO, "read", d.path, off, "the file ends here, the device has %d bytes", d.size.Load())
		}
	}
	return nil
}

func (d *Device) writeFull(fd int, p []byte, off int64, dsync bool) error {
	for len(p) > 0 {
		n, err := d.kern.pwrite(fd, p, off, dsync)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return d.fail("write", off, err)
		case n == 0:
			return block.Errorf(block.IO, "write", d.path, off, "the system took none of %d bytes", len(p))
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
