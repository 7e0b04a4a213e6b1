package fault

import (
	"context"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"sluice/backends/mem"
	"sluice/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func newMem(t testing.TB, size int64) *mem.Device {
	t.Helper()
	d, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// newDevice puts the filter with rules on RAM; the test closes it.
func newDevice(t testing.TB, size int64, rules ...string) (d *Device, below *mem.Device) {
	t.Helper()
	below = newMem(t, size)
	d = New(below)
	d.SetRules(parsed(t, rules...))
	return d, below
}

func parsed(t testing.TB, texts ...string) []Rule {
	t.Helper()
	var rules []Rule
	for _, text := range texts {
		r, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

func closeDevice(t testing.TB, d block.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// full is a Device with every power there is but those in less. It counts the
// calls of the powers that RAM lacks.
type full struct {
	*mem.Device
	less     block.Cap
	pins     atomic.Int64 // not given back
	resident bool
	blocks   bool // ReadNowait would block
}

const every = block.CapNowaitWrites<<1 - 1

func (f *full) Info() block.Info {
	info := f.Device.Info()
	info.Caps = every &^ f.less
	return info
}

func (f *full) PinRange(off, n int64) (block.FileRange, bool) {
	if block.CheckRange(f.Info(), "pin", off, n) != nil {
		return block.FileRange{}, false
	}
	f.pins.Add(1)
	return block.FileRange{FD: 77, Off: off, Len: n, Resident: f.resident, Token: 5}, true
}

func (f *full) UnpinRange(r block.FileRange) {
	if r.FD == 77 && r.Token == 5 {
		f.pins.Add(-1)
	}
}

func (f *full) ReadNowait(p []byte, off int64) error {
	if f.blocks {
		return block.ErrWouldBlock
	}
	return f.Device.ReadNowait(p, off)
}

func (f *full) Bitmaps() []string { return []string{"monday"} }

func (f *full) BitmapExtents(_ context.Context, name string, _, n int64, dst []block.Extent) ([]block.Extent, error) {
	if name != "monday" {
		return dst, block.Errorf(block.NotFound, "bitmap", name, -1, "")
	}
	return append(dst, block.Extent{Len: n, State: block.Dirty}), nil
}
