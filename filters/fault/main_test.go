package fault

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/filters/filtertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// under puts the filter with rules on a Device.
func under(t testing.TB, rules ...string) filtertest.Wrap {
	t.Helper()
	set := parsed(t, rules...)
	return func(below block.Device) block.Device {
		d := New(below)
		d.SetRules(set)
		return d
	}
}

// newDevice puts the filter with rules on RAM; the test closes it.
func newDevice(t testing.TB, size int64, rules ...string) (d *Device, below *mem.Device) {
	t.Helper()
	below = filtertest.NewMem(t, size)
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
