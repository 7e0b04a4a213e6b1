package xdr

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed says that the bytes end too soon, or that a length, a boolean or
// padding in them cannot be.
var ErrMalformed = errors.New("malformed XDR")

// Reader takes values off the front of a byte slice. After the first that is not
// there it gives zero values, and Err says so: a decoder asks once, at its end,
// but must bound its loops by what it has asked for (see More).
type Reader struct {
	p   []byte
	bad bool
}

// NewReader reads p, which what it returns aliases.
func NewReader(p []byte) Reader { return Reader{p: p} }

// Err is ErrMalformed when something was not there.
func (r *Reader) Err() error {
	if r.bad {
		return ErrMalformed
	}
	return nil
}

// Fail makes Err say that something that was read cannot be.
func (r *Reader) Fail() { r.bad, r.p = true, nil }

// Rest is what has not been read.
func (r *Reader) Rest() []byte { return r.p }

// Len is how many bytes have not been read.
func (r *Reader) Len() int { return len(r.p) }

// Skip takes n bytes off.
func (r *Reader) Skip(n int) {
	if n < 0 || n > len(r.p) {
		r.Fail()
		return
	}
	r.p = r.p[n:]
}

// Uint32 takes an unsigned integer.
func (r *Reader) Uint32() uint32 {
	if len(r.p) < 4 {
		r.Fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.p)
	r.p = r.p[4:]
	return v
}

// Uint64 takes an unsigned hyper.
func (r *Reader) Uint64() uint64 {
	if len(r.p) < 8 {
		r.Fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.p)
	r.p = r.p[8:]
	return v
}

// Bool takes a boolean, which is 0 or 1.
func (r *Reader) Bool() bool {
	v := r.Uint32()
	if v > 1 {
		r.Fail()
	}
	return v == 1
}

// More takes the boolean that says whether another element of a list follows, and
// is false after a failure, so that no loop over a list outlives its bytes.
func (r *Reader) More() bool { return r.Bool() && !r.bad }

// Fixed takes n bytes of opaque data and their padding.
func (r *Reader) Fixed(n int) []byte {
	if n < 0 || n > len(r.p) || Pad(n) > len(r.p)-n {
		r.Fail()
		return nil
	}
	p := r.p[:n:n]
	r.p = r.p[n+Pad(n):]
	return p
}

// Opaque takes opaque data of at most limit bytes with its length and padding.
func (r *Reader) Opaque(limit int) []byte {
	n := r.Uint32()
	if uint64(n) > uint64(limit) {
		r.Fail()
		return nil
	}
	return r.Fixed(int(n))
}

// String is Opaque as a string.
func (r *Reader) String(limit int) string { return string(r.Opaque(limit)) }
