package fusefs

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What the kernel and a server say to each other (include/uapi/linux/fuse.h).
// The structs are go-fuse's, whose ProtocolServer also answers everything that
// is not on the data path; its operation codes are not exported.
const (
	opForget        = 2
	opRead          = 15
	opWrite         = 16
	opFsync         = 20
	opFlush         = 25
	opInit          = 26
	opReaddir       = 28
	opInterrupt     = 36
	opDestroy       = 38
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opLseek         = 46
	opCopyFileRange = 47
	opGetxattr      = 22
	opListxattr     = 23
)

const (
	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	// writeHeader is what stands before the bytes of a write.
	writeHeader = int(unsafe.Sizeof(fuse.WriteIn{}))
)

// inSizes are the lengths of the requests that are parsed here, headers
// included: those on the data path.
var inSizes = [...]int{
	opRead:          int(unsafe.Sizeof(fuse.ReadIn{})),
	opWrite:         writeHeader,
	opFsync:         int(unsafe.Sizeof(fuse.FsyncIn{})),
	opFlush:         int(unsafe.Sizeof(fuse.FlushIn{})),
	opFallocate:     int(unsafe.Sizeof(fuse.FallocateIn{})),
	opLseek:         int(unsafe.Sizeof(fuse.LseekIn{})),
	opCopyFileRange: int(unsafe.Sizeof(fuse.CopyFileRangeIn{})),
}

// known reports whether go-fuse answers an operation: all that a folder of files
// needs. Locks are not asked for, so that the kernel keeps them itself.
func known(code uint32) bool {
	const set = 1<<1 | 1<<3 | 1<<4 | 1<<6 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12 | 1<<13 | 1<<14 | // lookup … open
		1<<17 | 1<<18 | 1<<21 | 1<<opGetxattr | 1<<opListxattr | 1<<24 | 1<<27 | 1<<opReaddir | 1<<29 | 1<<30 | // statfs … fsyncdir
		1<<35 | 1<<opDestroy | 1<<opReaddirplus | 1<<45 | 1<<51 // create, destroy, readdirplus, rename2, tmpfile
	return code < 64 && set&(1<<code) != 0
}

// at looks at bytes as a struct. The caller has checked the length; the
// buffers are aligned to eight bytes.
func at[T any](p []byte) *T { return (*T)(unsafe.Pointer(unsafe.SliceData(p))) }

// bytesOf looks at a struct as bytes.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), int(unsafe.Sizeof(*v)))
}

// device is an open /dev/fuse: the connection with the kernel.
type device struct{ fd int }

// rawLimit is how many bytes a reply may have that is copied without telling
// Go's scheduler about the system call: some microseconds.
const rawLimit = 64 << 10

// read waits for the next request.
func (d device) read(p []byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// reply sends a whole message, its header in front. A reply never waits: the
// kernel copies it and wakes the client.
func (d device) reply(p []byte) error {
	var errno unix.Errno
	at, n := uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))
	if n <= rawLimit {
		_, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), at, n)
	} else {
		_, _, errno = unix.Syscall(unix.SYS_WRITE, uintptr(d.fd), at, n)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// The notifications, by the numbers that stand where a reply has its error.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyResend     = 7
)

// notify tells the kernel something unasked. Unlike a reply it may wait for
// locks which a client holds that waits for a reply.
func (d device) notify(code int32, parts ...[]byte) error {
	n := outHeaderSize
	for _, part := range parts {
		n += len(part)
	}
	msg := make([]byte, outHeaderSize, n)
	*at[fuse.OutHeader](msg) = fuse.OutHeader{Length: uint32(n), Status: code}
	for _, part := range parts {
		msg = append(msg, part...)
	}
	for {
		if _, err := unix.Write(d.fd, msg); err != unix.EINTR {
			return err
		}
	}
}

// request is one request on the data path, as it was parsed.
type request struct {
	code   uint32
	unique uint64 // by which the kernel knows it; also marks one that is sent again
	node   uint64
	handle uint64
	off, n int64
	flags  uint32 // of the open file; mode of a fallocate; whence of a seek
	data   []byte // of a write; lies in the buffer that was read into

	toNode uint64 // of a copy
	toOff  int64

	start time.Time // when it came, for the observer
}

// parse reads a request of the data path. in holds at least its fixed part.
func parse(in []byte) (req request, err error) {
	h := at[fuse.InHeader](in)
	req = request{code: h.Opcode, unique: h.Unique, node: h.NodeId}
	switch h.Opcode {
	case opRead:
		r := at[fuse.ReadIn](in)
		req.handle, req.off, req.n, req.flags = r.Fh, int64(r.Offset), int64(r.Size), r.Flags
	case opWrite:
		w := at[fuse.WriteIn](in)
		req.handle, req.off, req.n, req.flags = w.Fh, int64(w.Offset), int64(w.Size), w.Flags
		if int64(len(in)-writeHeader) < req.n {
			return req, fmt.Errorf("a write of %d bytes came with %d", req.n, len(in)-writeHeader)
		}
		req.data = in[writeHeader : writeHeader+int(req.n)]
	case opFsync:
		req.handle = at[fuse.FsyncIn](in).Fh
	case opFlush:
		req.handle = at[fuse.FlushIn](in).Fh
	case opFallocate:
		a := at[fuse.FallocateIn](in)
		req.handle, req.off, req.n, req.flags = a.Fh, int64(a.Offset), int64(a.Length), a.Mode
	case opLseek:
		l := at[fuse.LseekIn](in)
		req.handle, req.off, req.flags = l.Fh, int64(l.Offset), l.Whence
	case opCopyFileRange:
		c := at[fuse.CopyFileRangeIn](in)
		req.handle, req.off, req.n = c.FhIn, int64(c.OffIn), int64(c.Len)
		req.toNode, req.toOff = c.NodeIdOut, int64(c.OffOut)
	}
	return req, nil
}

// durable reports whether a write has to be on the medium when it is answered.
func (r *request) durable() bool { return r.flags&syscall.O_DSYNC != 0 }

// op is how the request is counted.
func (r *request) op() Op {
	switch r.code {
	case opRead:
		return OpRead
	case opWrite, opCopyFileRange:
		return OpWrite
	case opLseek:
		return OpStatus
	case opFallocate:
		if r.flags&unix.FALLOC_FL_PUNCH_HOLE != 0 {
			return OpTrim
		}
		return OpZero
	}
	return OpFlush
}
