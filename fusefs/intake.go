package fusefs

import (
	"unsafe"

	"sluice/block/buffer"
)

// A request is taken from the kernel into a buffer that has room for the longest
// one, of which few are needed: the reader that waits has one. A request that has to
// wait in its device keeps it only when it is long itself; a short one moves to a
// buffer of its own size, so that a device that hangs does not hold a megabyte for
// each of its requests.

// longRequest is from how many bytes on a request is not moved: the copy of a write
// would cost more than another intake.
const longRequest = 64 << 10

// intake is room for the longest request, and for the reply to it.
type intake struct {
	buf []byte // lead + maxWrite bytes, page aligned at lead
}

// newIntake gives an intake that is in memory, every page of it. The kernel fails a
// request with EIO when the process that takes it is killed and a page is missing:
// it brings none in for a process that is being killed.
func (l *loop) newIntake() *intake {
	if i, ok := l.intakes.Get().(*intake); ok {
		return i
	}
	whole := make([]byte, lead+lead+l.maxWrite)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(whole)))) & (lead - 1)
	buf := whole[skip : skip+lead+l.maxWrite]
	for i := 0; i < len(buf); i += pageSize {
		buf[i] = 0
	}
	return &intake{buf}
}

// pageSize is the least that any processor has.
const pageSize = 4096

// bytes is room for n bytes of a read.
func (r *reader) bytes(n int64) []byte { return r.buf[lead : lead+n] }

// take gives the reader an intake, if it has none.
func (r *reader) take(l *loop) {
	if r.in == nil {
		r.drop(l)
		r.in = l.newIntake()
		r.buf = r.in.buf
	}
}

// drop gives up the reader's buffer.
func (r *reader) drop(l *loop) {
	if r.in != nil {
		l.intakes.Put(r.in)
		r.in = nil
	}
	if r.own != nil {
		r.own.Release()
		r.own = nil
	}
	r.buf = nil
}

// fit makes sure that the reader has room for what a request reads; what is in its
// buffer is lost if it has not.
func (r *reader) fit(l *loop, req *request) {
	n := req.room()
	switch {
	case len(r.buf) >= lead+n:
	case n > longRequest:
		r.take(l)
	default:
		r.drop(l)
		r.own = buffer.Get(lead + n)
		r.buf = r.own.B
	}
}

// room is how many bytes of the reader's buffer a request needs, beside those of a
// write in the queue.
func (r *request) room() int {
	switch r.code {
	case opRead:
		return int(r.n)
	case opCopyFileRange:
		return maxWrite
	}
	return 0
}

// move takes a short request out of the intake, which is the next reader's then.
func (r *reader) move(l *loop, req *request) {
	n := max(req.room(), len(req.data))
	if n > longRequest {
		return
	}
	own := buffer.Get(lead + n)
	if req.data != nil {
		copy(own.B[lead:], req.data)
		req.data = own.B[lead:][:len(req.data)]
	}
	r.drop(l)
	r.own, r.buf = own, own.B
}
