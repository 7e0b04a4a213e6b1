package fusefs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sluice/block/buffer"
)

// The way of a request:
//
//  1. a reader takes it from /dev/fuse into its buffer (loop.go, intake.go)
//  2. what is on the data path is parsed, its file is found and entered (data.go)
//  3. a read of bytes that are in memory, and a write that cannot wait, are
//     carried out at once and answered from the same buffer (data.go)
//  4. before anything that may wait the reader makes sure that another one reads
//     on, to which it leaves its buffer if it needs little (intake.go); the file lets
//     so many wait at a time and queues the rest (work.go)
//  5. the device moves the bytes from or to the reader's buffer, page aligned;
//     the reply leaves with one write (data.go, zero.go, seek.go, copy.go)
//  6. all else is answered by go-fuse's ProtocolServer (metadata.go)
//  7. a signal to a client that waits is noted (interrupts.go)
//
// A reader is a goroutine. One at most waits for the next request (a second one
// would be woken for each request that the first one takes while it spins); one
// that returns from a device to find another waiting ends.

// lead is how far the bytes that are read or written lie behind the start of a
// reader's buffer: page aligned, with room for the header of either direction.
const lead = 4096

// loop is the readers of a connection.
type loop struct {
	dev      device
	maxWrite int // bytes of the longest read or write
	data     func(*reader, request)
	signal   func(unique uint64) // the client of a request got one
	protocol *fuse.ProtocolServer
	fail     func(what string, err error)
	reading  func() // read, made once: a reader that starts costs no memory

	waiting  atomic.Bool // a reader waits for a request, or is about to
	spin     spin        // of the reader that waits
	leaving  atomic.Bool // they are to end
	stop     stop        // tells the one that waits
	mute     atomic.Bool // what is not answered yet is the next process' to answer
	spare    sync.Pool   // *reader, without a buffer
	intakes  sync.Pool   // *intake
	running  sync.WaitGroup
	finished chan struct{} // closed when nothing is read any more; requests may still be in devices
	finish   sync.Once
	alive    atomic.Int32 // readers that have not ended
}

// reader is one goroutine's place: one request at a time is in it.
type reader struct {
	in   *intake        // nil when it has moved out, or takes none
	own  *buffer.Buffer // instead, while it waits
	buf  []byte         // the bytes of either
	head fuse.OutHeader // of a reply without bytes
	out  [outHeaderSize + 8]byte
	from [2][]byte     // what ProtocolServer takes slices of
	seek *extentBuffer // made at the first use
	job  job           // of the request, when it waits in a device
}

func (l *loop) newReader() *reader {
	if r, ok := l.spare.Get().(*reader); ok {
		return r
	}
	return new(reader)
}

// putBack ends a reader.
func (l *loop) putBack(r *reader) {
	r.drop(l)
	l.spare.Put(r)
}

// start begins to read requests.
func (l *loop) start() error {
	var err error
	if l.stop, err = newStop(); err != nil {
		return err
	}
	l.finished, l.reading = make(chan struct{}), l.read
	l.waiting.Store(true)
	l.spawn()
	return nil
}

// spawn starts the reader that is noted as waiting already.
func (l *loop) spawn() {
	l.alive.Add(1)
	l.running.Add(1)
	go l.reading()
}

// lend runs a function with a reader that reads nothing, on a goroutine of its
// own. The caller is a reader.
func (l *loop) lend(f func(*reader)) {
	l.alive.Add(1)
	l.running.Add(1)
	go func() {
		defer l.running.Done()
		defer l.retired()
		r := l.newReader()
		defer l.putBack(r)
		f(r)
	}()
}

// retired notes the end of a reader.
func (l *loop) retired() {
	if l.alive.Add(-1) == 0 {
		l.finish.Do(func() { close(l.finished) })
	}
}

// cover makes sure that somebody waits for requests, since the caller is about
// to wait for something else: for this one, which it may move.
func (l *loop) cover(r *reader, req *request) {
	if !l.leaving.Load() && l.again() {
		r.move(l, req)
		l.spawn()
	}
}

// again makes the caller, or a reader that it starts, the one that waits, unless
// there is one.
func (l *loop) again() bool { return l.waiting.CompareAndSwap(false, true) }

func (l *loop) read() {
	defer l.running.Done()
	defer l.retired()
	r := l.newReader()
	defer l.putBack(r)
	for {
		r.take(l)
		in, err := l.next(r)
		if err != nil {
			l.leaving.Store(true)
			l.finish.Do(func() { close(l.finished) })
			if !gone(err) && err != errStopped {
				l.fail("reading from the kernel", err)
			}
			return
		}
		l.serve(r, in)
		if l.leaving.Load() || !l.again() {
			return
		}
	}
}

