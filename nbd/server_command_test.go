package nbd_test

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

// CHECKLIST.md N60 to N77: transmission flags and commands. The forms of read
// and status replies are in server_reply_test.go.

var commandTests = []serverTest{
	{"N60_flags", testFlags},
	{"N60_read_only", testReadOnly},
	{"N63_write", testWrite},
	{"N65_flush_follows_answered_writes", testFlushOrder},
	{"N66_fua", testFUA},
	{"N66_fua_by_flush", testFUAByFlush},
	{"N66_fua_tolerated", testFUATolerated},
	{"N67_trim", testTrim},
	{"N68_write_zeroes", testZeroes},
	{"N68_fast_zero", testFastZero},
	{"N68_zeroes_without_the_power", testZeroesByWriting},
	{"N69_cache", testCache},
	{"N71_zero_length", testZeroLength},
	{"N72_unknown_commands_and_flags", testUnknownCommands},
	{"N73_bounds", testBounds},
	{"N74_error_codes", testErrorCodes},
	{"N75_error_texts", testErrorTexts},
	{"N76_cookies", testCookies},
	{"N76_out_of_order", testOutOfOrder},
	{"N77_small_read_overtakes", testOvertake},
	{"N77_writes_do_not_hold_up_reads", testReadPastWrites},
}

// testFlags compares the flags with what the device can do.
func testFlags(t *testing.T) {
	const always = rHasFlags | rFlush | rFUA | rCache
	const writable = always | rTrim | rZeroes | rFastZero
	rotational := newDisk(1<<20, 0)
	rotational.info.Rotational = true
	readOnly := newDisk(1<<20, diskCaps)
	readOnly.info.ReadOnly = true
	for name, test := range map[string]struct {
		dev  block.Device
		ro   bool
		want uint16
	}{
		"bare":       {dev: newDisk(1<<20, 0), want: writable},
		"full":       {dev: newDisk(1<<20, diskCaps), want: writable | rMultiConn},
		"rotational": {dev: rotational, want: writable | rRotational},
		"read-only":  {dev: readOnly, want: always | rReadOnly | rMultiConn},
		"by export":  {dev: newDisk(1<<20, diskCaps), ro: true, want: always | rReadOnly | rMultiConn},
	} {
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: test.dev, ReadOnly: test.ro})
		for _, mode := range allModes {
			for _, query := range []string{qAllocation, "x-none:"} {
				c := dial(t, s.addr)
				c.negotiate(mode)
				want := test.want
				if mode != simple {
					want |= rDF
					if n := len(c.setMeta("", query)); n > 0 && mode == extended {
						want |= rStatusPayload
					}
				}
				if c.goExport(""); c.info.flags != want {
					t.Errorf("%s, %v: flags %#x, want %#x", name, mode, c.info.flags, want)
				}
			}
		}
	}
}

func testReadOnly(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, ReadOnly: true})
		c := enter(t, s.addr, mode, "")
		for _, size := range []int{1, 4096, 1 << 20} { // the payload is skipped
			c.mustFail(c.write(0, pattern(size, 1)), rEPERM)
		}
		c.mustFail(c.do(rawRequest{cmd: rCmdTrim, length: 4096}), rEPERM)
		c.mustFail(c.do(rawRequest{cmd: rCmdZeroes, length: 4096}), rEPERM)
		c.mustOK(c.read(0, 4096))
		c.mustOK(c.flush())
		if got := d.took("write", "zero", "discard"); len(got) > 0 {
			t.Errorf("device was asked %v", got)
		}
	})
}

func testWrite(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(40<<20, diskCaps)
		s := serveDevice(t, d)
		c := enter(t, s.addr, mode, "")
		off := uint64(1)
		for _, size := range []int{1, 511, 4096, 65535, 65536, 65537, 1 << 20, 32 << 20} {
			p := pattern(size, byte(off))
			c.mustOK(c.write(off, p))
			mustEqual(t, d.content(int(off), size), p, "device")
			off += uint64(size) + 3
		}
		for _, call := range d.took("write") {
			if call.flags != 0 {
				t.Errorf("write with flags %#x", call.flags)
			}
		}
	})
}

