package throttle

import (
	"testing"
	"time"

	"sluice/block"
	"sluice/filters/align"
	"sluice/filters/filtertest"
)

// tight are limits that nearly every request of a suite waits for, each but a
// moment.
var tight = Limits{
	Read:  Rate{IOPS: 40_000, Bytes: 1 << 30, Burst: time.Microsecond},
	Write: Rate{IOPS: 40_000, Bytes: 1 << 30, Burst: time.Microsecond},
}

// ways are the filter without limits and with them.
var ways = filtertest.Ways{"free": under(Limits{}), "tight": under(tight)}

func TestSuiteOnMemory(t *testing.T)    { ways.OnMemory(t) }
func TestSuiteOnFewPowers(t *testing.T) { ways.OnFewPowers(t) }
func TestSuiteWithCrashes(t *testing.T) { ways.WithCrashes(t, 4096) }
func TestSuiteOnFile(t *testing.T)      { ways.OnFile(t, block.OpenOptions{Share: true}) }

func TestSuiteOnAlignedDirectFile(t *testing.T) {
	ways.Over(align.New).OnFile(t, block.OpenOptions{Direct: true, Share: true})
}
