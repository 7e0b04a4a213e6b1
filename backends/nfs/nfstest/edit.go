package nfstest

import "encoding/binary"

// These make functions for Action.Result and Action.Edit.

// Patch overwrites four bytes: a length, a count, a boolean. An offset that is negative
// counts from the end; what is not there stays as it is.
func Patch(offset int, v uint32) func([]byte) []byte {
	return func(p []byte) []byte {
		at := offset
		if at < 0 {
			at += len(p)
		}
		if at >= 0 && at+4 <= len(p) {
			binary.BigEndian.PutUint32(p[at:], v)
		}
		return p
	}
}

// Shorten takes n bytes off the end.
func Shorten(n int) func([]byte) []byte {
	return func(p []byte) []byte { return p[:max(0, len(p)-n)] }
}

// Results adds to the number of results that a COMPOUND says it has, without changing
// those that follow. It is for Action.Edit.
func Results(more int) func([]byte) []byte {
	return func(msg []byte) []byte {
		const tagLength = headerSize + 4
		if len(msg) < tagLength+4 {
			return msg
		}
		n := int(binary.BigEndian.Uint32(msg[tagLength:]))
		at := tagLength + 4 + (n+3)&^3
		if at+4 <= len(msg) {
			binary.BigEndian.PutUint32(msg[at:], binary.BigEndian.Uint32(msg[at:])+uint32(more))
		}
		return msg
	}
}
