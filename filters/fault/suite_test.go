package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sluice/backends/file"
	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/align"
)

// elsewhere are rules that every call is compared with and none fits, but for
// the delays, which change nothing.
var elsewhere = []string{
	"any:error=io,range=1E-", "write:torn,after=1000000000", "read:hang,count=1,after=1000000000",
	"flush:drop,probability=1e-300", "any:delay=1ns",
}

// bothWays runs a suite without rules and with some.
func bothWays(t *testing.T, suite func(wrap wrapper) blocktest.Suite) {
	for name, texts := range map[string][]string{"free": nil, "rules": elsewhere} {
		s := suite(func(d block.Device) block.Device {
			f := New(d)
			f.SetRules(parsed(t, texts...))
			return f
		})
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
