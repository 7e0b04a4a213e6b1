package block

import (
	"bytes"
	"context"
	"testing"
)

// plain is a Device in memory with the five core methods. It claims what it is
// told to.
type plain struct {
	info   Info
	data   []byte
	writes []int64 // the lengths of the writes
	flags  Flags   // of the last one
}

func (d *plain) Info() Info { return d.info }

func (d *plain) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, d.data[off:])
	return nil
}

func (d *plain) WriteAt(_ context.Context, p []byte, off int64, flags Flags) error {
	d.writes, d.flags = append(d.writes, int64(len(p))), flags
	copy(d.data[off:], p)
	return nil
}

func (d *plain) Flush(context.Context) error { return nil }
func (d *plain) Close() error                { return nil }

// zeroer answers WriteZeroes with a fixed error and remembers the call.
type zeroer struct {
	*plain
	err   error
	calls int
	flags Flags
}

func (d *zeroer) WriteZeroes(_ context.Context, _, _ int64, flags Flags) error {
	d.calls, d.flags = d.calls+1, flags
	return d.err
}

func newPlain(caps Cap, size int) *plain {
	return &plain{
		info: Info{Size: int64(size), Caps: caps, Block: BlockSize{Min: 512, Preferred: 4096}},
		data: bytes.Repeat([]byte{0xff}, size),
	}
}

func TestResolvePanicsOnFalseClaims(t *testing.T) {
	for _, c := range []Cap{
		CapZero, CapFastZero, CapDiscard, CapExtents, CapDepth, CapPrefetch, CapResize, CapNowait, CapFileRange, CapBitmaps,
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v was believed", c)
				}
			}()
			Resolve(newPlain(c, 4096))
		}()
	}
}

func TestResolveTakesCapsAtTheirWord(t *testing.T) {
	r := Resolve(newPlain(CapFlush|CapFUA|CapMultiConn|CapSerialWrites, 4096))
	if r.Zeroer != nil || r.Discarder != nil || r.Extenter != nil || r.Prefetch != nil || r.Resizer != nil ||
		r.Nowaiter != nil || r.Ranger != nil || r.Bitmapper != nil {
		t.Errorf("powers out of nowhere: %+v", r)
	}
	if r := Resolve(&zeroer{plain: newPlain(0, 4096)}); r.Zeroer != nil {
		t.Error("a power that is not claimed was resolved")
	}
	if r := Resolve(&zeroer{plain: newPlain(CapZero, 4096)}); r.Zeroer == nil || r.Info.Size != 4096 {
		t.Errorf("a claimed power is missing: %+v", r)
	}
}

func TestZeroRangeWritesWhereItMust(t *testing.T) {
	const size = 256 << 10
	for _, c := range []struct {
		name string
		dev  func(p *plain) Device
		max  int64
		want []int64
	}{
		{"no Zeroer", func(p *plain) Device { return p }, 0, []int64{64 << 10, 64 << 10, 512}},
		{"Block.Max", func(p *plain) Device { return p }, 96 << 10, []int64{64 << 10, 64 << 10, 512}},
		{"small Block.Max", func(p *plain) Device { return p }, 48 << 10, []int64{48 << 10, 48 << 10, 32<<10 + 512}},
		{"Zeroer unsupported", func(p *plain) Device {
			p.info.Caps = CapZero | CapFUA
			return &zeroer{plain: p, err: Errorf(Unsupported, "write zeroes", "", 0, "")}
		}, 0, []int64{64 << 10, 64 << 10, 512}},
	} {
		p := newPlain(0, size)
		p.info.Block.Max = c.max
		r := Resolve(c.dev(p))
		n := int64(128<<10 + 512)
		if err := r.ZeroRange(context.Background(), 512, n, FUA|MayUnmap); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		want := bytes.Repeat([]byte{0xff}, size)
		clear(want[512 : 512+n])
		if !bytes.Equal(p.data, want) {
			t.Errorf("%s: wrong content", c.name)
		}
		if len(p.writes) != len(c.want) || p.writes[0] != c.want[0] || p.writes[2] != c.want[2] || p.flags != FUA {
			t.Errorf("%s: writes of %v with flags %#x, want %v with FUA alone", c.name, p.writes, p.flags, c.want)
		}
	}
}

func TestZeroRangeNeverWritesWithFastOnly(t *testing.T) {
	p := newPlain(0, 4096)
	z := &zeroer{plain: newPlain(CapZero, 4096), err: Errorf(Unsupported, "write zeroes", "", 0, "")}
	for _, d := range []Device{p, z} {
		if err := Resolve(d).ZeroRange(context.Background(), 0, 512, FastOnly); KindOf(err) != Unsupported {
			t.Errorf("%T: %v", d, err)
		}
	}
	if len(p.writes)+len(z.writes) != 0 {
		t.Error("zeroes were written out")
	}
}

func TestZeroRangePrefersTheZeroer(t *testing.T) {
	for _, err := range []error{nil, Errorf(NoSpace, "write zeroes", "", 0, "")} {
		z := &zeroer{plain: newPlain(CapZero, 4096), err: err}
		got := Resolve(z).ZeroRange(context.Background(), 0, 512, MayUnmap)
		if got != err || z.calls != 1 || z.flags != MayUnmap || len(z.writes) != 0 {
			t.Errorf("returned %v after %d calls and %d writes, want %v", got, z.calls, len(z.writes), err)
		}
	}
}

func TestZeroRangeChecksTheRange(t *testing.T) {
	p := newPlain(0, 4096)
	r := Resolve(p)
	if err := r.ZeroRange(context.Background(), 4096, 512, 0); KindOf(err) != OutOfRange {
		t.Errorf("beyond the end: %v", err)
	}
	if err := r.ZeroRange(context.Background(), 1, 512, 0); KindOf(err) != Invalid {
		t.Errorf("misaligned: %v", err)
	}
	if err := r.ZeroRange(context.Background(), 0, 0, 0); err != nil || len(p.writes) != 0 {
		t.Errorf("nothing: %v", err)
	}
}

func TestExtentsAtWithoutAnExtenterIsData(t *testing.T) {
	r := Resolve(newPlain(0, 4096))
	got, err := r.ExtentsAt(context.Background(), 512, 1024, make([]Extent, 0, 1))
	if err != nil || len(got) != 1 || got[0] != (Extent{Len: 1024, Depth: 1}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := r.ExtentsAt(context.Background(), 4096, 512, nil); KindOf(err) != OutOfRange {
		t.Errorf("beyond the end: %v", err)
	}
}

func TestCheckChange(t *testing.T) {
	for _, c := range []struct {
		readOnly bool
		unknown  Flags
		want     Kind
	}{
		{false, 0, OK},
		{false, FUA, Invalid},
		{true, 0, ReadOnly},
		{true, FUA, ReadOnly},
	} {
		err := CheckChange(c.readOnly, "write", "disk", 512, c.unknown)
		if KindOf(err) != c.want || (err == nil) != (c.want == OK) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := CheckChange(false, "write", "disk", 512, FastOnly); err.Error() != "write disk at 512: unknown flags 0x4" {
		t.Errorf("got %v", err)
	}
}
