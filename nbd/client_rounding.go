package nbd

import "sluice/block"

// clientRounding makes extents of whole blocks. A server with a minimum block size
// should tell no others, but one that puts such a size in front of a disk without
// (nbdkit's blocksize-policy filter) does; and from a boundary inside a block one
// could not ask on.
//
// A block that several extents share, or that the answer tells only the beginning
// of, takes the weakest of their claims: it is data, or dirty, if a part of it is
// or might be.
type clientRounding struct {
	block   int64
	unknown block.Extent // the weakest claim
	emit    func(block.Extent) bool

	part block.Extent // the beginning of a block; Len 0: none
	any  bool         // a whole block has been emitted
}

// add takes the next extent, of more than 0 bytes. False means that emit has no
// room.
func (r *clientRounding) add(e block.Extent) bool {
	if r.part.Len > 0 {
		n := min(e.Len, r.block-r.part.Len)
		r.part = clientWeaker(r.part, e, r.part.Len+n)
		e.Len -= n
		if r.part.Len == r.block && !r.flush() {
			return false
		}
	}
	if e.Len == 0 {
		return true
	}
	whole := e
	whole.Len -= e.Len % r.block
	if whole.Len > 0 {
		if !r.emit(whole) {
			return false
		}
		r.any = true
	}
	if e.Len -= whole.Len; e.Len > 0 {
		r.part = e
	}
	return true
}

// end takes the end of an answer. A block that is not told to its end is left for
// the next question; where it is all that there is, it is emitted with the weakest
// claim, since asking again would bring no more.
func (r *clientRounding) end() {
	if r.part.Len > 0 && !r.any {
		r.part = clientWeaker(r.part, r.unknown, r.block)
		r.flush()
	}
}

func (r *clientRounding) flush() bool {
	e := r.part
	r.part = block.Extent{}
	r.any = true
	return r.emit(e)
}

// clientWeaker is what can be said of n bytes of which a part is like a and the
// rest like b.
func clientWeaker(a, b block.Extent, n int64) block.Extent {
	e := block.Extent{Len: n, State: a.State&b.State&^block.Dirty | (a.State|b.State)&block.Dirty, Depth: a.Depth}
	if a.Depth == 0 || b.Depth != 0 && b.Depth < a.Depth {
		e.Depth = b.Depth // the nearest image that has any of them
	}
	return e
}
