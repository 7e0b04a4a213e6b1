package nbd_test

import (
	"syscall"
	"testing"
)

// TestServerLargeWriteFails: one piece of a large write that fails fails the
// whole, once, and the connection goes on.
func TestServerLargeWriteFails(t *testing.T) {
	const size, failing = 1 << 20, 512 << 10
	inModes(t, func(t *testing.T, mode rawMode) {
		d := newDisk(4<<20, diskCaps)
		d.before = func(c call) error {
			if c.op == "write" && c.off == failing {
				return syscall.ENOSPC
			}
			return nil
		}
		c := enter(t, serveDevice(t, d).addr, mode, "")
		c.mustFail(c.write(0, pattern(size, 3)), rENOSPC)
		c.alive()
		c.mustOK(c.write(size, pattern(size, 4)))
		mustEqual(t, d.content(size, size), pattern(size, 4), "the next large write")
	})
}
