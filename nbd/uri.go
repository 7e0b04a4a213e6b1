package nbd

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"sluice/block"
)

// DefaultPort is the TCP port that IANA gave to NBD.
const DefaultPort = 10809

// URI is a parsed NBD URI (doc/uri.md beside proto.md): where a server listens,
// the export's name, and how TLS is to be used.
type URI struct {
	// TLS is true for nbds and nbds+unix: the connection fails where it cannot
	// be encrypted.
	TLS bool

	// Socket is the path of the unix socket; empty means TCP. An abstract
	// socket's name begins with a NUL byte.
	Socket string

	// Host and Port name a TCP server. Host is a name or an address, IPv6
	// without its brackets; ParseURI fills in "localhost" and DefaultPort.
	Host string
	Port uint16

	// User is the user's name in the authority, which only pre-shared keys
	// need; the password is never kept.
	User string

	// Export is the export's name: the path without its first slash, decoded.
	Export string

	// TLSHostname replaces Host where the server's certificate is checked. A
	// unix socket has no other name.
	TLSHostname string

	// TLSCertificates is a folder with ca-cert.pem and, for servers that ask
	// for it, client-cert.pem and client-key.pem, as libnbd lays them out.
	TLSCertificates string

	// TLSNoVerify is set by tls-verify-peer=0: the server's certificate is not
	// checked.
	TLSNoVerify bool
}

// ParseURI reads an NBD URI of the schemes nbd, nbds, nbd+unix and nbds+unix.
// Parameters that begin with x- are ignored; other unknown ones are an error
// that names them, as are tls-type=anon and tls-type=psk, which Go's TLS cannot
// do. Errors are of kind block.Invalid or block.Unsupported.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		e, ok := err.(*block.Error)
		if !ok {
			e = block.Errorf(block.Invalid, "", "", -1, "%w", err)
		}
		e.Op, e.Object = "parse NBD URI", clientRedact(s)
		return URI{}, e
	}
	return u, nil
}

// clientRedact takes a password out of what may be a URI, so that it can stand
// in a message.
func clientRedact(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return s
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	return scheme + "://" + user + rest[at:]
}

func parseURI(s string) (URI, error) {
	parsed, err := url.Parse(s)
	if err != nil {
		if ue, ok := err.(*url.Error); ok {
			err = ue.Err // without the text, which may hold a password
		}
		return URI{}, err
	}
	var u URI
	unix := false
	switch parsed.Scheme {
	case "nbd":
	case "nbds":
		u.TLS = true
	case "nbd+unix":
		unix = true
	case "nbds+unix":
		u.TLS, unix = true, true
	default:
		return URI{}, fmt.Errorf("scheme %q is none of nbd, nbds, nbd+unix and nbds+unix", parsed.Scheme)
	}
	if parsed.Opaque != "" {
		return URI{}, fmt.Errorf("//HOST or ///NAME is missing after %q", parsed.Scheme+":")
	}
	if parsed.Fragment != "" {
		return URI{}, fmt.Errorf("a fragment (#) has no meaning in it")
	}
	u.Export = strings.TrimPrefix(parsed.Path, "/")
	if err := checkString(u.Export); err != nil {
		return URI{}, fmt.Errorf("export name %w", err)
	}
	if parsed.User != nil {
		u.User = parsed.User.Username()
	}
	if err := u.parseQuery(parsed.RawQuery); err != nil {
		return URI{}, err
	}
	return u, u.parseAuthority(parsed, unix)
}

func (u *URI) parseAuthority(parsed *url.URL, unix bool) error {
	switch {
	case unix && u.Socket == "":
		return fmt.Errorf("%s needs the parameter socket=PATH", parsed.Scheme)
	case unix && parsed.Host != "":
		return fmt.Errorf("%s takes no host (%q); write %s:///NAME?socket=PATH", parsed.Scheme, parsed.Host, parsed.Scheme)
	case unix:
		return nil
	case u.Socket != "":
		return fmt.Errorf("parameter socket needs the scheme %s+unix", parsed.Scheme)
	}
	if strings.Count(parsed.Host, ":") > 1 && parsed.Host[0] != '[' {
		return fmt.Errorf("bad host %q: an IPv6 address stands in [brackets]", parsed.Host)
	}
	u.Host, u.Port = parsed.Hostname(), DefaultPort
	if u.Host == "" {
		u.Host = "localhost"
	}
	if port := parsed.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("bad port %q", port)
		}
		u.Port = uint16(n)
	}
	return nil
}

