package fusefs

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/buffer"
)

// The data path, in the order in which a request passes it: handle finds the
// file; atOnce carries out what cannot wait; run lets the rest take its turn;
// carryOut calls the device; finish counts and answers.

// inlineMax is the longest read or write that is carried out before the next
// request is read: to copy it takes some microseconds.
const inlineMax = 32 << 10

// handle answers a request of the data path.
func (fs *FS) handle(r *reader, req request) {
	f := fs.tree.find(req.node)
	if f == nil || !f.enter() {
		fs.loop.reply(r, req.unique, unix.EIO)
		return
	}
	if h := handle(req.handle); h != 0 && !f.opens.own(h) && f.opens.meet(h) {
		f.Observer.Open(+1)
	}
	if f.observed {
		req.start = time.Now()
	}
	if !fs.atOnce(r, f, &req) {
		fs.run(r, f, req)
	}
}

// atOnce carries out a request that need not wait. done: it has been answered.
func (fs *FS) atOnce(r *reader, f *file, req *request) (done bool) {
	if req.n > inlineMax {
		return false
	}
	switch {
	case req.code == opFlush && f.clean():
		fs.answer(r, f, req)
	case f.work.fenced():
		return false
	case req.code == opRead && f.dev.Nowaiter != nil:
		n := f.within(req)
		if f.dev.Nowaiter.ReadNowait(r.bytes(n), req.off) != nil {
			return false // what it is the ordinary read finds out
		}
		f.count(req, n, nil)
		fs.loop.replyBytes(r, req.unique, n)
	case req.code == opWrite && f.dev.Info.Has(block.CapNowaitWrites) && !req.durable():
		fs.answer(r, f, req)
	default:
		return false
	}
	f.leave()
	return true
}

// run carries out a request that may wait, and then those that have queued up
// behind it.
func (fs *FS) run(r *reader, f *file, req request) {
	j, t := &r.job, begun
	j.take(req)
	if !f.work.begin(j) {
		j = apart(req)
		t = f.work.enqueue(j)
	}
	if req.code == opFlush {
		fs.flushWaits()
	}
	switch t {
	case queued: // it may have ended by now
		return
	case full:
		fs.refuse(r, f, j)
		return
	}
	fs.loop.cover(r, &j.req)
	fs.workOff(r, f, j)
}

// refuse answers a write that is more than is held for a device that does not
// answer. To let it wait would let other files wait too.
func (fs *FS) refuse(r *reader, f *file, j *job) {
	f.failures.warn(fs.log, "a write failed: too much waits for a device that does not answer", "file", f.Name)
	fs.loop.reply(r, j.req.unique, fs.failed(f, &j.req, refusal(unix.ENOMEM)))
	j.drop()
	f.leave()
}

// apart makes a job that needs no reader.
func apart(req request) *job {
	j := new(job)
	j.take(req)
	if req.data != nil {
		j.data = buffer.Get(len(req.data))
		copy(j.data.B, req.data)
		j.req.data = j.data.B
	}
	return j
}

// drop gives back what a job held.
func (j *job) drop() {
	if j.data != nil {
		j.data.Release()
		j.data = nil
	}
}

// workOff carries out a job that has a place, and those that get the place after
// it.
func (fs *FS) workOff(r *reader, f *file, j *job) {
	for j != nil {
		r.fit(&fs.loop, &j.req)
		fs.carryOut(r, f, j)
		next, idle := f.work.next(j)
		for range idle {
			fs.loop.lend(func(r *reader) { fs.workOff(r, f, f.work.another()) })
		}
		j.drop()
		f.leave()
		j = next
	}
}

// carryOut carries out a job, which others may see waiting.
func (fs *FS) carryOut(r *reader, f *file, j *job) {
	op := j.req.op()
	f.Observer.InFlight(op, +1)
	fs.answer(r, f, &j.req)
	f.Observer.InFlight(op, -1)
}

