package fault

import (
	"errors"
	"testing"

	"sluice/block"
	"sluice/filters/filtertest"
)

// Each power that there is: forwarded by name, or gone.
func TestEveryPowerIsForwardedOrGone(t *testing.T) {
	filtertest.Powers(t, block.CapNowaitWrites|block.CapStart, under(t))
	filtertest.Powers(t, block.CapNowaitWrites|block.CapStart, under(t, "any:error=io"))
}

func TestPowersReachTheDeviceBelow(t *testing.T) {
	filtertest.Reach(t, under(t))
	filtertest.Reach(t, under(t, elsewhere...))
}

// Nothing goes past the rules: not by ranges of files, and reads not by
// ReadNowait.
func TestNothingPassesTheRulesBy(t *testing.T) {
	below := filtertest.NewFull(t, 1<<20)
	below.Resident = true
	d := New(below)
	defer filtertest.Close(t, d)
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
		if ok != c.pins || ok && (r.FD != filtertest.FullFD || r.Off != 4096 || r.Len != 8192) {
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
	if n := below.Pins(); n != 0 {
		t.Errorf("%d ranges were not given back", n)
	}
}
