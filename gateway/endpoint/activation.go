package endpoint

import (
	"net"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"

	"sluice/block"
)

// Activated gives the listening sockets that a service manager (or libnbd, which
// speaks the same protocol) handed to this process in LISTEN_FDS, none when there
// are none. It can be called once: the sockets are the caller's.
func Activated() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, block.Wrap(err, "take the sockets in", "LISTEN_FDS", -1)
	}
	for i, l := range listeners {
		if l == nil {
			for _, other := range listeners {
				if other != nil {
					_ = other.Close()
				}
			}
			return nil, block.Errorf(block.Invalid, "take the sockets in", "LISTEN_FDS", -1,
				"descriptor %s is not a listening socket", strconv.Itoa(3+i))
		}
	}
	return listeners, nil
}
