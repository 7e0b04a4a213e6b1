package nbd

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/block"
)

func TestURI(t *testing.T) {
	tcp := func(host string, port uint16, export string) URI { return URI{Host: host, Port: port, Export: export} }
	cases := []struct {
		in   string
		want URI
		out  string // "" where it is in again
	}{
		{"nbd://example.com/disk", tcp("example.com", 10809, "disk"), ""},
		{"nbd://example.com", tcp("example.com", 10809, ""), ""},
		{"nbd://example.com/", tcp("example.com", 10809, ""), "nbd://example.com"},
		{"nbd://example.com//disk", tcp("example.com", 10809, "/disk"), ""},
		{"nbd://example.com/hello%20world", tcp("example.com", 10809, "hello world"), ""},
		{"nbd://example.com/a%2Fb/c", tcp("example.com", 10809, "a/b/c"), "nbd://example.com/a/b/c"},
		{"nbd://example.com:10810/disk", tcp("example.com", 10810, "disk"), ""},
		{"nbd://example.com:10809/disk", tcp("example.com", 10809, "disk"), "nbd://example.com/disk"},
		{"nbd:///disk", tcp("localhost", 10809, "disk"), "nbd://localhost/disk"},
		{"nbd://[::1]/x", tcp("::1", 10809, "x"), ""},
		{"nbd://[fe80::1%25eth0]:5/x", tcp("fe80::1%eth0", 5, "x"), ""},
		{"nbd://[fe80::1%25a%20%25b]/", tcp("fe80::1%a %b", 10809, ""), "nbd://[fe80::1%25a%20%25b]"},
		{"nbd://a%25b/x", tcp("a%b", 10809, "x"), ""},
		{"NBD://127.0.0.1/%C3%A4%3F%23", tcp("127.0.0.1", 10809, "ä?#"), "nbd://127.0.0.1/%C3%A4%3F%23"},
		{"nbds://u@h/x?tls-hostname=n", URI{TLS: true, User: "u", Host: "h", Port: 10809, Export: "x", TLSHostname: "n"}, ""},
		{"nbds://u:secret@h/x", URI{TLS: true, User: "u", Host: "h", Port: 10809, Export: "x"}, "nbds://u@h/x"},
		{"nbd+unix:///disk?socket=sock", URI{Socket: "sock", Export: "disk"}, ""},
		{"nbd+unix://?socket=/a%20b+c", URI{Socket: "/a b+c"}, "nbd+unix:///?socket=/a%20b%2Bc"},
		{"nbd+unix:///?socket=%00/abstract", URI{Socket: "\x00/abstract"}, ""},
		{"nbds+unix:///d?socket=s;tls-hostname=h&tls-verify-peer=0&tls-certificates=/pki", URI{TLS: true, Socket: "s", Export: "d",
			TLSHostname: "h", TLSNoVerify: true, TLSCertificates: "/pki"},
			"nbds+unix:///d?socket=s&tls-hostname=h&tls-certificates=/pki&tls-verify-peer=0"},
		{"nbd+unix:///d?socket=s&x-color=red&tls-type=x509&tls-verify-peer=1", URI{Socket: "s", Export: "d"}, "nbd+unix:///d?socket=s"},
	}
	for _, tc := range cases {
		got, err := ParseURI(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", tc.in, got, err)
			continue
		}
		want := tc.out
		if want == "" {
			want = tc.in
		}
		if got.String() != want {
			t.Errorf("%s is written as %s, want %s", tc.in, got, want)
		}
	}
}

func TestURIErrors(t *testing.T) {
	cases := []struct {
		in, text string
		kind     block.Kind
	}{
		{"http://x/y", `scheme "http"`, block.Invalid},
		{"/a/path", `scheme ""`, block.Invalid},
		{"nbd:unix:/sock", `is missing after "nbd:"`, block.Invalid},
		{"nbd+unix:///x", "needs the parameter socket=PATH", block.Invalid},
		{"nbd+unix://host/x?socket=s", `takes no host ("host")`, block.Invalid},
		{"nbd://h/x?socket=s", "needs the scheme nbd+unix", block.Invalid},
		{"nbd+unix:///x?socket=", "parameter socket", block.Invalid},
		{"nbd+unix:///x?socket=a%00b", "parameter socket", block.Invalid},
		{"nbd://h/x?colour=red", `unknown parameter "colour"`, block.Invalid},
		{"nbd://h/x?tls-hostname=a&tls-hostname=b", "tls-hostname is there twice", block.Invalid},
		{"nbds://h/x?tls-type=psk", "tls-type=psk is not supported", block.Unsupported},
		{"nbds://h/x?tls-type=anon", "tls-type=anon is not supported", block.Unsupported},
		{"nbds://h/x?tls-psk-file=f", "tls-type=psk is not supported", block.Unsupported},
		{"nbds://h/x?tls-type=magic", `"magic" is none of`, block.Invalid},
		{"nbds://h/x?tls-verify-peer=maybe", "neither 0 nor 1", block.Invalid},
		{"nbd://::1/x", `bad host "::1"`, block.Invalid},
		{"nbd://a:b:5/x", `bad host "a:b:5"`, block.Invalid},
		{"nbd://h:0/x", `bad port "0"`, block.Invalid},
		{"nbd://h:70000/x", `bad port "70000"`, block.Invalid},
		{"nbd://h/x#y", "fragment", block.Invalid},
		{"nbd://h/%00", "export name contains a NUL byte", block.Invalid},
		{"nbd://h/%ff", "export name is not UTF-8", block.Invalid},
		{"nbd://h/" + strings.Repeat("a", 4097), "export name longer than 4096 bytes", block.Invalid},
		{"nbd://h/%zz", "invalid URL escape", block.Invalid},
		{"nbd://user:secret@h:x/", "invalid port", block.Invalid},
	}
	for _, tc := range cases {
		_, err := ParseURI(tc.in)
		if block.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: kind %q: %v", tc.in, block.KindOf(err), err)
		}
	}
}

func TestURIAddress(t *testing.T) {
	for uri, want := range map[string][2]string{
		"nbd://[::1]/x":              {"tcp", "[::1]:10809"},
		"nbd+unix:///?socket=/a/b":   {"unix", "/a/b"},
		"nbd+unix:///?socket=%00abc": {"unix", "@abc"},
	} {
		u, err := ParseURI(uri)
		if err != nil || u.Network() != want[0] || u.Address() != want[1] {
			t.Errorf("%s: %s %s %v", uri, u.Network(), u.Address(), err)
		}
	}
}

// TestURIRoundTrip: what String writes ParseURI reads, whatever the names are.
func TestURIRoundTrip(t *testing.T) {
	name := rapid.StringOfN(rapid.RuneFrom([]rune("aZ0-._~/ ?#[]@!$&'()*+,;=%ä\t\n\"<>\\^`{|}")), 0, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		u := URI{TLS: rapid.Bool().Draw(t, "tls"), Export: name.Draw(t, "export"),
			TLSHostname: name.Draw(t, "hostname"), TLSNoVerify: rapid.Bool().Draw(t, "noverify")}
		if rapid.Bool().Draw(t, "unix") {
			u.Socket = "/" + name.Draw(t, "socket")
		} else {
			u.Host, u.Port = rapid.SampledFrom([]string{"h", "::1", "10.0.0.1"}).Draw(t, "host"), rapid.Uint16Min(1).Draw(t, "port")
		}
		got, err := ParseURI(u.String())
		if err != nil || got != u {
			t.Fatalf("%s is read as %+v (%v), was %+v", u, got, err, u)
		}
	})
}
