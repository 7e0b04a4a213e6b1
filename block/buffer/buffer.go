// Package buffer pools the byte buffers of the data path.
//
// A buffer has exactly one owner: who got it from [Get], or was handed it by the
// previous owner, and who must call [Buffer.Release] once. Buffers start on a
// page boundary, so that O_DIRECT needs no copy. Classes are powers of two from
// 4 KiB to 32 MiB; what is larger is allocated and dropped.
//
// In builds with -race or the tag invariants, Release fills the buffer with a
// pattern and a second Release panics, so that a use after it shows.
package buffer

import (
	"math/bits"
	"sync"
	"unsafe"
)

const (
	pageSize = 4096
	minShift = 12 // 4 KiB
	maxShift = 25 // 32 MiB: the largest payload that NBD clients send unasked
	classes  = maxShift - minShift + 1
)

// Buffer is a pooled byte slice. B may be resliced by the owner; Release puts
// back the whole of it.
type Buffer struct {
	B     []byte // the requested length
	whole []byte
	class int8 // -1: too large for the pool
	freed bool // invariants only
}

var pools [classes]sync.Pool

// Get returns a buffer with len(B) == n. Its content is undefined.
func Get(n int) *Buffer {
	class := classOf(n)
	if class < 0 {
		whole := aligned(n)
		return &Buffer{B: whole, whole: whole, class: -1}
	}
	b, _ := pools[class].Get().(*Buffer)
	if b == nil {
		b = &Buffer{whole: aligned(1 << (class + minShift)), class: class}
	}
	b.freed = false
	b.B = b.whole[:n]
	return b
}

// Release gives the buffer back. The owner must not touch it, or a slice of it,
// afterwards.
func (b *Buffer) Release() {
	if invariants {
		if b.freed {
			panic("buffer: released twice")
		}
		b.freed = true
		poison(b.whole)
	}
	b.B = nil
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}

func classOf(n int) int8 {
	if n <= 1<<minShift {
		return 0
	}
	shift := bits.Len(uint(n - 1))
	if shift > maxShift {
		return -1
	}
	return int8(shift - minShift)
}

// aligned allocates n bytes that start on a page boundary. Go's heap does so by
// itself for the pool's classes; should that ever change, a page more is taken.
func aligned(n int) []byte {
	p := make([]byte, n)
	if misaligned(p) == 0 {
		return p
	}
	p = make([]byte, n+pageSize)
	skip := (pageSize - misaligned(p)) & (pageSize - 1)
	return p[skip : skip+n : skip+n]
}

func misaligned(p []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (pageSize - 1))
}

func poison(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
