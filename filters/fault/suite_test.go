package fault

import (
	"testing"

	"sluice/block"
	"sluice/filters/align"
	"sluice/filters/filtertest"
)

// elsewhere are rules that every call is compared with and none fits, but for
// the delays, which change nothing.
var elsewhere = []string{
	"any:error=io,range=1E-", "write:torn,after=1000000000", "read:hang,count=1,after=1000000000",
	"flush:drop,probability=1e-300", "any:delay=1ns",
}

// ways are the filter without rules and with some.
func ways(t *testing.T) filtertest.Ways {
	t.Helper()
	return filtertest.Ways{"free": under(t), "rules": under(t, elsewhere...)}
}

func TestSuiteOnMemory(t *testing.T)    { ways(t).OnMemory(t) }
func TestSuiteOnFewPowers(t *testing.T) { ways(t).OnFewPowers(t) }
func TestSuiteWithCrashes(t *testing.T) { ways(t).WithCrashes(t, 4096) }
func TestSuiteOnFile(t *testing.T)      { ways(t).OnFile(t, block.OpenOptions{Share: true}) }

func TestSuiteOnAlignedDirectFile(t *testing.T) {
	ways(t).Over(align.New).OnFile(t, block.OpenOptions{Direct: true, Share: true})
}
