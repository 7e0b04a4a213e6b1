package throttle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/backends/file"
	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/align"
)

// tight are limits that nearly every request of a suite waits for, each but a
// moment.
var tight = Limits{
	Read:  Rate{IOPS: 40_000, Bytes: 1 << 30, Burst: time.Microsecond},
	Write: Rate{IOPS: 40_000, Bytes: 1 << 30, Burst: time.Microsecond},
}

// bothWays runs a suite without limits and with them.
func bothWays(t *testing.T, suite func(wrap func(block.Device) block.Device) blocktest.Suite) {
	for name, l := range map[string]Limits{"free": {}, "tight": tight} {
		s := suite(func(d block.Device) block.Device { return New(d, l) })
		s.Name = name
		s.Run(t)
	}
}

type wrapper = func(block.Device) block.Device

func TestSuiteOnMemory(t *testing.T) {
	bothWays(t, func(wrap wrapper) blocktest.Suite {
		return blocktest.Suite{Open: func(t testing.TB) block.Device { return wrap(newMem(t, 1<<20)) }}
	})
}

// poor is a Device that reads and writes and no more.
type poor struct{ block.Device }

func (p poor) Info() block.Info {
	info := p.Device.Info()
	info.Caps = 0
	return info
}

func (p poor) WriteAt(ctx context.Context, b []byte, off int64, flags block.Flags) error {
	if err := block.CheckChange(false, "write", "", off, flags); err != nil {
		return err
	}
	return p.Device.WriteAt(ctx, b, off, 0)
}

func TestSuiteOnFewPowers(t *testing.T) {
	bothWays(t, func(wrap wrapper) blocktest.Suite {
		return blocktest.Suite{Open: func(t testing.TB) block.Device { return wrap(poor{newMem(t, 1<<20)}) }}
	})
}

// With the power cut below the filter.
func TestSuiteWithCrashes(t *testing.T) {
	bothWays(t, func(wrap wrapper) blocktest.Suite {
		var last *blocktest.CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		return blocktest.Suite{
			Open: func(testing.TB) block.Device {
				last = blocktest.NewCrashDevice(512<<10, 4096)
				return wrap(last)
			},
			Crash: func(testing.TB) block.Device { return wrap(last.Crash(rng)) },
		}
	})
}

// onFiles gives suites on files that are opened so.
func onFiles(t *testing.T, opts block.OpenOptions, over func(block.Device) block.Device) func(wrapper) blocktest.Suite {
	return func(wrap wrapper) blocktest.Suite {
		dir, n := t.TempDir(), 0
		open := func(t testing.TB) block.Device {
			d, err := file.Open(ctx, filepath.Join(dir, fmt.Sprint(n)), opts)
			if err != nil {
				t.Fatal(err)
			}
			return wrap(over(d))
		}
		return blocktest.Suite{
			Open: func(t testing.TB) block.Device {
				n++
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), make([]byte, 1<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				return open(t)
			},
			Reopen:      open,
			NoMultiConn: opts.Direct, // two align filters on one file do not know of each other
		}
	}
}

func TestSuiteOnFile(t *testing.T) {
	bothWays(t, onFiles(t, block.OpenOptions{Share: true}, func(d block.Device) block.Device { return d }))
}

func TestSuiteOnAlignedDirectFile(t *testing.T) {
	bothWays(t, onFiles(t, block.OpenOptions{Direct: true, Share: true}, align.New))
}
