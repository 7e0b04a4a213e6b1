package fusefs

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A request is taken into memory that is there: see newIntake.
func TestIntakeIsInMemory(t *testing.T) {
	l := &loop{maxWrite: maxWrite}
	var kept []*intake // so that no memory is used twice
	for range 8 {
		i := l.newIntake()
		kept = append(kept, i)
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(i.buf))); at%pageSize != 0 || len(i.buf) != lead+maxWrite {
			t.Fatalf("%d bytes at %#x", len(i.buf), at)
		}
		there := make([]byte, len(i.buf)/pageSize)
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(i.buf))), uintptr(len(i.buf)),
			uintptr(unsafe.Pointer(unsafe.SliceData(there))))
		if errno != 0 {
			t.Fatal(errno)
		}
		for n, flags := range there {
			if flags&1 == 0 {
				t.Fatalf("page %d of intake %d is missing", n, len(kept))
			}
		}
	}
}

func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

// What waits moves out of the intake if it is short, and is the same afterwards.
func TestShortRequestsMove(t *testing.T) {
	l := &loop{maxWrite: maxWrite}
	for _, n := range []int{0, 512, 4096, longRequest, longRequest + 1, maxWrite} {
		r := new(reader)
		r.take(l)
		was := r.in
		want := random(n)
		req := request{code: opWrite, n: int64(n), data: was.buf[lead:][:n]}
		copy(req.data, want)
		r.move(l, &req)
		if moved := r.in == nil; moved != (n <= longRequest) {
			t.Errorf("%d bytes: moved %v", n, moved)
		}
		if r.in == nil {
			clear(was.buf) // it is another reader's
		}
		if !bytes.Equal(req.data, want) {
			t.Errorf("%d bytes are other ones after the move", n)
		}
		r.drop(l)
	}
}

// A reader has room for whatever comes next, and what is long comes into an intake.
func TestRoomFits(t *testing.T) {
	l := &loop{maxWrite: maxWrite}
	r := new(reader)
	for _, req := range []request{
		{code: opFlush}, {code: opRead, n: 4096}, {code: opRead, n: 512}, {code: opRead, n: maxWrite},
		{code: opCopyFileRange, n: 1 << 30}, {code: opRead, n: 8192},
	} {
		r.fit(l, &req)
		if got := len(r.bytes(int64(req.room()))); got != req.room() {
			t.Errorf("%d bytes", got)
		}
		if long := req.room() > longRequest; long && r.in == nil {
			t.Errorf("operation %d of %d bytes has no intake", req.code, req.n)
		}
	}
	r.drop(l)
}
