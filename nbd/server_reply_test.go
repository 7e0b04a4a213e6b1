package nbd_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/nbd"
)

// CHECKLIST.md N61, N62 and N70: the forms of read and status replies.

var replyTests = []serverTest{
	{"N61_read", testRead},
	{"N61_holes", testReadHoles},
	{"N61_error_before_data", testReadError},
	{"N61_error_between_chunks", testReadErrorLate},
	{"N61_error_after_header_disconnects", testReadErrorAfterHeader},
	{"N61_device_lies_about_holes_later", testHoleFilled},
	{"N61_by_sendfile", testSendFile},
	{"N62_df", testDF},
	{"N70_status", testStatus},
	{"N70_status_req_one", testStatusOne},
	{"N70_status_without_extents", testStatusPlain},
	{"N70_status_merges", testStatusMerges},
	{"N70_status_many_extents", testStatusMany},
	{"N70_status_of_more_than_4_GiB", testStatusHuge},
	{"N70_status_cost", testStatusCost},
	{"N70_status_error", testStatusError},
}

func testRead(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		for _, nowait := range []bool{false, true} {
			caps := diskCaps
			if nowait {
				caps |= block.CapNowait
			}
			d := newDisk(33<<20, caps)
			d.nowait = nowait
			copy(d.data, pattern(33<<20, 1))
			c := enter(t, serveDevice(t, d).addr, mode, "")
			for _, n := range []uint64{1, 2, 511, 4096, 16 << 10, 16<<10 + 1, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 32 << 20} {
				for _, off := range []uint64{0, 1, 33<<20 - n} {
					rep := c.mustOK(c.read(off, n))
					mustEqual(t, rep.data, d.data[off:off+n], "read")
					if len(rep.chunks) != 1 {
						t.Errorf("%d chunks for plain data", len(rep.chunks))
					}
				}
			}
		}
	})
}

const hole = block.Hole | block.Zero

// testReadHoles: what the device knows to be zero comes as a hole where replies
// have a form for it.
func testReadHoles(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(8<<20, diskCaps)
		d.extents = layout(
			block.Extent{Len: 1 << 20}, block.Extent{Len: 1 << 20, State: hole}, block.Extent{Len: 4096},
			block.Extent{Len: 4096, State: block.Zero}, block.Extent{Len: 4096, State: hole},
			block.Extent{Len: 4096, State: block.Hole}, block.Extent{Len: 6<<20 - 16384, State: hole})
		copy(d.data, pattern(1<<20, 1))
		copy(d.data[2<<20:], pattern(4096, 2))
		copy(d.data[2<<20+12288:], pattern(4096, 3)) // a hole of unknown content is read
		c := enter(t, serveDevice(t, d).addr, mode, "")
		for _, at := range []struct {
			off, n uint64
			chunks int
		}{
			{0, 1 << 20, 1}, {0, 2 << 20, 2}, {0, 8 << 20, 6}, {1 << 20, 1 << 20, 1}, {1<<20 + 1, 1<<20 - 2, 1},
			{1<<19 + 7, 1 << 20, 2}, {2 << 20, 16384, 1}, {2 << 20, 64 << 10, 4}, {3 << 20, 5 << 20, 1}, {8<<20 - 1, 1, 1},
		} {
			rep := c.mustOK(c.read(at.off, at.n))
			mustEqual(t, rep.data, d.data[at.off:at.off+at.n], "read")
			want := at.chunks
			if mode == simple {
				want = 1
			}
			if len(rep.chunks) != want {
				t.Errorf("%d chunks for %d bytes at %d, want %d", len(rep.chunks), at.n, at.off, want)
			}
		}
		// More runs than one reply is cut into.
		var runs []block.Extent
		for i := range 2048 {
			runs = append(runs, block.Extent{Len: 4096, State: hole * block.ExtentState(i%2)})
		}
		d.change(func(data []byte) {
			d.extents = layout(runs...)
			for i := range 2048 {
				copy(data[i<<12:], pattern(4096, byte(i)))
				if i%2 == 1 {
					clear(data[i<<12 : (i+1)<<12])
				}
			}
		})
		mustEqual(t, c.mustOK(c.read(100, 8<<20-100)).data, d.data[100:], "read")
	})
}

