package fusefs

import (
	"golang.org/x/sys/unix"

	"sluice/block"
)

const (
	// copyMax is how many bytes one copy_file_range reads and writes; the client
	// asks again for the rest, and can be ended in between.
	copyMax = 16 << 20
	// copyZeroMax is how many it covers where there is nothing to read.
	copyZeroMax = 1 << 30
)

// copyRange answers copy_file_range between files of the mount: through the
// reader's buffer, and by zeroing where the source has zeroes.
func (fs *FS) copyRange(r *reader, from *file, req *request) (int64, error) {
	to := fs.tree.find(req.toNode)
	if to == nil {
		return 0, refusal(unix.EIO)
	}
	if to.readOnly {
		return 0, refusal(unix.EROFS)
	}
	n := from.within(req)
	room := max(to.size.Load()-req.toOff, 0)
	if n > 0 && room == 0 {
		return 0, refusal(unix.ENOSPC)
	}
	n = min(n, room)
	var done, moved int64
	for done < n && moved < copyMax && done < copyZeroMax {
		step, zero, err := from.piece(r, req.off+done, min(n-done, copyZeroMax-done))
		if err == nil && !zero {
			err = from.read(r.bytes(step), req.off+done)
			moved += step
		}
		if err == nil {
			err = to.put(r, req.toOff+done, step, zero)
		}
		if err != nil {
			if done > 0 {
				break // what was copied counts; the next call meets the error
			}
			return 0, err
		}
		done += step
	}
	return done, nil
}

// piece is how much to copy in one go, and whether all of it reads as zeroes.
func (f *file) piece(r *reader, off, n int64) (step int64, zero bool, err error) {
	extents, err := f.dev.ExtentsAt(&f.ended, off, n, r.extents()[:0])
	if err != nil {
		return 0, false, err
	}
	for _, e := range extents {
		if z := e.State&block.Zero != 0; step > 0 && z != zero {
			break
		} else {
			zero = z
		}
		step += e.Len
	}
	if !zero {
		step = min(step, int64(len(r.buf)-lead))
	}
	return step, zero, nil
}

// put takes what was copied: n bytes of the reader's, or zeroes. The file is entered
// for that alone, since it can be taken away while the source does not answer.
func (f *file) put(r *reader, off, n int64, zero bool) error {
	if !f.enter() {
		return refusal(unix.EIO)
	}
	defer f.leave()
	if f.work.fenced() { // then the kernel reads and writes, and the writes take their turn
		return refusal(unix.EXDEV)
	}
	if zero {
		return f.zero(off, n, block.MayUnmap)
	}
	return f.store(r.bytes(n), off, false)
}