// parseQuery reads the parameters. A plus sign stands for itself: the query is
// RFC 3986's, not that of an HTML form.
func (u *URI) parseQuery(raw string) error {
	seen := map[string]bool{}
	for _, part := range strings.FieldsFunc(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, err := url.PathUnescape(rawName)
		if err != nil {
			return err
		}
		value, err := url.PathUnescape(rawValue)
		if err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
		if strings.HasPrefix(name, "x-") {
			continue
		}
		if seen[name] {
			return fmt.Errorf("parameter %s is there twice", name)
		}
		seen[name] = true
		if err := u.setParam(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) setParam(name, value string) error {
	switch name {
	case "socket":
		if strings.Trim(value, "\x00") == "" || strings.IndexByte(value[1:], 0) >= 0 {
			return fmt.Errorf("parameter socket: not a socket's path")
		}
		u.Socket = value
	case "tls-type":
		return clientCheckTLSType(value)
	case "tls-hostname":
		u.TLSHostname = value
	case "tls-certificates":
		u.TLSCertificates = value
	case "tls-verify-peer":
		switch strings.ToLower(value) {
		case "0", "false":
			u.TLSNoVerify = true
		case "1", "true":
		default:
			return fmt.Errorf("parameter tls-verify-peer: %q is neither 0 nor 1", value)
		}
	case "tls-psk-file":
		return clientCheckTLSType("psk")
	default:
		return fmt.Errorf("unknown parameter %q", name)
	}
	return nil
}

func clientCheckTLSType(value string) error {
	switch value {
	case "x509":
		return nil
	case "anon", "psk":
		return block.Errorf(block.Unsupported, "", "", -1,
			"tls-type=%s is not supported, only x509 (certificates): Go's TLS has no %s key exchange", value, value)
	}
	return fmt.Errorf("parameter tls-type: %q is none of anon, x509 and psk", value)
}

// Scheme is nbd, nbds, nbd+unix or nbds+unix.
func (u URI) Scheme() string {
	scheme := "nbd"
	if u.TLS {
		scheme = "nbds"
	}
	if u.Socket != "" {
		scheme += "+unix"
	}
	return scheme
}

// Network and Address are what net.Dial wants.
func (u URI) Network() string {
	if u.Socket != "" {
		return "unix"
	}
	return "tcp"
}

// Address is the socket's path (Go's form, @NAME, for an abstract one) or
// HOST:PORT.
func (u URI) Address() string {
	if u.Socket == "" {
		return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
	}
	if u.Socket[0] == 0 {
		return "@" + u.Socket[1:]
	}
	return u.Socket
}

// String writes the URI so that ParseURI reads the same value.
func (u URI) String() string {
	var b strings.Builder
	b.WriteString(u.Scheme())
	b.WriteString("://")
	if u.Socket == "" {
		u.writeAuthority(&b)
	}
	if u.Export != "" || u.Socket != "" {
		b.WriteByte('/')
		b.WriteString(clientEscape(u.Export))
	}
	sep := byte('?')
	param := func(name, value string) {
		if value != "" {
			b.WriteByte(sep)
			b.WriteString(name + "=" + clientEscape(value))
			sep = '&'
		}
	}
	param("socket", u.Socket)
	param("tls-hostname", u.TLSHostname)
	param("tls-certificates", u.TLSCertificates)
	if u.TLSNoVerify {
		param("tls-verify-peer", "0")
	}
	return b.String()
}

func (u URI) writeAuthority(b *strings.Builder) {
	if u.User != "" {
		b.WriteString(url.User(u.User).String() + "@")
	}
	host := strings.NewReplacer("%", "%25", " ", "%20").Replace(u.Host)
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	b.WriteString(host)
	if u.Port != 0 && u.Port != DefaultPort {
		b.WriteString(":" + strconv.Itoa(int(u.Port)))
	}
}

// clientEscape percent-codes everything but RFC 3986's unreserved characters
// and the slash, which need it neither in a path nor in a query.
func clientEscape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
