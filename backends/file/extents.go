package file

import (
	"context"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Extents come from SEEK_DATA and SEEK_HOLE, which also know dirty pages. What
// these call a hole may be space that was reserved and never written; FIEMAP,
// where the file system has it, tells the two apart. Positions of the
// descriptor move, which no other call depends on.

// Extents tells data, reserved space that reads as zeroes, and holes.
func (d *Device) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := d.enter("extents", off, n); err != nil {
		return dst, err
	}
	defer d.gate.Leave()
	w := extentWriter{dst: dst, first: len(dst), pos: off, end: off + n, mask: d.info.Block.Min - 1}
	if n == 0 {
		return append(dst, block.Extent{Depth: 1}), nil
	}
	for w.pos < w.end && !w.full {
		if err := d.nextExtents(&w); err != nil {
			return dst, d.fail("extents", w.pos, err)
		}
	}
	return w.dst, nil
}

// nextExtents adds the data at w.pos, or the hole there.
func (d *Device) nextExtents(w *extentWriter) error {
	data, err := unix.Seek(d.fd, w.pos, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // a hole up to the end of the file
		// A file that somebody cut off is shorter than the Device: what it no
		// longer has is called data, so that whoever wants it meets the error.
		if data, err = unix.Seek(d.fd, 0, unix.SEEK_END); err != nil {
			return err
		}
	case err == unix.EINVAL || err == unix.EOPNOTSUPP:
		w.add(w.end, 0)
		return nil
	case err != nil:
		return err
	}
	if data > w.pos {
		if data = w.down(data); data > w.pos {
			d.addHole(w, min(data, w.end))
			return nil
		}
	}
	hole, err := unix.Seek(d.fd, max(data, w.pos), unix.SEEK_HOLE)
	if err == unix.ENXIO { // cut off meanwhile
		hole, err = w.end, nil
	}
	if err == nil {
		w.add(max(w.up(hole), w.pos+w.mask+1), 0)
	}
	return err
}

const hole = block.Hole | block.Zero

// addHole adds [w.pos, end), which reads as zeroes, as holes and reserved space.
func (d *Device) addHole(w *extentWriter, end int64) {
	for w.pos < end && !w.full {
		from := w.pos
		m, ok := fiemap(d.fd, from, end-from)
		if !ok {
			w.add(end, hole)
			return
		}
		for i := range m.count() {
			lo, hi, written := m.extent(i)
			w.add(min(w.down(lo), end), hole)
			state := block.Zero
			if written { // since SEEK_DATA was asked
				state = 0
			}
			w.add(min(w.up(hi), end), state)
		}
		if m.complete() {
			w.add(end, hole)
			return
		}
		if w.pos == from { // no progress: never expected
			w.add(end, 0)
		}
	}
}

// extentWriter collects extents in order. add with an end at or before pos does
// nothing.
type extentWriter struct {
	dst      []block.Extent
	first    int
	pos, end int64
	mask     int64
	full     bool
}

func (w *extentWriter) down(off int64) int64 { return off &^ w.mask }
func (w *extentWriter) up(off int64) int64   { return (off + w.mask) &^ w.mask }

func (w *extentWriter) add(to int64, state block.ExtentState) {
	n := min(to, w.end) - w.pos
	if n <= 0 || w.full {
		return
	}
	last := len(w.dst) - 1
	switch {
	case last >= w.first && w.dst[last].State == state:
		w.dst[last].Len += n
	case len(w.dst) == cap(w.dst) && last >= w.first:
		w.full = true
		return
	default:
		w.dst = append(w.dst, block.Extent{Len: n, State: state, Depth: 1})
	}
	w.pos += n
}

// fiemapReply is struct fiemap of linux/fiemap.h with room for extents.
type fiemapReply struct {
	head    [32]byte // start, length u64; flags, mapped, room, reserved u32
	extents [fiemapRoom][56]byte
}

const (
	fiemapRoom      = 32
	fsIocFiemap     = 0xc020660b
	fiemapLast      = 0x1
	fiemapUnwritten = 0x800
)

// fiemap asks for the extents of a range; ok is false where there is no answer.
func fiemap(fd int, off, n int64) (m *fiemapReply, ok bool) {
	m = new(fiemapReply)
	binary.NativeEndian.PutUint64(m.head[0:], uint64(off))
	binary.NativeEndian.PutUint64(m.head[8:], uint64(n))
	binary.NativeEndian.PutUint32(m.head[24:], fiemapRoom)
	return m, ioctl(fd, fsIocFiemap, unsafe.Pointer(m)) == nil
}

func (m *fiemapReply) count() int {
	return int(min(binary.NativeEndian.Uint32(m.head[20:]), fiemapRoom))
}

// complete reports whether the reply tells of all extents in the range.
func (m *fiemapReply) complete() bool {
	n := m.count()
	return n < fiemapRoom || binary.NativeEndian.Uint32(m.extents[n-1][40:])&fiemapLast != 0
}

// extent gives the bounds of the i-th extent, and whether it holds data.
func (m *fiemapReply) extent(i int) (lo, hi int64, written bool) {
	e := &m.extents[i]
	lo = int64(binary.NativeEndian.Uint64(e[0:]))
	hi = lo + int64(binary.NativeEndian.Uint64(e[16:]))
	return lo, hi, binary.NativeEndian.Uint32(e[40:])&fiemapUnwritten == 0
}
