package xdr

import (
	"bytes"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var b []byte
	b = AppendUint32(b, 7)
	b = AppendUint64(b, 1<<40+3)
	b = AppendBool(b, true)
	b = AppendOpaque(b, []byte("hello"))
	b = AppendFixed(b, []byte{1, 2, 3})
	b = AppendString(b, "")
	b = AppendString(b, "four")
	if len(b) != 4+8+4+12+4+4+8 {
		t.Fatalf("%d bytes", len(b))
	}
	r := NewReader(b)
	if r.Uint32() != 7 || r.Uint64() != 1<<40+3 || !r.Bool() || string(r.Opaque(5)) != "hello" {
		t.Error("values differ")
	}
	if !bytes.Equal(r.Fixed(3), []byte{1, 2, 3}) || r.String(0) != "" || r.String(10) != "four" {
		t.Error("opaque values differ")
	}
	if r.Err() != nil || r.Len() != 0 {
		t.Errorf("%v, %d bytes left", r.Err(), r.Len())
	}
}

// TestMalformed: what is not there is a zero value and a lasting error.
func TestMalformed(t *testing.T) {
	for name, read := range map[string]func(*Reader){
		"integer":        func(r *Reader) { r.Skip(2); r.Uint32() },
		"hyper":          func(r *Reader) { r.Uint64() },
		"boolean":        func(r *Reader) { r.Bool() },
		"long opaque":    func(r *Reader) { r.Opaque(1 << 30) },
		"over the limit": func(r *Reader) { r.Opaque(1) },
		"padding":        func(r *Reader) { r.Fixed(5) },
		"negative":       func(r *Reader) { r.Fixed(-1) },
		"skip":           func(r *Reader) { r.Skip(6) },
	} {
		r := NewReader([]byte{0, 0, 0, 2, 9})
		read(&r)
		if r.Err() == nil || r.Uint32() != 0 || r.More() || len(r.Rest()) != 0 {
			t.Errorf("%s: error %v", name, r.Err())
		}
	}
}

// FuzzReader: whatever the bytes, reading them ends and gives no more than there is.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05hello\x00\x00\x00"), []byte{4, 3, 2, 1, 0})
	f.Fuzz(func(t *testing.T, p, kinds []byte) {
		r := NewReader(p)
		for _, kind := range kinds {
			before := r.Len()
			got := 0
			switch kind % 6 {
			case 0:
				r.Uint32()
			case 1:
				r.Uint64()
			case 2:
				r.More()
			case 3:
				got = len(r.Opaque(int(kind)))
			case 4:
				got = len(r.Fixed(int(kind) / 4))
			case 5:
				r.Skip(int(kind))
			}
			if r.Len() > before || got > before {
				t.Fatalf("%d bytes of %d", got, before)
			}
		}
	})
}