func testReadError(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(4<<20, diskCaps)
		d.before = func(c call) error {
			if c.op == "read" && c.off >= 1<<20 {
				return errors.New("bad sector")
			}
			return nil
		}
		c := enter(t, serveDevice(t, d).addr, mode, "")
		for _, n := range []uint64{512, 64 << 10, 2 << 20} {
			c.mustFail(c.read(1<<20, n), rEIO)
			c.mustOK(c.read(0, 512))
		}
	})
}

func testReadErrorLate(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(4<<20, diskCaps)
		d.extents = layout(block.Extent{Len: 1 << 20}, block.Extent{Len: 1 << 20, State: hole}, block.Extent{Len: 2 << 20})
		d.before = func(c call) error {
			if c.op == "read" && c.off+c.n > 2<<20 {
				return errors.New("bad sector")
			}
			return nil
		}
		c := enter(t, serveDevice(t, d).addr, mode, "")
		c.mustFail(c.read(0, 4<<20), rEIO)
		c.mustOK(c.read(0, 1<<20))
	})
}

// fileDisk is a disk whose bytes lie in a file.
type fileDisk struct {
	*disk
	f      *os.File
	pinned chan struct{}
}

func newFileDisk(t *testing.T, size int64) *fileDisk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	d := &fileDisk{disk: newDisk(size, diskCaps|block.CapFileRange), f: f, pinned: make(chan struct{}, 1000)}
	copy(d.data, pattern(int(size), 1))
	if _, err := f.Write(d.data); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *fileDisk) PinRange(off, n int64) (block.FileRange, bool) {
	d.pinned <- struct{}{}
	return block.FileRange{FD: int(d.f.Fd()), Off: off, Len: n, Resident: true, Token: 7}, true
}

func (d *fileDisk) UnpinRange(r block.FileRange) {
	if r.Token != 7 {
		panic("a range that was not pinned")
	}
	<-d.pinned
}

// testReadErrorAfterHeader: once a reply's header is sent, an error can only be
// told by ending the connection.
func testReadErrorAfterHeader(t *testing.T) {
	d := newFileDisk(t, 1<<20)
	released := make(chan struct{}, 1)
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, Release: func() { released <- struct{}{} }})
	c := enter(t, s.addr, simple, "")
	if err := d.f.Truncate(100 << 10); err != nil {
		t.Fatal(err)
	}
	cookie := c.start(rawRequest{cmd: rCmdRead, length: 1 << 20})
	p := c.recv(16)
	if u32(p[4:]) != 0 || u64(p[8:]) != cookie {
		t.Fatalf("reply begins %x", p)
	}
	mustEqual(t, c.recv(100<<10), d.data[:100<<10], "what is left")
	c.mustClose()
	<-released
	if len(d.pinned) > 0 {
		t.Error("range still pinned")
	}
}

func testSendFile(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newFileDisk(t, 33<<20)
		c := enter(t, serveDevice(t, d).addr, mode, "")
		for _, n := range []uint64{512, 32 << 10, 64 << 10, 1 << 20, 32 << 20} {
			for _, off := range []uint64{0, 1, 33<<20 - n} {
				mustEqual(t, c.mustOK(c.read(off, n)).data, d.data[off:off+n], "read")
			}
		}
		// Many at a time, small ones between them.
		byCookie := map[uint64]rawRequest{}
		for i := range uint64(64) {
			req := rawRequest{cmd: rCmdRead, offset: i << 15, length: 1 << (9 + i%12)}
			byCookie[c.start(req)] = req
		}
		for len(byCookie) > 0 {
			ch := c.chunkOf(byCookie)
			req := byCookie[ch.cookie]
			rep := c.assemble(req, []rawChunk{ch})
			mustEqual(t, rep.data, d.data[req.offset:req.offset+req.length], "read")
			delete(byCookie, ch.cookie)
		}
		c.alive()
		if len(d.pinned) > 0 {
			t.Errorf("%d ranges still pinned", len(d.pinned))
		}
	})
}

