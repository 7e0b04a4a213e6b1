package filtertest

import (
	"math/rand/v2"
	"testing"

	"sluice/backends/file"
	"sluice/block"
	"sluice/block/blocktest"
)

// suiteSize is that of most Devices below a filter, in bytes.
const suiteSize = 1 << 20

// Wrap puts a filter on a Device, which the result owns.
type Wrap = func(block.Device) block.Device

// Ways are the settings with which a filter's suites run, by the names of the
// subtests. With the name "" the suite has no subtest of its own.
type Ways map[string]Wrap

// Over gives the ways with another filter, or several, between the one under test
// and the Device.
func (w Ways) Over(below Wrap) Ways {
	over := Ways{}
	for name, wrap := range w {
		over[name] = func(d block.Device) block.Device { return wrap(below(d)) }
	}
	return over
}

// run runs the suite that build makes for a way, each way.
func (w Ways) run(t *testing.T, build func(Wrap) blocktest.Suite) {
	t.Helper()
	for name, wrap := range w {
		s := build(wrap)
		s.Name = name
		s.Run(t)
	}
}

// OnMemory runs the suite on RAM, which has most powers.
func (w Ways) OnMemory(t *testing.T) {
	t.Helper()
	w.run(t, func(wrap Wrap) blocktest.Suite {
		return blocktest.Suite{Open: func(t testing.TB) block.Device { return wrap(NewMem(t, suiteSize)) }}
	})
}

// OnFewPowers runs the suite on a Device that has none.
func (w Ways) OnFewPowers(t *testing.T) {
	t.Helper()
	w.run(t, func(wrap Wrap) blocktest.Suite {
		return blocktest.Suite{Open: func(t testing.TB) block.Device { return wrap(Poor{Device: NewMem(t, suiteSize)}) }}
	})
}

// WithCrashes runs the suite on a Device that takes whole units of so many bytes,
// with the power cut below the filter: what was flushed, or written with FUA, is
// there.
func (w Ways) WithCrashes(t *testing.T, unit int64) {
	t.Helper()
	w.run(t, func(wrap Wrap) blocktest.Suite {
		var last *blocktest.CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		return blocktest.Suite{
			Open: func(testing.TB) block.Device {
				last = blocktest.NewCrashDevice(blocktest.MinSize, unit)
				return wrap(last)
			},
			Crash: func(testing.TB) block.Device { return wrap(last.Crash(rng)) },
		}
	})
}

// OnFile runs the suite on files that are opened so. A second Device on the same
// file is left out where opts do not share it, and with O_DIRECT, since two
// filters that complete blocks do not know of each other's.
func (w Ways) OnFile(t *testing.T, opts block.OpenOptions) {
	t.Helper()
	w.run(t, func(wrap Wrap) blocktest.Suite {
		path := "" // of the image that was made last
		open := func(t testing.TB) block.Device {
			d, err := file.Open(t.Context(), path, opts)
			if err != nil {
				t.Fatal(err)
			}
			return wrap(d)
		}
		return blocktest.Suite{
			Open: func(t testing.TB) block.Device {
				path = NewImage(t, suiteSize)
				return open(t)
			},
			Reopen:      open,
			NoMultiConn: opts.Direct || !opts.Share,
		}
	})
}
