package endpoint

import (
	"net"
	"strconv"
	"strings"
)

// URI is the NBD URI of an export at the listener's address: what a client has
// to be given to find it.
func URI(addr net.Addr, export string, tls bool) string {
	scheme := "nbd"
	if tls {
		scheme = "nbds"
	}
	if addr.Network() == "unix" {
		return scheme + "+unix:///" + escape(export) + "?socket=" + escape(addr.String())
	}
	return scheme + "://" + hostOf(addr) + "/" + escape(export)
}

// hostOf gives HOST:PORT. A server that listens everywhere is named by an
// address at which this machine reaches itself.
func hostOf(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	ip := t.IP
	switch {
	case ip == nil || ip.Equal(net.IPv6unspecified):
		ip = net.IPv6loopback
	case ip.IsUnspecified():
		ip = net.IPv4(127, 0, 0, 1)
	}
	host := ip.String()
	if t.Zone != "" {
		host += "%25" + t.Zone
		return "[" + host + "]:" + strconv.Itoa(t.Port)
	}
	return net.JoinHostPort(host, strconv.Itoa(t.Port))
}

// escape percent-codes everything but RFC 3986's unreserved characters and the
// slash, which need it neither in a path nor in a query.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