// chunkOf reads a chunk that belongs to any of the requests: extended replies
// repeat the request's offset, which is known from its cookie only.
func (c *rawClient) chunkOf(reqs map[uint64]rawRequest) rawChunk {
	c.t.Helper()
	offset := uint64(0)
	if c.mode == extended {
		p, err := c.r.Peek(24)
		if err != nil {
			c.t.Fatal(err)
		}
		offset = reqs[u64(p[8:])].offset
	}
	return c.chunk(offset)
}

// testHoleFilled: what was data once is not asked about again; should it be a
// hole by now, it is sent as zeroes.
func testHoleFilled(t *testing.T) {
	dev := newMem(t, 4<<20)
	c := enter(t, serveDevice(t, dev).addr, structured, "")
	c.mustOK(c.write(0, pattern(4<<20, 1)))
	c.mustOK(c.read(0, 4<<20))
	c.mustOK(c.do(rawRequest{cmd: rCmdZeroes, offset: 1 << 20, length: 2 << 20}))
	want := pattern(4<<20, 1)
	clear(want[1<<20 : 3<<20])
	mustEqual(t, c.mustOK(c.read(0, 4<<20)).data, want, "read")
	c.mustOK(c.write(1<<20, pattern(2<<20, 9)))
	copy(want[1<<20:], pattern(2<<20, 9))
	mustEqual(t, c.mustOK(c.read(0, 4<<20)).data, want, "read")
}

func testDF(t *testing.T) {
	for _, mode := range []rawMode{structured, extended} {
		d := newDisk(33<<20, diskCaps)
		d.extents = layout(block.Extent{Len: 32 << 10}, block.Extent{Len: 33<<20 - 32<<10, State: hole})
		copy(d.data, pattern(32<<10, 1))
		c := enter(t, serveDevice(t, d).addr, mode, "")
		for _, n := range []uint64{1, 64 << 10, 1 << 20, 32 << 20} {
			rep := c.mustOK(c.do(rawRequest{flags: rFlagDF, cmd: rCmdRead, length: n}))
			mustEqual(t, rep.data, d.data[:n], "read")
			if len(rep.chunks) != 1 || rep.chunks[0].typ != rChunkData {
				t.Errorf("%d chunks with DF", len(rep.chunks))
			}
		}
		c.mustFail(c.do(rawRequest{flags: rFlagDF, cmd: rCmdRead, length: 33 << 20}), rEOVERFLOW)
	}
}

// sparseDisk is 1 MiB: 256 KiB data, 256 KiB hole, 256 KiB zeroes, 256 KiB data
// deep in the chain.
func sparseDisk() *disk {
	d := newDisk(1<<20, diskCaps|block.CapBitmaps)
	d.bitmaps = []string{"monday", "tuesday"}
	d.extents = layout(
		block.Extent{Len: 256 << 10, Depth: 1}, block.Extent{Len: 256 << 10, State: hole},
		block.Extent{Len: 256 << 10, State: block.Zero, Depth: 1}, block.Extent{Len: 256 << 10, Depth: 3})
	return d
}

