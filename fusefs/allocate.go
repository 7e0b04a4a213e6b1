package fusefs

import (
	"golang.org/x/sys/unix"

	"sluice/block"
)

// allocate answers fallocate, by mode:
//
//	0, KEEP_SIZE                nothing: what lies in the file is there; what does
//	                            not has no room. Space is not reserved.
//	PUNCH_HOLE | KEEP_SIZE      zeroes, and space may be freed
//	ZERO_RANGE, with KEEP_SIZE  zeroes, and space stays
//
// To punch a hole is not to discard: the range must read as zeroes, which a
// discarded one need not.
func (f *file) allocate(req *request) (int64, error) {
	if f.readOnly {
		return 0, refusal(unix.EROFS)
	}
	beyond := req.off+req.n > f.size.Load()
	n := f.within(req)
	switch req.flags {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		if beyond {
			return 0, refusal(unix.ENOSPC)
		}
		return n, nil
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		return n, f.zero(req.off, n, block.MayUnmap)
	case unix.FALLOC_FL_ZERO_RANGE:
		if beyond {
			return 0, refusal(unix.ENOSPC)
		}
		return n, f.zero(req.off, n, 0)
	case unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		return n, f.zero(req.off, n, 0)
	}
	return 0, refusal(unix.EOPNOTSUPP)
}

func (f *file) zero(off, n int64, flags block.Flags) error {
	if n == 0 {
		return nil
	}
	f.touch()
	defer f.unsynced.Store(true)
	return f.dev.ZeroRange(&f.ended, off, n, flags)
}
