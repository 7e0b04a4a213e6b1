package nbd_test

import (
	"testing"

	"sluice/block"
)

// Requests that are in work at the same time.

func testCookies(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		c := enter(t, serveDevice(t, newMem(t, 1<<20)).addr, mode, "")
		for _, cookie := range []uint64{0, 1, 1<<64 - 1, 0x2560951325609513, 0} {
			for _, req := range []rawRequest{{cmd: rCmdRead, length: 8}, {cmd: rCmdFlush}, {cmd: 99}} {
				c.reads[cookie] = uint32(req.length)
				if req.cmd != rCmdRead {
					delete(c.reads, cookie)
				}
				c.send(c.header(req, cookie))
				if ch := c.chunk(0); ch.cookie != cookie {
					t.Errorf("cookie %#x came back as %#x", cookie, ch.cookie)
				}
			}
		}
		// The same cookie twice at a time is the client's own affair.
		c.send(append(c.header(rawRequest{cmd: rCmdFlush}, 5), c.header(rawRequest{cmd: rCmdFlush}, 5)...))
		if a, b := c.chunk(0), c.chunk(0); a.cookie != 5 || b.cookie != 5 {
			t.Errorf("cookies %d and %d", a.cookie, b.cookie)
		}
	})
}

// testOutOfOrder: requests are in the device at the same time, and answered in
// the order in which they are done.
func testOutOfOrder(t *testing.T) {
	inModes(t, func(t *testing.T, mode rawMode) {
		const n = 16
		d := newDisk(1<<20, diskCaps)
		release := make([]chan struct{}, n)
		for i := range release {
			release[i] = make(chan struct{})
		}
		d.before = func(c call) error {
			if c.op == "read" {
				<-release[c.off/4096]
			}
			return nil
		}
		copy(d.data, pattern(1<<20, 1))
		c := enter(t, serveDevice(t, d).addr, mode, "")
		var cookies [n]uint64
		for i := range cookies {
			cookies[i] = c.start(rawRequest{cmd: rCmdRead, offset: uint64(i) << 12, length: 4096})
		}
		waitFor(t, "all reads in the device", func() bool { return len(d.took("read")) == n })
		for i := n - 1; i >= 0; i-- {
			close(release[i])
			req := rawRequest{cmd: rCmdRead, offset: uint64(i) << 12, length: 4096}
			mustEqual(t, c.finish(cookies[i], req).data, d.data[i<<12:(i+1)<<12], "read")
		}
	})
}

// testOvertake: a stalled 32 MiB read holds up neither reads that are at hand
// nor ones that have to wait for the device, nor writes or flushes.
func testOvertake(t *testing.T) {
	for _, nowait := range []bool{false, true} {
		inModes(t, func(t *testing.T, mode rawMode) {
			caps := diskCaps
			if nowait {
				caps |= block.CapNowait
			}
			d := newDisk(33<<20, caps)
			d.nowait = nowait
			release := make(chan struct{})
			d.before = func(c call) error {
				if c.op == "read" && c.n > 1<<20 {
					<-release
				}
				return nil
			}
			c := enter(t, serveDevice(t, d).addr, mode, "")
			large := rawRequest{cmd: rCmdRead, length: 32 << 20}
			cookie := c.start(large)
			waitFor(t, "the large read", func() bool { return len(d.took("read")) == 1 })
			for i := range uint64(100) {
				c.mustOK(c.read(32<<20+i, 4096))
			}
			c.mustOK(c.write(32<<20, pattern(4096, 1)))
			c.mustOK(c.flush())
			c.mustOK(c.do(rawRequest{cmd: rCmdZeroes, offset: 32 << 20, length: 4096}))
			close(release)
			c.mustOK(c.finish(cookie, large))
		})
	}
}

// testReadPastWrites: nor do stalled writes, on a device that takes them one by
// one.
func testReadPastWrites(t *testing.T) {
	d := newDisk(1<<20, diskCaps|block.CapSerialWrites)
	release := d.hold("write")
	c := enter(t, serveDevice(t, d).addr, structured, "")
	cookies := map[uint64]bool{}
	for i := range uint64(20) {
		cookies[c.start(rawRequest{cmd: rCmdWrite, offset: i << 12, payload: pattern(4096, byte(i))})] = true
	}
	for range 50 {
		c.mustOK(c.read(1<<19, 4096))
	}
	if n := len(d.took("write")); n > 1 {
		t.Errorf("%d writes at a time on a device that orders them", n)
	}
	close(release)
	for range 20 {
		if ch := c.chunk(0); ch.err != 0 || !cookies[ch.cookie] {
			t.Errorf("reply %+v", ch)
		}
	}
	for i := range 20 {
		mustEqual(t, d.content(i<<12, 4096), pattern(4096, byte(i)), "device")
	}
}
