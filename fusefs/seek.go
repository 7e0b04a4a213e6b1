package fusefs

import (
	"golang.org/x/sys/unix"

	"sluice/block"
)

// extentBuffer holds the extents of one question to a device. It is the
// reader's, so that a seek allocates nothing.
type extentBuffer [64]block.Extent

func (r *reader) extents() *extentBuffer {
	if r.seek == nil {
		r.seek = new(extentBuffer)
	}
	return r.seek
}

// isHole: nothing is allocated and zeroes are read. Zeroes that take up space
// are data, as is a range of which nobody knows what it reads as.
func isHole(s block.ExtentState) bool { return s&(block.Hole|block.Zero) == block.Hole|block.Zero }

// seek answers SEEK_DATA and SEEK_HOLE; the end of the file counts as a hole.
func (f *file) seek(buf *extentBuffer, req *request) (int64, error) {
	size, off := f.size.Load(), req.off
	if off < 0 || off >= size {
		return 0, refusal(unix.ENXIO)
	}
	var want bool
	switch req.flags {
	case unix.SEEK_DATA:
	case unix.SEEK_HOLE:
		want = true
	default:
		return 0, refusal(unix.EINVAL)
	}
	for off < size {
		extents, err := f.dev.ExtentsAt(&f.ended, off, size-off, buf[:0])
		if err != nil {
			return 0, err
		}
		for _, e := range extents {
			if isHole(e.State) == want {
				return off, nil
			}
			off += e.Len
		}
	}
	if want {
		return size, nil
	}
	return 0, refusal(unix.ENXIO)
}
