package nbd_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

// CHECKLIST.md N80 to N84 (sizes), N90 to N95 (extended headers), N100 to N103
// (contexts) and N110 on (several connections).

var sizeTests = []serverTest{
	{"N80_32_MiB_payload", testLargestPayload},
	{"N80_oversize", testOversize},
	{"N81_advertised", testAdvertised},
	{"N82_unaligned", testUnaligned},
	{"N83_odd_size", testOddSize},
	{"N84_long_effects", testLongEffects},
}

var extendedTests = []serverTest{
	{"N90_headers", testExtendedHeaders},
	{"N91_payload_flag", testPayloadFlag},
	{"N91_payload_of_other_commands", testPayloadSkipped},
	{"N91_oversize_payload_disconnects", testPayloadOversize},
	{"N92_no_other_replies", testExtendedOnly},
	{"N93_status_ext", testStatusExt},
	{"N94_status_filter", testStatusFilter},
	{"N94_bad_status_filter", testBadStatusFilter},
	{"N95_64_bit_effects", testLongEffectsExtended},
}

var contextTests = []serverTest{
	{"N100_allocation", testAllocationBits},
	{"N101_dirty_bitmaps", testBitmaps},
	{"N102_depth", testDepth},
	{"N103_own_context", testNoOwnContext},
}

var multiTests = []serverTest{
	{"N110_multi_conn_flag", testMultiConnFlag},
	{"N110_flush_covers_other_connections", testFlushOrder},
	{"N111_read_after_write", testReadAfterWrite},
	{"N120_no_resize", testNoResize},
}

func testLargestPayload(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		dev := newMem(t, 64<<20)
		c := enter(t, serveDevice(t, dev).addr, mode, "")
		want := pattern(32<<20, 1)
		c.mustOK(c.write(3, want))
		mustEqual(t, c.mustOK(c.read(3, 32<<20)).data, want, "read")
	})
}

// testOversize: a payload that is too long is skipped as far as that makes
// sense, and the connection goes on.
func testOversize(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(128<<20, diskCaps)
		s := serveDevice(t, d)
		c := enter(t, s.addr, mode, "")
		tooLong := uint32(rEINVAL)
		if mode != simple {
			tooLong = rEOVERFLOW
		}
		c.mustFail(c.read(0, 32<<20+1), tooLong)
		c.mustFail(c.read(0, 128<<20), tooLong)
		c.mustFail(c.write(0, pattern(32<<20+1, 1)), rEINVAL)
		c.mustFail(c.write(0, pattern(64<<20, 1)), rEINVAL)
		if got := d.took("read", "write"); len(got) > 0 {
			t.Errorf("device was asked %v", got)
		}
		// What looks like an attack ends the connection.
		flags := uint16(0)
		if mode == extended {
			flags = rFlagPayload
		}
		c.start(rawRequest{flags: flags, cmd: rCmdWrite, length: 0xffffffff})
		c.mustClose()
	})
}

func testAdvertised(t *testing.T) {
	for _, test := range []struct {
		dev             block.BlockSize
		minimum, prefer uint32
	}{
		{block.BlockSize{Min: 1, Preferred: 4096}, 1, 4096},
		{block.BlockSize{Min: 512, Preferred: 512}, 512, 4096},
		{block.BlockSize{Min: 4096, Preferred: 65536, Max: 1 << 20}, 4096, 65536},
		{block.BlockSize{Min: 65536, Preferred: 65536}, 65536, 65536},
	} {
		d := newDisk(1<<20, diskCaps)
		d.info.Block = test.dev
		x := enter(t, serveDevice(t, d).addr, simple, "").info
		if x.minBlock != test.minimum || x.prefBlock != test.prefer || x.maxPayload != 32<<20 {
			t.Errorf("%+v: %d, %d, %d", test.dev, x.minBlock, x.prefBlock, x.maxPayload)
		}
	}
}

