//go:build linux && (cgo || amd64)

package nbd

import (
	"testing"

	"github.com/pojntfx/go-nbd/pkg/ioctl"
)

// TestIoctlNumbers compares go-nbd's numbers of the kernel's NBD client with those
// of linux/nbd.h (_IO(0xab, n)). go-nbd takes them from the header with cgo, and
// has them written out, for amd64 alone, without.
func TestIoctlNumbers(t *testing.T) {
	for _, n := range []struct {
		name      string
		got, want int
	}{
		{"NBD_SET_SOCK", ioctl.NEGOTIATION_IOCTL_SET_SOCK, 0xab00},
		{"NBD_SET_BLKSIZE", ioctl.NEGOTIATION_IOCTL_SET_BLOCKSIZE, 0xab01},
		{"NBD_DO_IT", ioctl.NEGOTIATION_IOCTL_DO_IT, 0xab03},
		{"NBD_CLEAR_SOCK", ioctl.TRANSMISSION_IOCTL_CLEAR_SOCK, 0xab04},
		{"NBD_CLEAR_QUE", ioctl.TRANSMISSION_IOCTL_CLEAR_QUE, 0xab05},
		{"NBD_SET_SIZE_BLOCKS", ioctl.NEGOTIATION_IOCTL_SET_SIZE_BLOCKS, 0xab07},
		{"NBD_DISCONNECT", ioctl.TRANSMISSION_IOCTL_DISCONNECT, 0xab08},
		{"NBD_SET_TIMEOUT", ioctl.NEGOTIATION_IOCTL_SET_TIMEOUT, 0xab09},
	} {
		if n.got != n.want {
			t.Errorf("%s is %#x, want %#x", n.name, n.got, n.want)
		}
	}
}
