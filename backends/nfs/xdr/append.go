package xdr

import "encoding/binary"

var zeroes [3]byte

// Pad is the number of zero bytes that follow n bytes of opaque data.
func Pad(n int) int { return -n & 3 }

// AppendUint32 appends an unsigned integer, an enumeration or a length.
func AppendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendUint64 appends an unsigned hyper.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendBool appends a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return AppendUint32(b, 1)
	}
	return AppendUint32(b, 0)
}

// AppendFixed appends opaque data whose length both sides know.
func AppendFixed(b, p []byte) []byte {
	b = append(b, p...)
	return append(b, zeroes[:Pad(len(p))]...)
}

// AppendOpaque appends opaque data with its length.
func AppendOpaque(b, p []byte) []byte { return AppendFixed(AppendUint32(b, uint32(len(p))), p) }

// AppendString appends a string.
func AppendString(b []byte, s string) []byte {
	b = append(AppendUint32(b, uint32(len(s))), s...)
	return append(b, zeroes[:Pad(len(s))]...)
}