func testUnaligned(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		d.info.Block = block.BlockSize{Min: 4096, Preferred: 4096, Max: 64 << 10}
		c := enter(t, serveDevice(t, d).addr, mode, "")
		for _, at := range []struct{ off, n uint64 }{{1, 4096}, {0, 512}, {4095, 1}, {0, 128<<10 + 1}, {512, 128 << 10}} {
			c.mustFail(c.read(at.off, at.n), rEINVAL)
			c.mustFail(c.write(at.off, pattern(int(at.n), 1)), rEINVAL)
			c.mustFail(c.do(rawRequest{cmd: rCmdZeroes, offset: at.off, length: at.n}), rEINVAL)
		}
		mustEqual(t, d.content(0, 1<<20), make([]byte, 1<<20), "device")
		// What is longer than the device takes at once is cut up.
		c.mustOK(c.write(4096, pattern(200<<10, 1)))
		mustEqual(t, c.mustOK(c.read(4096, 200<<10)).data, pattern(200<<10, 1), "read")
		for _, call := range d.took("read", "write") {
			if call.n > 128<<10+1 {
				t.Errorf("device was asked %v", call)
			}
		}
	})
}

func testOddSize(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		const size = 1<<20 + 77
		dev := newMem(t, size)
		c := enter(t, serveDevice(t, dev).addr, mode, "")
		if c.info.size != size {
			t.Errorf("size %d", c.info.size)
		}
		want := pattern(size, 1)
		c.mustOK(c.write(0, want))
		mustEqual(t, c.mustOK(c.read(0, size)).data, want, "read")
		mustEqual(t, c.mustOK(c.read(size-77, 77)).data, want[size-77:], "the end")
		c.mustFail(c.read(size-76, 77), rEINVAL)
	})
}

func testLongEffects(t *testing.T) {
	const size = 8 << 30
	inModes(t, func(t *testing.T, mode rawMode) {
		dev := newMem(t, size)
		c := dial(t, serveDevice(t, dev).addr)
		c.negotiate(mode)
		if mode != simple {
			c.setMeta("", qAllocation)
		}
		c.goExport("")
		c.mustOK(c.write(3<<30, pattern(4096, 1)))
		for _, cmd := range []uint16{rCmdTrim, rCmdZeroes, rCmdCache} {
			c.mustOK(c.do(rawRequest{cmd: cmd, offset: 0, length: 0xfffff000}))
		}
		mustEqual(t, c.mustOK(c.read(3<<30, 4096)).data, make([]byte, 4096), "read")
		if mode != simple {
			c.status(0, 0, 0xffffffff)
		}
	})
}

func testExtendedHeaders(t *testing.T) {
	c := enter(t, serveDevice(t, newMem(t, 1<<20)).addr, extended, "")
	c.mustOK(c.write(4096, pattern(4096, 1))) // chunk checks magic, cookie, offset and length
	mustEqual(t, c.mustOK(c.read(4000, 5000)).data[96:4192], pattern(4096, 1), "read")
	// An offset beyond everything is still repeated.
	c.mustFail(c.do(rawRequest{cmd: rCmdRead, offset: 1<<64 - 1, length: 1<<64 - 1}), rEINVAL)
	c.mustFail(c.do(rawRequest{cmd: rCmdTrim, offset: 1 << 19, length: 1<<64 - 1<<19}), rEINVAL)
	c.mustFail(c.do(rawRequest{cmd: rCmdZeroes, offset: 1 << 19, length: 1<<64 - 1<<19 + 1}), rENOSPC)
}

func testPayloadFlag(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	c := enter(t, serveDevice(t, d).addr, extended, "")
	// A write without the flag: its payload is taken from the stream and nothing
	// written.
	p := c.header(rawRequest{cmd: rCmdWrite, length: 512}, 1)
	c.send(append(p, pattern(512, 1)...))
	if ch := c.chunk(0); ch.err != rEINVAL {
		t.Errorf("write without the payload flag: %+v", ch)
	}
	c.alive()
	if got := d.took("write"); len(got) > 0 {
		t.Errorf("device was asked %v", got)
	}
}

func testPayloadSkipped(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	c := enter(t, serveDevice(t, d).addr, extended, "")
	junk := bytes.Repeat([]byte{0x21, 0xe4, 0x1c, 0x71, 0, 0, 0, 2}, 1024) // looks like disconnects
	for _, cmd := range []uint16{rCmdRead, rCmdFlush, rCmdTrim, rCmdCache, rCmdZeroes, rCmdStatus, 8, 99} {
		for _, n := range []int{1, 8, 100, 8192} {
			c.mustFail(c.do(rawRequest{cmd: cmd, payload: junk[:n]}), rEINVAL)
		}
		c.mustFail(c.do(rawRequest{cmd: cmd, payload: make([]byte, 1<<20)}), rEINVAL)
	}
	if got := d.took("read", "flush", "discard", "zero"); len(got) > 0 {
		t.Errorf("device was asked %v", got)
	}
}

