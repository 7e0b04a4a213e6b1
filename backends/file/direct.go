package file

import (
	"unsafe"

	"sluice/block/buffer"
)

// O_DIRECT: the kernel moves whole blocks of d.align bytes from and to memory
// that is aligned to Info.MemAlign.
//
// Memory that is not goes through a pooled buffer. A file whose size is not a
// multiple of the block has an end that O_DIRECT cannot reach; such a Device
// takes requests of any grain (Info.Block.Min is 1) and is served in parts: whole blocks by O_DIRECT, the fragments through the page
// cache. The kernel keeps the two views of a file equal except where both work
// on one page at the same time, so fragments exclude everything else.

// bounceSize is how much goes through a pooled buffer at a time.
const bounceSize = 1 << 20

// nextPart gives the length of the first part of a request, and whether
// O_DIRECT can move it.
func (d *Device) nextPart(off, n int64) (int64, bool) {
	if d.cached < 0 {
		return n, true
	}
	mask := d.align - 1
	end := d.size.Load() &^ mask
	switch {
	case off >= end:
		return n, false
	case off&mask != 0:
		return min(n, d.align-off&mask), false
	case n < d.align:
		return n, false
	}
	return min(n&^mask, end-off), true
}

func (d *Device) readDirect(p []byte, off int64) error {
	for len(p) > 0 {
		n, whole := d.nextPart(off, int64(len(p)))
		var err error
		if whole {
			err = d.shared(func() error { return d.readBlocks(p[:n], off) })
		} else {
			err = d.alone(func() error { return d.readFull(d.cached, p[:n], off) })
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (d *Device) writeDirect(p []byte, off int64, dsync bool) error {
	for len(p) > 0 {
		n, whole := d.nextPart(off, int64(len(p)))
		var err error
		if whole {
			err = d.shared(func() error { return d.writeBlocks(p[:n], off, dsync) })
		} else {
			err = d.alone(func() error { return d.writeFull(d.cached, p[:n], off, dsync) })
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// shared runs f, which uses O_DIRECT, beside others of its kind.
func (d *Device) shared(f func() error) error {
	if d.cached < 0 {
		return f()
	}
	d.fragments.RLock()
	defer d.fragments.RUnlock()
	return f()
}

// alone runs f, which uses the page cache, with nothing else in progress.
func (d *Device) alone(f func() error) error {
	d.fragments.Lock()
	defer d.fragments.Unlock()
	return f()
}

func (d *Device) aligned(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&uintptr(d.info.MemAlign-1) == 0
}

func (d *Device) readBlocks(p []byte, off int64) error {
	if d.aligned(p) {
		return d.readFull(d.fd, p, off)
	}
	b := buffer.Get(min(len(p), bounceSize))
	defer b.Release()
	for len(p) > 0 {
		n := min(len(p), len(b.B))
		if err := d.readFull(d.fd, b.B[:n], off); err != nil {
			return err
		}
		copy(p, b.B[:n])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (d *Device) writeBlocks(p []byte, off int64, dsync bool) error {
	if d.aligned(p) {
		return d.writeFull(d.fd, p, off, dsync)
	}
	b := buffer.Get(min(len(p), bounceSize))
	defer b.Release()
	for len(p) > 0 {
		n := copy(b.B, p)
		if err := d.writeFull(d.fd, b.B[:n], off, dsync); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
