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
// the last byte is read: read-ahead goes forward, so that the end comes last. To
// read the first byte as well would cost as much again and say nothing of what
// lies between: where requests to the medium overtake one another, the caller
// may wait for the rest of one. A kernel without cachestat is asked for both
// ends; in between there may be anything.
func (d *Device) resident(off, n int64) bool {
	last := off + n - 1
	if !d.kern.cached(d.fd, last) {
		return false
	}
	if off/page == last/page {
		return true
	}
	held, known := d.counted(off, n)
	return held || !known && d.kern.cached(d.fd, off)
}

// counted reports whether the page cache has a page for each part of the range;
// known is false where the kernel cannot tell.
func (d *Device) counted(off, n int64) (held, known bool) {
	if noCachestat.Load() {
		return false, false
	}
	r, s := cacheRange{uint64(off), uint64(n)}, cacheStat{}
	_, _, errno := unix.RawSyscall6(sysCachestat, uintptr(d.fd), uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&s)), 0, 0, 0)
	if errno == unix.ENOSYS {
		noCachestat.Store(true)
		return false, false
	}
	return errno == 0 && s.cached >= uint64((off+n+page-1)/page-off/page), true
}
