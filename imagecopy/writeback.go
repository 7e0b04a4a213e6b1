package imagecopy

import "golang.org/x/sys/unix"

// writeBack asks the kernel to begin writing to the medium what lies in the page
// cache, where the destination's bytes lie in a local file. Otherwise all of that
// would be left for the flush at the end, with the medium idle until then.
// Nothing rests on it: errors are for the flush to find.
func (c *copier) writeBack(off, n int64) {
	if c.dst.Ranger == nil {
		return
	}
	for n > 0 {
		r, ok := c.dst.Ranger.PinRange(off, n)
		if !ok {
			return
		}
		_ = unix.SyncFileRange(r.FD, r.Off, r.Len, unix.SYNC_FILE_RANGE_WRITE)
		c.dst.Ranger.UnpinRange(r)
		off, n = off+r.Len, n-r.Len
	}
}