func testPayloadOversize(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	for _, cmd := range []uint16{rCmdWrite, rCmdRead, rCmdStatus, rCmdFlush, 99} {
		c := enter(t, s.addr, extended, "")
		c.start(rawRequest{flags: rFlagPayload, cmd: cmd, length: 1 << 40})
		c.mustClose()
	}
}

// testExtendedOnly: chunk fails on any other magic, whatever is asked.
func testExtendedOnly(t *testing.T) {
	c, _ := enterStatus(t, serveDevice(t, sparseDisk()).addr, extended, "", qAllocation)
	for cmd := range uint16(12) {
		if cmd == rCmdDisc {
			continue
		}
		req := rawRequest{cmd: cmd, length: 512}
		switch cmd {
		case rCmdWrite:
			req.payload = pattern(512, 1)
		case rCmdFlush:
			req.length = 0
		}
		c.do(req)
		req.flags = 1 << 14
		c.mustFail(c.do(req), rEINVAL)
	}
}

func testStatusExt(t *testing.T) {
	c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, extended, "", qAllocation)
	rep := c.mustOK(c.do(rawRequest{cmd: rCmdStatus, length: 1}))
	if len(rep.chunks) != 1 || rep.chunks[0].typ != rChunkStatusExt {
		t.Fatalf("chunks %+v", rep.chunks)
	}
	want := cat(be32(ids[qAllocation]), be32(1), be64(1), be64(0))
	mustEqual(t, rep.chunks[0].payload, want, "payload")
}

func statusFilter(length uint64, ids ...uint32) rawRequest {
	p := be64(length)
	for _, id := range ids {
		p = append(p, be32(id)...)
	}
	return rawRequest{cmd: rCmdStatus, payload: p}
}

func testStatusFilter(t *testing.T) {
	c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, extended, "", qAllocation, qDepth, qMonday)
	if c.info.flags&rStatusPayload == 0 {
		t.Error("filter not offered")
	}
	a, m := ids[qAllocation], ids[qMonday]
	got := c.extents(c.mustOK(c.do(statusFilter(1<<20, m, a))))
	if len(got) != 2 || len(got[a]) != 4 || len(got[m]) != 16 {
		t.Errorf("extents %v", got)
	}
	req := statusFilter(100<<10, m)
	req.offset, req.flags = 64<<10, rFlagReqOne
	got = c.extents(c.mustOK(c.do(req)))
	if len(got) != 1 {
		t.Errorf("extents %v", got)
	}
	wantExtents(t, got[m], rawExtent{64 << 10, 0})
	if got := c.status(0, 0, 512); len(got) != 3 {
		t.Errorf("without a filter: %v", got)
	}
}

func testBadStatusFilter(t *testing.T) {
	c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, extended, "", qAllocation, qMonday)
	a := ids[qAllocation]
	for name, req := range map[string]rawRequest{
		"twice":        statusFilter(512, a, a),
		"unknown":      statusFilter(512, a, 9999),
		"none":         statusFilter(512),
		"no length":    statusFilter(0, a),
		"out of range": statusFilter(1<<20+1, a),
		"far out":      statusFilter(1<<64-1, a),
		"odd":          {cmd: rCmdStatus, payload: make([]byte, 11)},
		"short":        {cmd: rCmdStatus, payload: make([]byte, 7)},
		"long":         {cmd: rCmdStatus, payload: make([]byte, 4096)},
		"offset":       {cmd: rCmdStatus, offset: 1<<20 + 1, payload: statusFilter(1, a).payload},
	} {
		if rep := c.do(req); rep.err != rEINVAL {
			t.Errorf("%s: error %d", name, rep.err)
		}
		c.alive()
	}
	// Without a context the filter is not offered, and refused.
	c = enter(t, serveDevice(t, sparseDisk()).addr, extended, "")
	if c.info.flags&rStatusPayload != 0 {
		t.Error("filter offered without a context")
	}
	c.mustFail(c.do(statusFilter(512, 1)), rEINVAL)
}