func testStatus(t *testing.T) {
	for _, mode := range []rawMode{structured, extended} {
		c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, mode, "", qAllocation, qDepth, qTuesday)
		const q = 256 << 10
		got := c.status(0, 0, 1<<20)
		if len(got) != 3 {
			t.Fatalf("chunks for %d contexts", len(got))
		}
		wantExtents(t, got[ids[qAllocation]], rawExtent{q, 0}, rawExtent{q, 3}, rawExtent{q, 2}, rawExtent{q, 0})
		wantExtents(t, got[ids[qDepth]], rawExtent{q, 1}, rawExtent{q, 0}, rawExtent{q, 1}, rawExtent{q, 3})
		if e := got[ids[qTuesday]]; len(e) != 16 || e[0] != (rawExtent{64 << 10, 0}) || e[1] != (rawExtent{64 << 10, 1}) {
			t.Errorf("dirty bitmap %v", e)
		}
		got = c.status(0, q/2, q)
		wantExtents(t, got[ids[qAllocation]], rawExtent{q / 2, 0}, rawExtent{q / 2, 3})
		got = c.status(0, 1<<20-1, 1)
		wantExtents(t, got[ids[qAllocation]], rawExtent{1, 0})
	}
}

func wantExtents(t *testing.T, got []rawExtent, want ...rawExtent) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("extents %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("extents %v, want %v", got, want)
		}
	}
}

func testStatusOne(t *testing.T) {
	for _, mode := range []rawMode{structured, extended} {
		c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, mode, "", qAllocation, qMonday)
		for _, n := range []uint64{1, 4096, 64 << 10, 256 << 10, 1 << 20} {
			got := c.status(rFlagReqOne, 0, n)
			wantExtents(t, got[ids[qAllocation]], rawExtent{min(n, 256<<10), 0})
			wantExtents(t, got[ids[qMonday]], rawExtent{min(n, 64<<10), 1})
		}
	}
}

func testStatusPlain(t *testing.T) {
	for _, mode := range []rawMode{structured, extended} {
		c, ids := enterStatus(t, serveDevice(t, newDisk(1<<20, 0)).addr, mode, "", qAllocation, qDepth)
		if len(ids) != 1 {
			t.Errorf("contexts %v", ids)
		}
		wantExtents(t, c.status(0, 100, 1000)[ids[qAllocation]], rawExtent{1000, 0})
	}
}

// testStatusMerges: neighbours that a context does not tell apart are one
// extent (c.extents checks it for every reply).
func testStatusMerges(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	d.extents = layout(block.Extent{Len: 4096, Depth: 1}, block.Extent{Len: 4096, Depth: 2},
		block.Extent{Len: 4096, Depth: 2, State: block.Zero}, block.Extent{Len: 1<<20 - 3*4096, Depth: 2})
	c, ids := enterStatus(t, serveDevice(t, d).addr, structured, "", qAllocation, qDepth)
	got := c.status(0, 0, 1<<20)
	wantExtents(t, got[ids[qAllocation]], rawExtent{8192, 0}, rawExtent{4096, 2}, rawExtent{1<<20 - 3*4096, 0})
	wantExtents(t, got[ids[qDepth]], rawExtent{4096, 1}, rawExtent{1<<20 - 4096, 2})
	wantExtents(t, c.status(rFlagReqOne, 0, 1<<20)[ids[qDepth]], rawExtent{4096, 1})
}

// testStatusMany: a reply is bounded; who asks on from its end sees everything.
func testStatusMany(t *testing.T) {
	const size, step = 512 << 20, 4096
	d := newDisk(0, diskCaps)
	d.info.Size = size
	d.extents = func(off, n int64, dst []block.Extent) []block.Extent {
		for n > 0 && len(dst) < cap(dst) {
			e := block.Extent{Len: min(n, step-off%step), State: hole * block.ExtentState(off/step%2)}
			dst = append(dst, e)
			off, n = off+e.Len, n-e.Len
		}
		return dst
	}
	for _, mode := range []rawMode{structured, extended} {
		c, ids := enterStatus(t, serveDevice(t, d).addr, mode, "", qAllocation)
		requests := 0
		for off := uint64(0); off < size; requests++ {
			for _, e := range c.status(0, off, size-off)[ids[qAllocation]] {
				if want := off / step % 2 * 3; e.status != want || e.length != step {
					t.Fatalf("extent %v at %d", e, off)
				}
				off += e.length
			}
		}
		if requests == 1 {
			t.Error("all extents in one reply")
		}
	}
}

