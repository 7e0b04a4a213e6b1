package block

import (
	"math"
	"reflect"
	"testing"
)

func TestCapNames(t *testing.T) {
	all := CapSerialWrites<<1 - 1
	names := all.Names()
	want := []string{
		"flush", "fua", "zero", "fast-zero", "discard", "extents", "depth", "prefetch", "resize",
		"nowait", "file-range", "bitmaps", "multi-conn", "serial-writes",
	}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("names: %q", names)
	}
	for i, name := range want {
		if got := Cap(1 << i).String(); got != name {
			t.Errorf("bit %d is called %q, want %q", i, got, name)
		}
	}
	if got := (CapFUA | CapMultiConn).String(); got != "fua,multi-conn" {
		t.Errorf("two capabilities: %q", got)
	}
	if Cap(0).String() != "" || Cap(0).Names() != nil {
		t.Errorf("no capability: %q", Cap(0))
	}
}

func TestHasWantsAll(t *testing.T) {
	i := Info{Caps: CapZero | CapFUA}
	if !i.Has(CapZero) || !i.Has(CapZero|CapFUA) || i.Has(CapZero|CapDiscard) || !i.Has(0) {
		t.Errorf("Has is wrong for %v", i.Caps)
	}
}

func TestCheckRange(t *testing.T) {
	bytewise := Info{Size: 1000, Block: BlockSize{Min: 1}}
	sectors := Info{Size: 4096, Block: BlockSize{Min: 512}}
	for _, c := range []struct {
		info   Info
		off, n int64
		want   Kind
	}{
		{bytewise, 0, 1000, OK},
		{bytewise, 999, 1, OK},
		{bytewise, 1000, 0, OK},
		{bytewise, 1000, 1, OutOfRange},
		{bytewise, 999, 2, OutOfRange},
		{bytewise, 1001, 0, OutOfRange},
		{bytewise, -1, 1, OutOfRange},
		{bytewise, -1, 0, OutOfRange},
		{bytewise, 0, -1, OutOfRange},
		{bytewise, math.MaxInt64, 1, OutOfRange},
		{bytewise, 1, math.MaxInt64, OutOfRange},
		{bytewise, math.MinInt64, math.MinInt64, OutOfRange},
		{bytewise, math.MaxInt64, math.MaxInt64, OutOfRange},
		{Info{Size: math.MaxInt64}, 1, math.MaxInt64 - 1, OK},
		{Info{}, 0, 0, OK},
		{sectors, 512, 1024, OK},
		{sectors, 1, 512, Invalid},
		{sectors, 0, 511, Invalid},
		{sectors, 7, 0, Invalid},
		{sectors, 4096, 512, OutOfRange},
		{sectors, 4095, 512, OutOfRange},
	} {
		err := CheckRange(c.info, "read", c.off, c.n)
		if got := KindOf(err); got != c.want {
			t.Errorf("CheckRange(size %d, min %d, %d, %d) = %v, want %v", c.info.Size, c.info.Block.Min, c.off, c.n, err, c.want)
		}
	}
}
