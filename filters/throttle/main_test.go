package throttle

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"sluice/block"
	"sluice/filters/filtertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// under puts the filter with limits on a Device.
func under(l Limits) filtertest.Wrap {
	return func(below block.Device) block.Device { return New(below, l) }
}

// newDevice puts the filter on RAM; the test closes it.
func newDevice(t testing.TB, size int64, l Limits) *Device {
	t.Helper()
	return New(filtertest.NewMem(t, size), l)
}
