package fault

import (
	"bytes"
	"errors"
	"testing"

	"sluice/block"
)

// Each power that there is: forwarded by name, or gone.
func TestEveryPowerIsForwardedOrGone(t *testing.T) {
	for i, name := range every.Names() {
		one := block.Cap(1) << i
		want := one
		if one == block.CapNowaitWrites {
			want = 0
		}
		with, without := New(&full{Device: newMem(t, 4096), less: every &^ one}), New(&full{Device: newMem(t, 4096), less: one})
		for _, rules := range [][]Rule{nil, parsed(t, "any:error=io")} {
			with.SetRules(rules)
			without.SetRules(rules)
			if got := with.Info().Caps; got != want {
				t.Errorf("%s below, %v above, want %v", name, got, want)
			}
			if got := without.Info().Caps; got != every&^one&^block.CapNowaitWrites {
				t.Errorf("all but %s below, %v above", name, got)
			}
		}
		closeDevice(t, with)
		closeDevice(t, without)
	}
	if unknown := every << 1 &^ every; New(&full{Device: newMem(t, 4096), less: ^unknown}).Info().Has(unknown) {
		t.Error("a power that nobody knows passed")
	}
}

// What the powers do arrives below and comes back.
func TestPowersReachTheDeviceBelow(t *testing.T) {
	for _, rules := range [][]string{nil, elsewhere} {
		below := &full{Device: newMem(t, 1<<20), resident: true}
		d := New(below)
		d.SetRules(parsed(t, rules...))
		data := filled(7, 8192)
		if err := d.WriteAt(ctx, data, 0, block.FUA); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteZeroes(ctx, 0, 4096, block.MayUnmap); err != nil {
			t.Fatal(err)
		}
		if err := d.Discard(ctx, 65536, 65536, 0); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8192)
		if err := below.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, append(filled(0, 4096), filled(7, 4096)...)) {
			t.Errorf("wrong content below (%v)", err)
		}
		extents, err := d.Extents(ctx, 0, 1<<20, make([]block.Extent, 0, 4))
		if err != nil || extents[0].State != 0 {
			t.Errorf("extents %v, %v", extents, err)
		}
		dirty, err := d.BitmapExtents(ctx, d.Bitmaps()[0], 0, 512, nil)
		if err != nil || len(dirty) != 1 || dirty[0].State != block.Dirty {
			t.Errorf("bitmap %v, %v", dirty, err)
		}
		if err := d.Resize(ctx, 2<<20); err != nil || d.Info().Size != 2<<20 {
			t.Errorf("resized to %d (%v)", d.Info().Size, err)
		}
		if err := d.WriteAt(ctx, data, 2<<20-8192, 0); err != nil {
			t.Errorf("a write to what is new: %v", err)
		}
		closeDevice(t, d)
	}
}

// Nothing goes past the rules: not by ranges of files, and reads not by
// ReadNowait.
func TestNothingPassesTheRulesBy(t *testing.T) {
	below := &full{Device: newMem(t, 1<<20), resident: true}
	d := New(below)
	defer closeDevice(t, d)
	p := make([]byte, 512)
	for rule, c := range map[string]struct{ pins, nowait bool }{
		"":                              {true, true},
		"read:error=io,range=512K-513K": {false, false},
		"any:error=io,range=512K-513K":  {false, false},
		"write:error=io":                {false, true},
	} {
		d.SetRules(nil)
		if rule != "" {
			d.SetRules(parsed(t, rule))
		}
		r, ok := d.PinRange(4096, 8192)
		if ok != c.pins || ok && (r.FD != 77 || r.Off != 4096 || r.Len != 8192) {
			t.Errorf("%q: pinned %+v, %v", rule, r, ok)
		}
		if ok {
			d.SetRules(parsed(t, "any:error=io")) // what is pinned is given back, rules or not
			d.UnpinRange(r)
			d.SetRules(nil)
		}
		err := d.ReadNowait(p, 0)
		if c.nowait && err != nil || !c.nowait && !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("%q: read nowait: %v", rule, err)
		}
	}
	if n := below.pins.Load(); n != 0 {
		t.Errorf("%d ranges were not given back", n)
	}
}