// testFlushOrder: a flush that a client sends after the reply to a write is
// issued to the device after that write completed, also over another connection.
func testFlushOrder(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	var mu sync.Mutex
	var log []string
	d.before = func(c call) error {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, c.op)
		return nil
	}
	s := serveDevice(t, d)
	a, b := enter(t, s.addr, structured, ""), enter(t, s.addr, extended, "")
	a.mustOK(a.write(0, pattern(4096, 1)))
	b.mustOK(b.flush())
	b.mustOK(b.do(rawRequest{cmd: rCmdZeroes, length: 4096}))
	a.mustOK(a.flush())
	mu.Lock()
	if want := []string{"write", "flush", "zero", "flush"}; !slices.Equal(log, want) {
		t.Errorf("device saw %v, want %v", log, want)
	}
	mu.Unlock()
	// A flush that fails is told.
	d.setBefore(func(call) error { return block.Errorf(block.IO, "flush", "disk", -1, "bad sector") })
	a.mustFailOnce(a.flush(), rEIO)
	a.mustFailOnce(a.do(rawRequest{flags: rFlagFUA, cmd: rCmdWrite, payload: pattern(512, 1)}), rEIO)
}

// mustFailOnce is mustFail for a device that fails at everything.
func (c *rawClient) mustFailOnce(rep rawReply, code uint32) {
	c.t.Helper()
	if rep.err != code {
		c.t.Fatalf("error %d %q, want %d", rep.err, rep.text, code)
	}
}

// changing are requests that change a device.
func changing(flags uint16) []rawRequest {
	return []rawRequest{
		{flags: flags, cmd: rCmdWrite, payload: pattern(512, 1)},
		{flags: flags, cmd: rCmdZeroes, length: 512},
		{flags: flags, cmd: rCmdTrim, length: 512},
	}
}

// testFUA: a device that knows FUA gets it with the request itself.
func testFUA(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		s := serveDevice(t, d)
		c := enter(t, s.addr, mode, "")
		for _, req := range changing(rFlagFUA) {
			c.mustOK(c.do(req))
		}
		want := []call{{"write", 0, 512, block.FUA}, {"zero", 0, 512, block.FUA | block.MayUnmap}, {"discard", 0, 512, block.FUA}}
		if got := d.took("write", "zero", "discard", "flush"); !slices.Equal(got, want) {
			t.Errorf("device saw %v, want %v", got, want)
		}
	})
}

// testFUAByFlush: for one that does not, a flush follows before the reply.
func testFUAByFlush(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		for _, req := range changing(rFlagFUA) {
			d := newDisk(1<<20, diskCaps&^block.CapFUA)
			release := d.hold("flush")
			s := serveDevice(t, d)
			c := enter(t, s.addr, mode, "")
			cookie := c.start(req)
			waitFor(t, "the flush", func() bool { return len(d.took("flush")) == 1 })
			calls := d.took("write", "zero", "discard")
			if len(calls) != 1 || calls[0].flags&block.FUA != 0 {
				t.Errorf("device saw %v", calls)
			}
			next := c.start(rawRequest{cmd: rCmdRead, length: 1})
			if ch := c.chunk(0); ch.cookie != next {
				t.Error("reply before the flush was done")
			}
			close(release)
			c.mustOK(c.finish(cookie, req))
		}
	})
}

func testFUATolerated(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		s := serveDevice(t, newDisk(1<<20, diskCaps))
		c := dial(t, s.addr)
		c.negotiate(mode)
		if mode != simple {
			c.setMeta("", qAllocation)
			defer func() { c.mustOK(c.do(rawRequest{flags: rFlagFUA, cmd: rCmdStatus, length: 512})) }()
		}
		c.goExport("")
		for _, cmd := range []uint16{rCmdRead, rCmdCache, rCmdTrim} {
			c.mustOK(c.do(rawRequest{flags: rFlagFUA, cmd: cmd, length: 512}))
		}
		c.mustOK(c.do(rawRequest{flags: rFlagFUA, cmd: rCmdFlush}))
	})
}

