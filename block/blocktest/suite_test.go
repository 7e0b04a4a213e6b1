package blocktest

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"sluice/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// refSuite is the suite for ref with a size and a unit.
func refSuite(size, unit int64) Suite {
	var last *ref
	return Suite{
		Open: func(t testing.TB) block.Device {
			last = newRef(t, size, unit)
			return last
		},
		Reopen: func(t testing.TB) block.Device { return last.reopen(t) },
	}
}

func TestSuitePassesOnARightDevice(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, unit int64
	}{{"bytes", 512<<10 + 333, 1}, {"pages", 512<<10 + 4096, 4096}, {"clusters", 2 << 20, 65536}} {
		s := refSuite(c.size, c.unit)
		s.Name = c.name
		s.OddSize = c.unit == 1
		s.Run(t)
	}
}

func TestSuitePassesOnAReadOnlyDevice(t *testing.T) {
	content := pattern(1, 512<<10)
	Suite{
		ReadOnly: true,
		Content:  content,
		Open: func(t testing.TB) block.Device {
			d := newRef(t, 1<<20, 512)
			if err := d.WriteAt(context.Background(), content, 0, 0); err != nil {
				t.Fatal(err)
			}
			d.info.ReadOnly = true
			return d
		},
	}.Run(t)
}

// core hides every optional power.
type core struct{ block.Device }

func (c core) Info() block.Info {
	i := c.Device.Info()
	i.Caps = 0
	i.Block.Max = 8192
	return i
}

func (c core) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if flags != 0 {
		return block.Errorf(block.Invalid, "write", "", off, "flags %#x", flags)
	}
	return c.Device.WriteAt(ctx, p, off, 0)
}

func TestSuitePassesOnABareDevice(t *testing.T) {
	s := refSuite(512<<10, 512)
	s.Open = func(t testing.TB) block.Device { return core{newRef(t, 512<<10, 512)} }
	s.Reopen = nil
	s.Run(t)
}
