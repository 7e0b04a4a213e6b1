package observe

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/block"
	"sluice/filters/filtertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// all is a configuration in which everything happens: each request is slow.
func all() Config {
	return Config{Object: "disk", Layer: "storage", Slow: 1, Log: slog.New(slog.DiscardHandler), Observer: &recorder{}}
}

var (
	ways  = filtertest.Ways{"": func(below block.Device) block.Device { return New(below, all()) }}
	quiet = filtertest.Ways{"": unwatched}
)

// unwatched puts the filter on a Device, with nobody to tell and no limit.
func unwatched(below block.Device) block.Device { return New(below, Config{}) }

func TestSuiteOnMemory(t *testing.T)    { ways.OnMemory(t) }
func TestSuiteOnFewPowers(t *testing.T) { quiet.OnFewPowers(t) }
func TestSuiteOnFile(t *testing.T)      { ways.OnFile(t, block.OpenOptions{Share: true}) }

func TestSuiteWithCrashes(t *testing.T) {
	for _, unit := range []int64{1, 4096} {
		t.Run(fmt.Sprint(unit), func(t *testing.T) { ways.WithCrashes(t, unit) })
	}
}

func TestPowers(t *testing.T) { filtertest.Powers(t, block.CapStart, unwatched) }

func TestPowersReachTheDeviceBelow(t *testing.T) { filtertest.Reach(t, unwatched) }

func TestNoAllocations(t *testing.T) {
	filtertest.NoAllocations(t, New(filtertest.NewMem(t, 1<<20), Config{Slow: time.Hour, Observer: &recorder{}}))
}

func BenchmarkRead(b *testing.B) {
	watched := func(below block.Device) block.Device { return New(below, Config{Slow: time.Second}) }
	filtertest.Ways{"observed": unwatched, "watched": watched}.BenchmarkRead(b)
}
