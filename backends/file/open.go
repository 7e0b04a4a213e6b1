package file

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/backends/location"
	"sluice/block"
	"sluice/block/buffer"
)

// Open opens the file or block device that the path or URL names.
func Open(_ context.Context, url string, opts block.OpenOptions) (block.Device, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	d, err := open(cfg, opts, func(flags int) (int, error) {
		return unix.Open(cfg.Path, flags, 0)
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// open makes a Device from what opener opens.
func open(cfg Config, opts block.OpenOptions, opener func(flags int) (int, error)) (*Device, error) {
	opts.Direct = cfg.Direct.Or(opts.Direct)
	opts.Share = cfg.Share.Or(opts.Share)
	d := &Device{path: cfg.Path, kern: linux{}, cached: -1, align: 1, zeroAlign: 1}
	d.syncs.witness = -1
	d.info.ReadOnly = opts.ReadOnly
	fd, err := openFD(cfg, opts, opener)
	if err != nil {
		return nil, openError(cfg.Path, opts, err)
	}
	d.fd = fd
	if err := d.setUp(cfg, opts); err != nil {
		_ = d.closeFDs() // the first error is the one to tell
		return nil, err
	}
	return d, nil
}

// openFD opens with O_NONBLOCK, so that a FIFO is refused and not waited for.
//
// A block device to be written is opened with O_EXCL, which fails where the
// kernel itself uses it, or a disk or partition that it is a part of: mounted
// file systems, LVM, md, swap. Those take none of the image locks. Where the
// user lets others write beside us, O_EXCL is left out, since it would also
// refuse a second opening of ours. On files it does nothing.
func openFD(cfg Config, opts block.OpenOptions, opener func(flags int) (int, error)) (fd int, err error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NONBLOCK
	switch {
	case opts.ReadOnly:
		flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	case !opts.Share && !opts.Unlocked && cfg.Lock != location.Off:
		flags |= unix.O_EXCL
	}
	if opts.Direct {
		flags |= unix.O_DIRECT
	}
	err = retry(func() error { fd, err = opener(flags); return err })
	return fd, err
}

func openError(path string, opts block.OpenOptions, err error) error {
	if opts.Direct && errors.Is(err, unix.EINVAL) {
		return block.Errorf(block.Unsupported, "open", path, -1, "the file system has no O_DIRECT")
	}
	if errors.Is(err, unix.EBUSY) {
		return block.Errorf(block.Busy, "open", path, -1,
			"mounted, part of LVM, md or swap, or held by another program that writes it: unmount or free it first")
	}
	return block.Wrap(err, "open", path, -1)
}

// setUp finds out what the open file is and can do, and locks it.
func (d *Device) setUp(cfg Config, opts block.OpenOptions) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return d.fail("open", -1, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFBLK:
		d.device = true
	case unix.S_IFDIR:
		return block.Errorf(block.Invalid, "open", d.path, -1, "is a directory")
	default:
		return block.Errorf(block.Invalid, "open", d.path, -1, "neither a file nor a block device")
	}
	flags, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	if err != nil {
		return d.fail("open", -1, err)
	}
	if !opts.Unlocked && cfg.Lock != location.Off {
		if d.lock, err = lockImage(d.fd, d.path, opts, cfg.Lock == location.On); err != nil {
			return err
		}
	}
	size, err := unix.Seek(d.fd, 0, io.SeekEnd) // serves block devices too
	if err != nil {
		return d.fail("open", -1, err)
	}
	d.size.Store(size)
	if !opts.ReadOnly {
		if d.syncs.witness, err = reopen(d.fd, unix.O_RDONLY); err != nil {
			return d.fail("open", -1, err)
		}
	}
	return d.resolve(&st, opts.Direct)
}

// resolve fills in d.info.
func (d *Device) resolve(st *unix.Stat_t, direct bool) error {
	d.info.Block = block.BlockSize{Min: 1, Preferred: preferred(int64(st.Blksize))}
	if d.device {
		d.zeroAlign = d.deviceValue(unix.BLKSSZGET, 512)
		d.info.Block.Preferred = max(d.info.Block.Preferred, preferred(d.deviceValue(unix.BLKPBSZGET, 512)))
		var rotational uint16
		d.info.Rotational = ioctl(d.fd, unix.BLKROTATIONAL, unsafe.Pointer(&rotational)) == nil && rotational != 0
	}
	if direct {
		if err := d.resolveDirect(); err != nil {
			return err
		}
	}
	d.info.Caps = d.capabilities(direct)
	return nil
}

func preferred(n int64) int64 {
	if n <= 4096 {
		return 4096
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

// deviceValue asks a block device for an int.
func (d *Device) deviceValue(request uint, otherwise int64) int64 {
	v, err := unix.IoctlGetInt(d.fd, request)
	if err != nil || v <= 0 {
		return otherwise
	}
	return int64(v)
}

// resolveDirect finds the alignment of O_DIRECT and, where the size does not
// keep to it, opens the descriptor for the fragments.
func (d *Device) resolveDirect() error {
	mem, align, err := d.directAlign()
	if err != nil {
		return err
	}
	d.align, d.info.MemAlign = align, int(mem)
	d.info.Block.Min = align
	d.info.Block.Preferred = max(d.info.Block.Preferred, align)
	if d.size.Load()%align == 0 {
		return nil
	}
	d.info.Block.Min = 1
	mode := unix.O_RDWR
	if d.info.ReadOnly {
		mode = unix.O_RDONLY
	}
	d.cached, err = reopen(d.fd, mode)
	return d.fail("open", -1, err)
}

// directAlign asks the kernel for the alignments of memory and of offsets, and
// tries them out where it does not tell.
func (d *Device) directAlign() (mem, off int64, err error) {
	var sx unix.Statx_t
	err = unix.Statx(d.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &sx)
	if err == nil && sx.Mask&unix.STATX_DIOALIGN != 0 {
		mem, off = int64(sx.Dio_mem_align), int64(sx.Dio_offset_align)
		if mem <= 0 || off <= 0 || mem&(mem-1) != 0 || off&(off-1) != 0 {
			return 0, 0, block.Errorf(block.Unsupported, "open", d.path, -1, "no O_DIRECT on this file")
		}
		return mem, max(off, 512), nil
	}
	if d.device {
		return d.zeroAlign, d.zeroAlign, nil
	}
	b := buffer.Get(4096)
	defer b.Release()
	for _, n := range []int64{512, 1024, 2048} {
		if _, err := d.kern.pread(d.fd, b.B[:n], n); err == nil {
			return n, n, nil
		}
	}
	return 4096, 4096, nil
}

// capabilities tells what works on the open file.
func (d *Device) capabilities(direct bool) block.Cap {
	caps := block.CapMultiConn | block.CapFlush
	if !direct {
		caps |= block.CapPrefetch | block.CapFileRange
		if d.hasNowait() {
			caps |= block.CapNowait
		}
	}
	if !d.device {
		caps |= block.CapExtents
	}
	if d.info.ReadOnly {
		return caps
	}
	caps |= block.CapFUA | block.CapZero | block.CapDiscard
	if !d.device {
		caps |= block.CapResize
		if !direct {
			caps |= block.CapSerialWrites
		}
		if d.zeroesFast() {
			caps |= block.CapFastZero
		}
	}
	return caps
}

// hasNowait tries a read; a file system that cannot (tmpfs) says so at once.
func (d *Device) hasNowait() bool {
	var b [1]byte
	_, err := d.kern.preadNowait(d.fd, b[:], 0)
	return err == nil || err == unix.EAGAIN
}

// zeroesFast reports whether the file system is known to zero any range without
// writing it out, unmapped or not.
func (d *Device) zeroesFast() bool {
	const extentMapped = 0x80000 // FS_EXTENT_FL: ext4 files without it have no ZERO_RANGE
	var fs unix.Statfs_t
	if unix.Fstatfs(d.fd, &fs) != nil {
		return false
	}
	switch fs.Type {
	case unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	case unix.EXT4_SUPER_MAGIC:
		attr, err := unix.IoctlGetInt(d.fd, unix.FS_IOC_GETFLAGS)
		return err == nil && attr&extentMapped != 0
	}
	return false
}
