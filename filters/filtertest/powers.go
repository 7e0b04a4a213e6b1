package filtertest

import (
	"bytes"
	"testing"

	"sluice/block"
)

// Powers asserts that a filter passes on each power of the Device below by its
// name, but for those in gone; that it adds none; and that one that nobody knows
// yet does not pass.
func Powers(t *testing.T, gone block.Cap, wrap Wrap) {
	t.Helper()
	above := func(caps block.Cap) block.Cap {
		below := NewFull(t, 4096)
		below.Caps = caps
		d := wrap(below)
		defer Close(t, d)
		return d.Info().Caps
	}
	for i, name := range Every.Names() {
		one := block.Cap(1) << i
		if got, want := above(one), one&^gone; got != want {
			t.Errorf("%s below, %v above, want %v", name, got, want)
		}
		if got, want := above(Every&^one), Every&^one&^gone; got != want {
			t.Errorf("all but %s below, %v above, want %v", name, got, want)
		}
	}
	if got := above(^Every); got != 0 {
		t.Errorf("of powers that nobody knows %#x passed", uint32(got))
	}
}

// Reach asserts of a filter that has all powers but CapNowaitWrites and CapStart that what they
// do arrives at the Device below, and that what it answers comes back.
func Reach(t *testing.T, wrap Wrap) {
	t.Helper()
	below, ctx := NewFull(t, 1<<20), t.Context()
	d := block.Resolve(wrap(below))
	defer Close(t, d.Device)
	data := bytes.Repeat([]byte{7}, 8192)
	if err := d.WriteAt(ctx, data, 0, block.FUA); err != nil {
		t.Fatal(err)
	}
	if err := d.Zeroer.WriteZeroes(ctx, 0, 4096, block.MayUnmap); err != nil {
		t.Fatal(err)
	}
	if err := d.Discarder.Discard(ctx, 65536, 65536, 0); err != nil {
		t.Fatal(err)
	}
	got, want := make([]byte, 8192), append(make([]byte, 4096), data[4096:]...)
	if err := below.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong content below (%v)", err)
	}
	if extents, err := d.Extenter.Extents(ctx, 0, 1<<20, make([]block.Extent, 0, 4)); err != nil || len(extents) == 0 || extents[0].State != 0 {
		t.Errorf("extents %v, %v", extents, err)
	}
	dirty, err := d.Bitmapper.BitmapExtents(ctx, d.Bitmapper.Bitmaps()[0], 0, 512, nil)
	if err != nil || len(dirty) != 1 || dirty[0].State != block.Dirty {
		t.Errorf("bitmap %v, %v", dirty, err)
	}
	if err := d.Resizer.Resize(ctx, 2<<20); err != nil || d.Device.Info().Size != 2<<20 {
		t.Errorf("resized to %d (%v)", d.Device.Info().Size, err)
	}
	if err := d.WriteAt(ctx, data, 2<<20-8192, 0); err != nil {
		t.Errorf("a write to what is new: %v", err)
	}
}
