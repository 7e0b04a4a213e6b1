package nbd

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
)

// statusServer answers block status requests with the given extents, one list
// per context, at most perReply of them at once.
func statusServer(t *testing.T, extended bool, perReply int, contexts []string, lists ...[]clientRun) *fakeServer {
	s := newFakeServer(t, 1<<20)
	s.noExtended = !extended
	s.contexts = contexts
	s.serve = func(c *fakeConn) {
		c.memory(func(r request, _ []byte) bool {
			if r.cmd != cmdBlockStatus {
				return false
			}
			limit := perReply
			if r.flags&cfReqOne != 0 {
				limit = 1
			}
			for i, list := range lists {
				var narrow []uint32
				var wide []uint64
				for _, run := range statusRange(list, r, limit) {
					narrow = append(narrow, uint32(run.n), uint32(run.state))
					wide = append(wide, run.n, run.state)
				}
				last := i == len(lists)-1
				if c.extended {
					c.chunk(r, chunkBlockStatusExt, last, statusChunkExt(fakeContextID(i), uint32(len(wide)/2), wide...))
				} else {
					c.chunk(r, chunkBlockStatus, last, statusChunk(fakeContextID(i), narrow...))
				}
			}
			return true
		})
	}
	return s.start()
}

// statusRange cuts what a request asks for out of a list. The last extent may
// pass the end of the request, as servers may let it.
func statusRange(list []clientRun, r request, limit int) (out []clientRun) {
	var at uint64
	for _, run := range list {
		end := at + run.n
		if end > r.offset && at < r.offset+r.length && len(out) < limit {
			n := end - max(at, r.offset)
			if r.flags&cfReqOne != 0 {
				n = min(n, r.length)
			}
			out = append(out, clientRun{n: n, state: run.state})
		}
		at = end
	}
	return out
}

const kib = 1 << 10

var (
	allocationRuns = []clientRun{{100 * kib, 0}, {28 * kib, 3}, {128 * kib, 2}, {256 * kib, 3}, {256 * kib, 3}, {256 * kib, 1}}
	depthRuns      = []clientRun{{64 * kib, 1}, {64 * kib, 2}, {896 * kib, 0}}
	dirtyRuns      = []clientRun{{512 * kib, 1}, {512 * kib, 0}}
)

