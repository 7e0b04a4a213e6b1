package nbd

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/block"
)

// unevenRuns is a list of extents that keep to no block size.
func unevenRuns(r *rand.Rand, size uint64, states ...uint64) (list []clientRun) {
	for size > 0 {
		n := min(1+r.Uint64N(1<<(8+r.IntN(11))), size)
		list = append(list, clientRun{n, states[r.IntN(len(states))]})
		size -= n
	}
	return list
}

// spread gives each byte the state of its run.
func spread(list []clientRun) (states []uint64) {
	for _, run := range list {
		for range run.n {
			states = append(states, run.state)
		}
	}
	return states
}

// TestClientExtentsRounded: whatever extents a server with a minimum block size
// tells, the client's consist of whole blocks, and claim of no byte what is not so.
func TestClientExtentsRounded(t *testing.T) {
	const size, least = 1 << 20, 64 * kib
	r := rand.New(rand.NewPCG(1, 2))
	contexts := []string{ContextAllocation, ContextDepth, ContextDirty + "x"}
	allocation := append([]clientRun{{4096, 3}, {4096, 0}, {8192, 3}, {4096, 0}, {320*kib - 20480, 3}}, unevenRuns(r, size-320*kib, 0, 1, 2, 3)...)
	depth, dirty := unevenRuns(r, size, 0, 1, 2), unevenRuns(r, size, 0, 1)
	for _, perReply := range []int{1, 2, 1000} {
		for _, room := range []int{1, 2, 3, 100} {
			s := statusServer(t, perReply > 1, perReply, contexts, allocation, depth, dirty)
			s.blockSize = [3]uint32{least, least, 32 << 20}
			c := s.dial(ClientConfig{MetaContexts: contexts})
			where := fmt.Sprintf("%d per reply, room for %d", perReply, room)
			truth := spread(allocation)
			eachExtent(t, c, where, func(off, n int64) ([]block.Extent, error) {
				return c.Extents(background, off, n, make([]block.Extent, 0, room))
			}, func(e block.Extent, off int64) {
				for i, flags := range truth[off : off+e.Len] {
					if e.State&block.Hole != 0 && flags&1 == 0 || e.State&block.Zero != 0 && flags&2 == 0 {
						t.Fatalf("%s: %+v at %d, but byte %d is %d", where, e, off, off+int64(i), flags)
					}
				}
				if perReply > 2 && off < 320*kib && (e.State == block.Hole|block.Zero) != (off > 0) {
					t.Errorf("%s: %+v at %d", where, e, off)
				}
			})
			changed := spread(dirty)
			eachExtent(t, c, where, func(off, n int64) ([]block.Extent, error) {
				return c.BitmapExtents(background, "x", off, n, make([]block.Extent, 0, room))
			}, func(e block.Extent, off int64) {
				for i, flags := range changed[off : off+e.Len] {
					if e.State&block.Dirty == 0 && flags&1 != 0 {
						t.Fatalf("%s: clean at %d, but byte %d is dirty", where, off, off+int64(i))
					}
				}
			})
		}
	}
}

// eachExtent asks from every block on, and checks the extents' form.
func eachExtent(t *testing.T, c *Client, where string,
	ask func(off, n int64) ([]block.Extent, error), check func(e block.Extent, off int64)) {
	t.Helper()
	size, least := c.Info().Size, c.Info().Block.Min
	for start := int64(0); start < size; start += least {
		for off := start; off < size; {
			list, err := ask(off, size-off)
			if err != nil || len(list) == 0 {
				t.Fatalf("%s: at %d: %v %v", where, off, list, err)
			}
			for _, e := range list {
				if e.Len <= 0 || e.Len%least != 0 || e.Len > size-off {
					t.Fatalf("%s: at %d: %v", where, off, list)
				}
				check(e, off)
				off += e.Len
			}
		}
	}
}

func TestClientStatusRounded(t *testing.T) {
	runs := []clientRun{{100, 1}, {4000, 2}, {50, 3}}
	for _, x := range []struct{ n, least, told int64 }{{4096, 1, 4096}, {8192, 1, 4150}, {8192, 4096, 4096}, {8192, 1024, 4096}, {8192, 8192, 4150}} {
		told := int64(0)
		for _, e := range clientStatusExtents(runs, x.n, x.least) {
			if e.Len <= 0 {
				t.Error(e)
			}
			told += e.Len
		}
		if told != x.told {
			t.Errorf("%+v: told %d", x, told)
		}
	}
}
