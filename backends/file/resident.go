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

// resident reports whether the page cache holds all n bytes at off. An older
// kernel is asked for the first and the last byte only: read-ahead fills what
// lies between, mostly, and where it did not the caller waits for the medium.
func (d *Device) resident(off, n int64) bool {
	if !noCachestat.Load() {
		r, s := cacheRange{uint64(off), uint64(n)}, cacheStat{}
		_, _, errno := unix.RawSyscall6(sysCachestat, uintptr(d.fd), uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&s)), 0, 0, 0)
		if errno == 0 {
			return s.cached >= uint64((off+n+page-1)/page-off/page)
		}
		if errno != unix.ENOSYS {
			return false
		}
		noCachestat.Store(true)
	}
	return d.cachedByte(off) && d.cachedByte(off+n-1)
}

func (d *Device) cachedByte(off int64) bool {
	var p [1]byte
	n, err := d.kern.preadNowait(d.fd, p[:], off)
	return err == nil && n == 1
}