func TestClientExtents(t *testing.T) {
	want := []block.Extent{
		{Len: 64 * kib, Depth: 1}, {Len: 36 * kib, Depth: 2}, {Len: 28 * kib, State: block.Hole | block.Zero, Depth: 2},
		{Len: 128 * kib, State: block.Zero}, {Len: 512 * kib, State: block.Hole | block.Zero}, {Len: 256 * kib, State: block.Hole},
	}
	for _, extended := range []bool{false, true} {
		for _, perReply := range []int{1, 2, 100} {
			s := statusServer(t, extended, perReply, []string{ContextAllocation, ContextDepth}, allocationRuns, depthRuns)
			c := s.dial(ClientConfig{})
			if !c.Info().Has(block.CapExtents | block.CapDepth) {
				t.Fatalf("capabilities %v", c.Info().Caps)
			}
			for _, room := range []int{100, 6, 3, 2, 1} { // gathered in pieces, too
				var got []block.Extent
				for off := int64(0); off < 1<<20; {
					part, err := c.Extents(background, off, 1<<20-off, make([]block.Extent, 0, room))
					if err != nil || len(part) == 0 {
						t.Fatalf("at %d: %v %v", off, part, err)
					}
					for _, e := range part {
						off += e.Len
						if k := len(got) - 1; k >= 0 && got[k].State == e.State && got[k].Depth == e.Depth {
							got[k].Len += e.Len
						} else {
							got = append(got, e)
						}
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("extended %v, %d per reply, room %d:\n%s", extended, perReply, room, diff)
				}
			}
			part, err := c.Extents(background, 90*kib, 20*kib, make([]block.Extent, 0, 8))
			if diff := cmp.Diff([]block.Extent{{Len: 10 * kib, Depth: 2},
				{Len: 10 * kib, State: block.Hole | block.Zero, Depth: 2}}, part); diff != "" || err != nil {
				t.Fatal(diff, err)
			}
		}
	}
}

// TestClientExtentsWithoutDepth: a hole is nowhere, everything else is here.
func TestClientExtentsWithoutDepth(t *testing.T) {
	c := statusServer(t, false, 100, []string{ContextAllocation}, allocationRuns[:2]).dial(ClientConfig{})
	got, err := c.Extents(background, 0, 128*kib, make([]block.Extent, 0, 8))
	if diff := cmp.Diff([]block.Extent{{Len: 100 * kib, Depth: 1}, {Len: 28 * kib, State: block.Hole | block.Zero}}, got); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	if c.Info().Has(block.CapDepth) {
		t.Error("claims to know depths")
	}
}

func TestClientBitmaps(t *testing.T) {
	contexts := []string{ContextAllocation, ContextDirty + "daily", "x-test:thing"}
	c := statusServer(t, true, 100, contexts, allocationRuns, dirtyRuns, depthRuns).dial(ClientConfig{MetaContexts: contexts})
	if diff := cmp.Diff([]string{"daily"}, c.Bitmaps()); diff != "" || !c.Info().Has(block.CapBitmaps) {
		t.Fatal(diff, c.Info().Caps)
	}
	got, err := c.BitmapExtents(background, "daily", 0, 1<<20, make([]block.Extent, 0, 8))
	if diff := cmp.Diff([]block.Extent{{Len: 512 * kib, State: block.Dirty}, {Len: 512 * kib}}, got); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	_, err = c.BitmapExtents(background, "weekly", 0, 512, make([]block.Extent, 0, 8))
	wantKind(t, err, block.NotFound)
	values, err := c.BlockStatus(background, "x-test:thing", 0, 200*kib)
	if diff := cmp.Diff([]StatusExtent{{64 * kib, 1}, {64 * kib, 2}, {72 * kib, 0}}, values); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	_, err = c.BlockStatus(background, "x-other:thing", 0, 512)
	wantKind(t, err, block.NotFound)
}

// TestClientManyExtents: more extents than are kept per request still all arrive.
func TestClientManyExtents(t *testing.T) {
	var runs []clientRun
	for i := range uint64(1 << 14) {
		runs = append(runs, clientRun{64, i % 2 * 3})
	}
	c := statusServer(t, false, 1<<20, []string{ContextAllocation}, runs).dial(ClientConfig{})
	got, err := c.Extents(background, 0, 1<<20, make([]block.Extent, 0, 1<<15))
	if err != nil || len(got) != 1<<14 {
		t.Fatalf("%d extents, %v", len(got), err)
	}
	for i, e := range got {
		if e.Len != 64 || (e.State == 0) != (i%2 == 0) {
			t.Fatalf("extent %d is %+v", i, e)
		}
	}
}

// TestClientNoExtents: contexts are left out by both sides' choice.
func TestClientNoExtents(t *testing.T) {
	contexts := []string{ContextAllocation}
	for name, cfg := range map[string]ClientConfig{
		"not asked for": {MetaContexts: []string{}}, "without structured replies": {NoStructured: true},
	} {
		c := statusServer(t, true, 1, contexts, allocationRuns).dial(cfg)
		if c.Info().Has(block.CapExtents) {
			t.Errorf("%s: capabilities %v", name, c.Info().Caps)
		}
	}
}

func TestList(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	var mu sync.Mutex
	var asked []option
	s.option = func(c *fakeConn, opt option, data []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, opt)
		name := func() string { return string(data[4 : 4+be.Uint32(data)]) }
		switch {
		case opt == optList:
			for _, n := range []string{"a", "secret", "ä b"} {
				c.reply(opt, repServer, append(append(be.AppendUint32(nil, uint32(len(n))), n...), "disk\x00"+n...))
			}
			c.reply(opt, repAck, nil)
		case opt == optInfo && name() == "secret":
			c.reply(opt, repErrTLSRequired, nil)
		case opt == optListMetaContext:
			c.reply(opt, repMetaContext, append(make([]byte, 4), "base:allocation"...))
			c.reply(opt, repAck, nil)
		default:
			return false
		}
		return true
	}
	list, err := List(background, s.start().uri(), ClientConfig{})
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, name := range []string{"a", "secret", "ä b"} {
		e := list[i]
		if e.Name != name || e.Description != "disk "+name {
			t.Errorf("%q %q", e.Name, e.Description)
		}
		if (e.Err != nil) != (i == 1) {
			t.Errorf("%q: %v", name, e.Err)
		}
		if i != 1 && (e.Size != 1<<20 || !e.FUA || len(e.MetaContexts) != 1) {
			t.Errorf("%+v", e)
		}
	}
	wantKind(t, list[1].Err, block.Permission)
	mu.Lock()
	defer mu.Unlock()
	if asked[len(asked)-1] != optAbort {
		t.Errorf("did not say goodbye: %v", asked)
	}
}

func TestListRefused(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.option = func(c *fakeConn, opt option, _ []byte) bool {
		if opt == optList {
			c.reply(opt, repErrPolicy, []byte("not for you"))
		}
		return opt == optList
	}
	_, err := List(background, s.start().uri(), ClientConfig{})
	wantKind(t, err, block.Permission)
	if !strings.Contains(err.Error(), "not for you") {
		t.Error(err)
	}
}