func testTrim(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	c := enter(t, serveDevice(t, d).addr, structured, "")
	c.mustOK(c.do(rawRequest{cmd: rCmdTrim, offset: 3, length: 100000}))
	if got, want := d.took("discard"), []call{{"discard", 3, 100000, 0}}; !slices.Equal(got, want) {
		t.Errorf("device saw %v", got)
	}
	// A hint: where nobody can follow it, and where it turns out to be
	// impossible, it succeeds.
	plain := newDisk(1<<20, 0)
	c = enter(t, serveDevice(t, plain).addr, structured, "")
	c.mustOK(c.do(rawRequest{cmd: rCmdTrim, length: 4096}))
	d.setBefore(func(c call) error { return block.Errorf(block.Unsupported, c.op, "disk", c.off, "") })
	c = enter(t, serveDevice(t, d).addr, structured, "")
	c.mustOK(c.do(rawRequest{cmd: rCmdTrim, length: 4096}))
}

func testZeroes(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		copy(d.data, pattern(1<<20, 1))
		c := enter(t, serveDevice(t, d).addr, mode, "")
		c.mustOK(c.do(rawRequest{cmd: rCmdZeroes, offset: 100, length: 5000}))
		c.mustOK(c.do(rawRequest{flags: rFlagNoHole, cmd: rCmdZeroes, offset: 10000, length: 1}))
		want := []call{{"zero", 100, 5000, block.MayUnmap}, {"zero", 10000, 1, 0}}
		if got := d.took("zero"); !slices.Equal(got, want) {
			t.Errorf("device saw %v", got)
		}
		model := pattern(1<<20, 1)
		clear(model[100:5100])
		model[10000] = 0
		mustEqual(t, d.content(0, 1<<20), model, "device")
	})
}

// testFastZero: ENOTSUP at once and nothing changed where it is not fast, and
// never ENOTSUP without the flag.
func testFastZero(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		slow := newDisk(1<<20, 0) // has to write
		copy(slow.data, pattern(1<<20, 1))
		c := enter(t, serveDevice(t, slow).addr, mode, "")
		c.mustFail(c.do(rawRequest{flags: rFlagFastZero, cmd: rCmdZeroes, length: 1 << 20}), rENOTSUP)
		c.mustFail(c.do(rawRequest{flags: rFlagFastZero | rFlagNoHole, cmd: rCmdZeroes, length: 512}), rENOTSUP)
		mustEqual(t, slow.content(0, 1<<20), pattern(1<<20, 1), "device")
		c.mustOK(c.do(rawRequest{cmd: rCmdZeroes, length: 1 << 20}))
		mustEqual(t, slow.content(0, 1<<20), make([]byte, 1<<20), "device")

		fast := newDisk(1<<20, diskCaps|block.CapFastZero)
		c = enter(t, serveDevice(t, fast).addr, mode, "")
		c.mustOK(c.do(rawRequest{flags: rFlagFastZero, cmd: rCmdZeroes, length: 512}))
		if got := fast.took("zero"); len(got) != 1 || got[0].flags != block.FastOnly|block.MayUnmap {
			t.Errorf("device saw %v", got)
		}
		// A device that says "unsupported" to something else is not believed.
		fast.setBefore(func(c call) error {
			if c.op == "write" {
				return block.Errorf(block.Unsupported, c.op, "disk", c.off, "")
			}
			return nil
		})
		c.mustFail(c.write(0, pattern(512, 1)), rEINVAL)
	})
}

func testZeroesByWriting(t *testing.T) {
	d := newDisk(1<<20, 0)
	copy(d.data, pattern(1<<20, 1))
	d.info.Block.Max = 32 << 10
	c := enter(t, serveDevice(t, d).addr, structured, "")
	c.mustOK(c.do(rawRequest{flags: rFlagFUA, cmd: rCmdZeroes, offset: 1000, length: 300000}))
	model := pattern(1<<20, 1)
	clear(model[1000:301000])
	mustEqual(t, d.content(0, 1<<20), model, "device")
	if n := len(d.took("flush")); n != 1 {
		t.Errorf("%d flushes", n)
	}
}

