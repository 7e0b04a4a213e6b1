package file

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sysCachestat is cachestat(2), of Linux 6.5; the same number on every
// architecture.
const sysCachestat = 451

// cacheRange and cacheStat are the kernel's struct cachestat_range and struct
// cachestat.
type (
	cacheRange struct{ off, len uint64 }
	cacheStat  struct{ cached, dirty, writeback, evicted, recentlyEvicted uint64 }
)

var noCachestat atomic.Bool

const page = 4096

// resident reports whether the page cache holds all n bytes at off, read in and
// not only asked for.
//
// cachestat also counts the pages that read-ahead has put in place and whose
// bytes are still under way. Whether a page has its bytes only a read tells, so
// the first and the last byte are read: read-ahead goes forward and its requests
// mostly end in order, so that the end comes last; the beginning may be under way
// alone, where the end was in memory before. What lies between is not looked
// at, and with a kernel that has no cachestat need not be there at all: then the
// caller waits for the medium.
func (d *Device) resident(off, n int64) bool {
	return d.counted(off, n) && d.kern.cached(d.fd, off+n-1) && d.kern.cached(d.fd, off)
}

// counted reports whether the page cache has pages for the range, as far as the
// kernel can tell.
func (d *Device) counted(off, n int64) bool {
	if noCachestat.Load() {
		return true
	}
	r, s := cacheRange{uint64(off), uint64(n)}, cacheStat{}
	_, _, errno := unix.RawSyscall6(sysCachestat, uintptr(d.fd), uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&s)), 0, 0, 0)
	switch errno {
	case 0:
		return s.cached >= uint64((off+n+page-1)/page-off/page)
	case unix.ENOSYS:
		noCachestat.Store(true)
		return true
	}
	return false
}