// answer calls the device and answers the kernel.
func (fs *FS) answer(r *reader, f *file, req *request) {
	var n int64 // bytes that the request covered
	var err error
	switch req.code {
	case opRead:
		n = f.within(req)
		err = f.read(r.bytes(n), req.off)
	case opWrite:
		n, err = f.write(req)
	case opFsync:
		err = f.flush()
	case opFlush:
		err = f.flushWritten()
	case opFallocate:
		n, err = f.allocate(req)
	case opLseek:
		n, err = f.seek(r.extents(), req)
	case opCopyFileRange:
		n, err = fs.copyRange(r, f, req)
	}
	if err != nil {
		fs.loop.reply(r, req.unique, fs.failed(f, req, err))
		return
	}
	if req.code == opLseek {
		f.count(req, 0, nil)
		fs.loop.replyNumber(r, req.unique, uint64(n))
		return
	}
	f.count(req, n, nil)
	switch req.code {
	case opRead:
		fs.loop.replyBytes(r, req.unique, n)
	case opWrite, opCopyFileRange:
		fs.loop.replyNumber(r, req.unique, uint64(n))
	default:
		fs.loop.reply(r, req.unique, 0)
	}
}

// within is how many of a request's bytes lie in the file.
func (f *file) within(req *request) int64 {
	return max(min(req.n, f.size.Load()-req.off), 0)
}

// read fills p, in pieces where the device wants them smaller.
func (f *file) read(p []byte, off int64) error {
	limit := f.dev.Info.Block.Max
	for limit > 0 && int64(len(p)) > limit {
		if err := f.dev.ReadAt(&f.ended, p[:limit], off); err != nil {
			return err
		}
		p, off = p[limit:], off+limit
	}
	return f.dev.ReadAt(&f.ended, p, off)
}

// write writes what lies in the file. Like a block device it has no room behind
// its end.
func (f *file) write(req *request) (int64, error) {
	if f.readOnly {
		return 0, refusal(unix.EROFS)
	}
	n := f.within(req)
	if n == 0 && req.n > 0 {
		return 0, refusal(unix.ENOSPC)
	}
	return n, f.store(req.data[:n], req.off, req.durable())
}

// store writes p, in pieces where the device wants them smaller.
func (f *file) store(p []byte, off int64, durable bool) error {
	var flags block.Flags
	after := durable
	if durable && f.dev.Info.Has(block.CapFUA) {
		flags, after = block.FUA, false
	}
	f.touch()
	defer f.unsynced.Store(true) // a flush meanwhile may have come before it
	for len(p) > 0 {
		n := len(p)
		if limit := f.dev.Info.Block.Max; limit > 0 && int64(n) > limit {
			n = int(limit)
		}
		if err := f.dev.WriteAt(&f.ended, p[:n], off, flags); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	if after {
		return f.dev.Flush(&f.ended)
	}
	return nil
}

// flush makes everything written durable.
func (f *file) flush() error {
	f.flushes.Add(1) // until it is known what came of it
	defer f.flushes.Add(-1)
	f.unsynced.Store(false) // before: a write that comes meanwhile sets it again
	err := f.dev.Flush(&f.ended)
	if err != nil {
		f.unsynced.Store(true)
	}
	return err
}

// flushWritten is for a close: there, too, an error of what was written before
// comes out. A client that only read waits for nothing.
func (f *file) flushWritten() error {
	if f.clean() {
		return nil
	}
	return f.flush()
}

// clean: there is nothing to flush, and nothing is being flushed.
func (f *file) clean() bool {
	synced := !f.unsynced.Load() && f.flushes.Load() == 0 && !f.unsynced.Load() // again: a flush has failed meanwhile
	return f.readOnly || synced && !f.pass.active()
}

// refusal is an error that says something of the request, not of the device. It
// is not logged.
type refusal syscall.Errno

func (r refusal) Error() string { return syscall.Errno(r).Error() }
func (r refusal) Unwrap() error { return syscall.Errno(r) }

// failed counts and logs what went wrong, and gives the code for the client.
func (fs *FS) failed(f *file, req *request, err error) syscall.Errno {
	f.count(req, req.n, err)
	if r, ok := err.(refusal); ok {
		return syscall.Errno(r)
	}
	f.failures.warn(fs.log, "request failed", "file", f.Name, "op", req.op().String(),
		"offset", req.off, "length", req.n, "err", err)
	return errnoOf(err)
}

// count tells the observer.
func (f *file) count(req *request, n int64, err error) {
	if f.observed {
		f.Observer.Request(req.op(), n, time.Since(req.start), block.KindOf(err))
	}
}