func testCache(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	c := enter(t, serveDevice(t, d).addr, structured, "")
	c.mustOK(c.do(rawRequest{cmd: rCmdCache, offset: 4096, length: 8192}))
	if got := d.took("prefetch"); len(got) != 1 || got[0].off != 4096 || got[0].n != 8192 {
		t.Errorf("device saw %v", got)
	}
	for _, flag := range []uint16{rFlagNoHole, rFlagDF, rFlagReqOne, rFlagFastZero, rFlagPayload, 1 << 6} {
		c.mustFail(c.do(rawRequest{flags: flag, cmd: rCmdCache, length: 512}), rEINVAL)
	}
	c = enter(t, serveDevice(t, newDisk(1<<20, 0)).addr, simple, "")
	c.mustOK(c.do(rawRequest{cmd: rCmdCache, length: 1 << 20}))
}

func testZeroLength(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(1<<20, diskCaps)
		c := dial(t, serveDevice(t, d).addr)
		c.negotiate(mode)
		if mode != simple {
			c.setMeta("", qAllocation)
		}
		c.goExport("")
		for _, off := range []uint64{0, 100, 1 << 20} {
			for _, cmd := range []uint16{rCmdRead, rCmdTrim, rCmdCache, rCmdZeroes} {
				c.mustOK(c.do(rawRequest{cmd: cmd, offset: off}))
			}
			c.mustOK(c.do(rawRequest{cmd: rCmdWrite, offset: off, payload: []byte{}}))
		}
		c.mustFail(c.do(rawRequest{cmd: rCmdStatus}), rEINVAL)
		if got := d.took("read", "write", "zero", "discard"); len(got) > 0 {
			t.Errorf("device was asked %v", got)
		}
	})
}

func testUnknownCommands(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		c := enter(t, serveDevice(t, newDisk(1<<20, diskCaps)).addr, mode, "")
		for _, cmd := range []uint16{rCmdResize, 9, 255, 0x8000, 0xffff} {
			c.mustFail(c.do(rawRequest{cmd: cmd, length: 512}), rEINVAL)
			c.mustFail(c.do(rawRequest{flags: 0xffdf, cmd: cmd, offset: 1 << 63, length: 0xffffffff}), rEINVAL)
		}
		for cmd, bad := range map[uint16][]uint16{
			rCmdRead:   {rFlagNoHole, rFlagReqOne, rFlagFastZero, 1 << 6, 1 << 15},
			rCmdWrite:  {rFlagNoHole, rFlagDF, rFlagReqOne, rFlagFastZero, 1 << 6, 1 << 15},
			rCmdFlush:  {rFlagNoHole, rFlagDF, rFlagReqOne, rFlagFastZero, 1 << 6, 1 << 15},
			rCmdTrim:   {rFlagNoHole, rFlagDF, rFlagReqOne, rFlagFastZero, 1 << 6, 1 << 15},
			rCmdZeroes: {rFlagDF, rFlagReqOne, 1 << 6, 1 << 15},
		} {
			for _, flag := range bad {
				req := rawRequest{flags: flag, cmd: cmd, length: 512}
				if cmd == rCmdWrite {
					req.payload = pattern(512, 1)
				}
				if cmd == rCmdFlush {
					req.length = 0
				}
				c.mustFail(c.do(req), rEINVAL)
			}
		}
		if mode == simple {
			c.mustFail(c.do(rawRequest{flags: rFlagDF, cmd: rCmdRead, length: 512}), rEINVAL)
			c.mustFail(c.do(rawRequest{cmd: rCmdStatus, length: 512}), rEINVAL)
		}
		if mode != extended {
			c.mustFail(c.do(rawRequest{flags: rFlagPayload, cmd: rCmdWrite, payload: pattern(512, 1)}), rEINVAL)
		}
		c.mustFail(c.do(rawRequest{cmd: rCmdFlush, offset: 1}), rEINVAL)
		c.mustFail(c.do(rawRequest{cmd: rCmdFlush, length: 1}), rEINVAL)
	})
}