func testLongEffectsExtended(t *testing.T) {
	const size = 1 << 40
	d := newDisk(0, diskCaps&^block.CapExtents&^block.CapDepth)
	d.info.Size = size
	d.before = func(c call) error {
		if c.op == "zero" {
			return block.NoSpace // the fake has no room; it is the request that counts
		}
		return nil
	}
	c, ids := enterStatus(t, serveDevice(t, d).addr, extended, "", qAllocation)
	c.mustOK(c.do(rawRequest{cmd: rCmdTrim, length: size}))
	c.mustOK(c.do(rawRequest{cmd: rCmdCache, length: size}))
	c.mustFail(c.do(rawRequest{cmd: rCmdZeroes, length: size}), rENOSPC)
	want := []call{{"discard", 0, size, 0}, {"prefetch", 0, size, 0}, {"zero", 0, size, block.MayUnmap}}
	got := slices.DeleteFunc(d.took("discard", "prefetch", "zero"), func(c call) bool { return c.n == 1 })
	if !slices.Equal(got, want) {
		t.Errorf("device saw %v", got)
	}
	wantExtents(t, c.status(0, 0, size)[ids[qAllocation]], rawExtent{size, 0})
}

// testAllocationBits: a hole that does not read as zeroes, zeroes that are
// allocated, both, and neither.
func testAllocationBits(t *testing.T) {
	d := newDisk(4<<20, diskCaps)
	d.extents = layout(block.Extent{Len: 1 << 20}, block.Extent{Len: 1 << 20, State: block.Hole},
		block.Extent{Len: 1 << 20, State: block.Zero}, block.Extent{Len: 1 << 20, State: hole})
	c, ids := enterStatus(t, serveDevice(t, d).addr, structured, "", qAllocation)
	wantExtents(t, c.status(0, 0, 4<<20)[ids[qAllocation]],
		rawExtent{1 << 20, 0}, rawExtent{1 << 20, 1}, rawExtent{1 << 20, 2}, rawExtent{1 << 20, 3})
}

func testBitmaps(t *testing.T) {
	c, ids := enterStatus(t, serveDevice(t, bitmapDisk()).addr, structured, "", qMonday, qTuesday)
	got := c.status(0, 0, 128<<10)
	wantExtents(t, got[ids[qMonday]], rawExtent{64 << 10, 1}, rawExtent{64 << 10, 0})
	wantExtents(t, got[ids[qTuesday]], rawExtent{64 << 10, 0}, rawExtent{64 << 10, 1})
}

func testDepth(t *testing.T) {
	c, ids := enterStatus(t, serveDevice(t, sparseDisk()).addr, structured, "", qDepth)
	wantExtents(t, c.status(0, 768<<10, 4096)[ids[qDepth]], rawExtent{4096, 3})
	wantExtents(t, c.status(0, 256<<10, 4096)[ids[qDepth]], rawExtent{4096, 0})
}

// testNoOwnContext: no context of our own exists so far, and x- queries are
// ignored as the protocol wants.
func testNoOwnContext(t *testing.T) {
	c := dial(t, serveDevice(t, bitmapDisk()).addr)
	c.negotiate(structured)
	if got := c.listMeta("", "x-sluice:", "x-:"); len(got) != 0 {
		t.Errorf("contexts %v", got)
	}
}

func testMultiConnFlag(t *testing.T) {
	for _, test := range []struct {
		caps block.Cap
		ro   bool
		want bool
	}{{diskCaps, false, true}, {diskCaps &^ block.CapMultiConn, false, false}, {0, true, true}} {
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: newDisk(1<<20, test.caps), ReadOnly: test.ro})
		if got := enter(t, s.addr, simple, "").info.flags&rMultiConn != 0; got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// testReadAfterWrite: what one connection was told is written, every other
// reads.
func testReadAfterWrite(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	var wg sync.WaitGroup
	clients := make([]*rawClient, 4)
	for i := range clients {
		clients[i] = enter(t, s.addr, allModes[i%3], "")
	}
	for round := range byte(50) {
		for i, c := range clients {
			c.mustOK(c.write(uint64(i)*4096, pattern(4096, round*4+byte(i))))
			for j := range clients {
				wg.Go(func() {
					if rep := clients[j].read(uint64(i)*4096, 4096); !bytes.Equal(rep.data, pattern(4096, round*4+byte(i))) {
						t.Errorf("round %d: connection %d does not see what %d wrote", round, j, i)
					}
				})
			}
			wg.Wait()
		}
	}
}

func testNoResize(t *testing.T) {
	c := enter(t, serveDevice(t, newMem(t, 1<<20)).addr, structured, "")
	if c.info.flags&rResize != 0 {
		t.Error("RESIZE is offered")
	}
	c.mustFail(c.do(rawRequest{cmd: rCmdResize, offset: 0, length: 512}), rEINVAL)
}
