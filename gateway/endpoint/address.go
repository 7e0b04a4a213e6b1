package endpoint

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/block"
)

// maxSocketPath is the longest path of a unix socket that the kernel takes.
const maxSocketPath = 107

// Address is where to listen.
type Address struct {
	Network string // "unix" or "tcp"
	Path    string // unix: absolute
	Host    string // tcp: a name or an address, IPv6 without brackets
	Port    string // tcp: a number; "0" lets the system choose
}

// Parse reads unix:PATH or tcp:HOST:PORT. Its errors are of kind Invalid.
func Parse(s string) (Address, error) {
	network, rest, _ := strings.Cut(s, ":")
	switch network {
	case "unix":
		return Unix(rest)
	case "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil || host == "" {
			return Address{}, invalid(s, "not tcp:HOST:PORT (tcp:0.0.0.0:PORT or tcp:[::]:PORT listens everywhere)")
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return Address{}, invalid(s, "%q is not a port", port)
		}
		return Address{Network: "tcp", Host: host, Port: port}, nil
	}
	return Address{}, invalid(s, "neither unix:PATH nor tcp:HOST:PORT")
}

// Unix is the address of a unix socket. The path is made absolute, so that it
// means the same to clients in other folders.
func Unix(path string) (Address, error) {
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return Address{}, invalid("unix:"+path, "no path of a socket")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Address{}, invalid("unix:"+path, "%w", err)
	}
	if len(abs) > maxSocketPath {
		return Address{}, invalid("unix:"+path, "the path has %d bytes, a socket's can have %d", len(abs), maxSocketPath)
	}
	return Address{Network: "unix", Path: abs}, nil
}

func invalid(s, format string, args ...any) error {
	return block.Errorf(block.Invalid, "listen on", s, -1, "%w", fmt.Errorf(format, args...))
}

// String writes the address as Parse reads it.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Path
	}
	return "tcp:" + net.JoinHostPort(a.Host, a.Port)
}