func testBounds(t *testing.T) {
	const size = 1<<20 - 3
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(size, diskCaps)
		c := dial(t, serveDevice(t, d).addr)
		c.negotiate(mode)
		if mode != simple {
			c.setMeta("", qAllocation)
		}
		c.goExport("")
		for _, at := range []struct{ off, n uint64 }{
			{size, 1}, {size - 1, 2}, {size + 1, 1}, {0, size + 1}, {1<<64 - 1, 1}, {1<<64 - 512, 1024}, {1 << 63, 4096},
		} {
			c.mustFail(c.read(at.off, at.n), rEINVAL)
			c.mustFail(c.write(at.off, pattern(int(at.n), 1)), rENOSPC)
			c.mustFail(c.do(rawRequest{cmd: rCmdZeroes, offset: at.off, length: at.n}), rENOSPC)
			c.mustFail(c.do(rawRequest{cmd: rCmdTrim, offset: at.off, length: at.n}), rEINVAL)
			c.mustFail(c.do(rawRequest{cmd: rCmdCache, offset: at.off, length: at.n}), rEINVAL)
			c.mustFail(c.do(rawRequest{cmd: rCmdStatus, offset: at.off, length: at.n}), rEINVAL)
		}
		if got := d.took("read", "write", "zero", "discard"); len(got) > 0 {
			t.Errorf("device was asked %v", got)
		}
		c.mustOK(c.write(size-5, pattern(5, 1)))
		mustEqual(t, c.mustOK(c.read(size-5, 5)).data, pattern(5, 1), "the last bytes")
	})
}

func testErrorCodes(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	s := serveDevice(t, d)
	for _, test := range []struct {
		err  error
		want uint32
	}{
		{errors.New("whatever"), rEIO}, {block.Transient, rEIO}, {block.Corrupt, rEIO}, {block.NoSpace, rENOSPC},
		{syscall.EDQUOT, rENOSPC}, {syscall.EFBIG, rENOSPC}, {syscall.ENOSPC, rENOSPC}, {syscall.ENOMEM, rEIO},
		{block.ReadOnly, rEPERM}, {block.Permission, rEPERM}, {block.Fenced, rEPERM}, {block.Closed, rESHUTDOWN},
		{block.Invalid, rEINVAL}, {block.OutOfRange, rEINVAL}, {syscall.EIO, rEIO}, {block.Canceled, rEIO},
	} {
		d.setBefore(func(c call) error {
			if c.op == "write" || c.op == "read" {
				return test.err
			}
			return nil
		})
		inModes(t, func(t *testing.T, mode rawMode) {
			c := enter(t, s.addr, mode, "")
			c.mustFail(c.write(0, pattern(512, 1)), test.want)
			c.mustFail(c.read(0, 512), test.want)
			c.mustFail(c.read(0, 128<<10), test.want) // one that is examined for holes
		})
	}
}

// testErrorTexts: the reason reaches the client where replies have room for it,
// but not where the bytes lie.
func testErrorTexts(t *testing.T) {
	d := newDisk(1<<20, diskCaps)
	d.before = func(c call) error {
		if c.op != "write" {
			return nil
		}
		return block.Errorf(block.IO, c.op, "/images/disk", c.off, "pwrite /images/disk: %w", syscall.EREMOTEIO)
	}
	s := serveDevice(t, d)
	for _, mode := range []rawMode{structured, extended} {
		c := enter(t, s.addr, mode, "")
		rep := c.write(7, pattern(512, 1))
		c.mustFail(rep, rEIO)
		if want := "write: input/output error (remote I/O error)"; rep.text != want {
			t.Errorf("text %q, want %q", rep.text, want)
		}
		if rep := c.read(1<<30, 1); rep.text == "" {
			t.Error("no text for a read out of bounds")
		}
	}
}