// testStatusHuge: an extent that 32 bits cannot express is cut in a compact
// reply, at a multiple of every block size, and whole in an extended one.
func testStatusHuge(t *testing.T) {
	const size = 10 << 40
	d := newDisk(0, diskCaps)
	d.info.Size = size
	d.extents = layout(block.Extent{Len: 6 << 30, State: hole}, block.Extent{Len: size - 6<<30})
	s := serveDevice(t, d)
	c, ids := enterStatus(t, s.addr, extended, "", qAllocation)
	wantExtents(t, c.status(0, 0, size)[ids[qAllocation]], rawExtent{6 << 30, 3}, rawExtent{size - 6<<30, 0})
	wantExtents(t, c.status(rFlagReqOne, 0, size)[ids[qAllocation]], rawExtent{6 << 30, 3})
	c, ids = enterStatus(t, s.addr, structured, "", qAllocation)
	for _, flags := range []uint16{0, rFlagReqOne} {
		got := c.status(flags, 0, 0xffff0000)[ids[qAllocation]]
		if len(got) != 1 || got[0].status != 3 || got[0].length == 0 || got[0].length%65536 != 0 {
			t.Errorf("compact extents %v", got)
		}
		if flags == rFlagReqOne && got[0].length > 0xffff0000 {
			t.Errorf("REQ_ONE gave more than asked: %v", got)
		}
	}
	got := c.status(0, 6<<30-4096, 0xffffffff)[ids[qAllocation]]
	if len(got) != 2 || got[0] != (rawExtent{4096, 3}) || got[1].status != 0 {
		t.Errorf("compact extents %v", got)
	}
}

// testStatusCost: the device is asked once for what two contexts tell, and a
// client that walks a fragmented disk by REQ_ONE costs as many extents as there
// are, not their square. Neighbours that look alike are one extent all the same.
func testStatusCost(t *testing.T) {
	const step, count = 4096, 256
	for name, runs := range map[string]uint64{"fragments": 1, "told in pieces": 4} {
		d := newDisk(count*step, diskCaps)
		var told atomic.Int64
		d.extents = func(off, n int64, dst []block.Extent) []block.Extent {
			for n > 0 && len(dst) < cap(dst) {
				e := block.Extent{Len: step, Depth: 1, State: block.Zero * block.ExtentState(uint64(off)/step/runs%2)}
				dst = append(dst, e)
				off, n = off+step, n-step
				told.Add(1)
			}
			return dst
		}
		c, ids := enterStatus(t, serveDevice(t, d).addr, extended, "", qAllocation, qDepth)
		c.status(0, 0, count*step)
		if asked := d.took("extents"); len(asked) != 1 {
			t.Errorf("%s: one request asked the device %d times", name, len(asked))
		}
		told.Store(0)
		for off := uint64(0); off < count*step; {
			got := c.status(rFlagReqOne, off, count*step-off)
			wantExtents(t, got[ids[qAllocation]], rawExtent{runs * step, uint64(off / step / runs % 2 * 2)})
			off += got[ids[qAllocation]][0].length
		}
		if n := told.Load(); n > 2*count {
			t.Errorf("%s: the device told %d extents of a disk that has %d", name, n, count)
		}
	}
}

func testStatusError(t *testing.T) {
	for _, mode := range []rawMode{structured, extended} {
		d := sparseDisk()
		d.before = func(c call) error {
			if c.op == "extents" && c.off == 4096 {
				return unix.EIO
			}
			return nil
		}
		c, _ := enterStatus(t, serveDevice(t, d).addr, mode, "", qAllocation)
		c.mustFail(c.do(rawRequest{cmd: rCmdStatus, offset: 4096, length: 512}), rEIO)
		c.status(0, 0, 512)
	}
}
