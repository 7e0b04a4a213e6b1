package hold

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held puts the filter on a Device.
func held(below block.Device) block.Device { return New(below, Config{}) }

var ways = filtertest.Ways{"": held}

func TestSuiteOnMemory(t *testing.T)    { ways.OnMemory(t) }
func TestSuiteOnFewPowers(t *testing.T) { ways.OnFewPowers(t) }
func TestSuiteOnFile(t *testing.T)      { ways.OnFile(t, block.OpenOptions{Share: true}) }

func TestSuiteWithCrashes(t *testing.T) {
	for _, unit := range []int64{1, 4096} {
		t.Run(fmt.Sprint(unit), func(t *testing.T) { ways.WithCrashes(t, unit) })
	}
}

// Storage that fails now and then, before or after its effect, looks whole.
func TestSuiteOnFlakyStorage(t *testing.T) {
	var calls atomic.Int64
	flaky := blocktest.InjectorFunc(func(op blocktest.Op) error {
		if op.Kind != blocktest.OpClose && calls.Add(1)%17 == 0 {
			return block.Transient
		}
		return nil
	})
	var last *blocktest.CrashDevice
	rng := rand.New(rand.NewPCG(2, 2))
	blocktest.Suite{
		Open: func(testing.TB) block.Device {
			last = blocktest.NewCrashDevice(512<<10, 512)
			d := New(blocktest.NewFaultDevice(last, flaky, flaky), Config{})
			d.away.pace = pace{first: 20 * time.Microsecond, last: 20 * time.Microsecond}
			return d
		},
		Crash: func(testing.TB) block.Device { return last.Crash(rng) },
	}.Run(t)
}

// Of what a Device claims, all goes through but what would wait here.
func TestPowers(t *testing.T) { filtertest.Powers(t, block.CapNowaitWrites, held) }

func TestPowersReachTheDeviceBelow(t *testing.T) { filtertest.Reach(t, held) }

func TestNoAllocationsWhileAllIsWell(t *testing.T) {
	filtertest.NoAllocations(t, held(filtertest.NewMem(t, 1<<20)))
}

func BenchmarkRead(b *testing.B) { filtertest.Ways{"held": held}.BenchmarkRead(b) }