// next takes the next request; the caller is not the one that waits afterwards.
// With one reader that waits no request is fought for.
func (l *loop) next(r *reader) ([]byte, error) {
	defer l.waiting.Store(false)
	in := r.buf[lead-writeHeader:]
	for l.spin.begin(); ; {
		n, err := l.dev.read(in)
		switch {
		case err == nil && n >= inHeaderSize:
			l.spin.found()
			return in[:n], nil
		case err == nil:
			return nil, fmt.Errorf("a request of %d bytes", n)
		case err == unix.EAGAIN:
			if l.spin.on() {
				continue
			}
			if err := l.dev.sleep(l.stop); err != nil {
				return nil, err
			}
		case err == unix.EINTR, err == unix.ENOENT: // ENOENT: it was taken back
		default:
			return nil, err
		}
	}
}

// end makes the readers end and waits for them. Whatever they do not read stays
// with the kernel.
func (l *loop) end() {
	if l.finished == nil {
		return // they were never started
	}
	l.leaving.Store(true)
	l.stop.tell()
	l.running.Wait()
}

// gone: the file system was unmounted, or its connection aborted.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNABORTED) }

// serve answers one request.
func (l *loop) serve(r *reader, in []byte) {
	h := at[fuse.InHeader](in)
	if size, ours := inSize(h.Opcode); ours {
		if len(in) < size {
			l.fail("a request", fmt.Errorf("operation %d in %d bytes", h.Opcode, len(in)))
			l.reply(r, h.Unique, unix.EIO)
			return
		}
		req, err := parse(in)
		if err != nil {
			l.fail("a request", err)
			l.reply(r, h.Unique, unix.EIO)
			return
		}
		l.data(r, req)
		return
	}
	switch h.Opcode {
	case opForget, opBatchForget: // files live until they are removed; the kernel expects no reply
	case opInterrupt:
		if len(in) >= int(unsafe.Sizeof(fuse.InterruptIn{})) { // the kernel expects no reply
			l.signal(at[fuse.InterruptIn](in).Unique)
		}
	default:
		if !known(h.Opcode) {
			l.reply(r, h.Unique, unix.ENOSYS)
			return
		}
		l.other(r, in)
	}
}

// inSize is the least length of a request on the data path.
func inSize(code uint32) (size int, ours bool) {
	if code >= uint32(len(inSizes)) {
		return 0, false
	}
	size = inSizes[code]
	return size, size > 0
}

// other lets go-fuse answer.
func (l *loop) other(r *reader, in []byte) {
	out := buffer.Get(replyRoom(in))
	defer out.Release()
	r.from[0], r.from[1] = in, out.B
	unique := at[fuse.InHeader](in).Unique
	n, status := l.protocol.HandleRequest(r.from[:1], r.from[1:])
	switch {
	case !status.Ok():
		l.reply(r, unique, syscall.Errno(status))
	case n > 0:
		l.send(out.B[:n])
	}
}

// replyRoom is enough room for the reply to a request.
func replyRoom(in []byte) int {
	const fixed = 1024 // more than any struct
	switch h := at[fuse.InHeader](in); h.Opcode {
	case opReaddir, opReaddirplus:
		if len(in) >= inSizes[opRead] {
			return fixed + int(at[fuse.ReadIn](in).Size)
		}
	case opGetxattr, opListxattr:
		if len(in) >= inHeaderSize+4 {
			return fixed + int(at[fuse.GetXAttrIn](in).Size)
		}
	}
	return fixed
}

// reply answers with an error, or with success and no more.
func (l *loop) reply(r *reader, unique uint64, errno syscall.Errno) {
	r.head = fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(errno), Unique: unique}
	l.send(bytesOf(&r.head))
}

// replyBytes answers a read with the first n bytes of the reader's buffer.
func (l *loop) replyBytes(r *reader, unique uint64, n int64) {
	msg := r.buf[lead-outHeaderSize : lead+n]
	*at[fuse.OutHeader](msg) = fuse.OutHeader{Length: uint32(len(msg)), Unique: unique}
	l.send(msg)
}

// replyNumber answers with eight bytes: a count (whose upper half is padding) or
// an offset.
func (l *loop) replyNumber(r *reader, unique uint64, v uint64) {
	*at[fuse.OutHeader](r.out[:]) = fuse.OutHeader{Length: uint32(len(r.out)), Unique: unique}
	*at[uint64](r.out[outHeaderSize:]) = v
	l.send(r.out[:])
}

// send sends a reply. The kernel refuses one that nobody waits for any more
// (ENOENT): it was sent again to another process, or the connection has ended.
func (l *loop) send(msg []byte) {
	if l.mute.Load() {
		return
	}
	if err := l.dev.reply(msg); err != nil && err != unix.ENOENT && !gone(err) {
		l.fail("answering the kernel", err)
	}
}
