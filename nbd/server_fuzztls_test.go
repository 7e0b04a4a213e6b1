package nbd_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"sluice/nbd"
)

// loudConn is a fuzzConn that keeps what the server answers.
type loudConn struct {
	fuzzConn
	answers bytes.Buffer
}

func (c *loudConn) Write(p []byte) (int, error) { return c.answers.Write(p) }

// FuzzServerStartTLS: what comes in the clear behind STARTTLS is never answered
// in the clear, whatever it is, and what comes under TLS does no more harm than
// it does elsewhere.
func FuzzServerStartTLS(f *testing.F) {
	l := newTLSLab(f)
	client := l.client(f)
	servers := make(map[nbd.TLSMode]*nbd.Server)
	for _, mode := range []nbd.TLSMode{nbd.TLSOptional, nbd.TLSForced} {
		servers[mode] = fuzzServerOf(f, nbd.ServerConfig{TLS: l.server(f), TLSMode: mode})
	}
	hello := helloOf(client)
	f.Add(hello, []byte{})
	f.Add(hello[:len(hello)/2], []byte{})
	f.Add(cat(optHeader(rOptList, 0), hello), []byte{})
	f.Add(cat(optHeader(rOptGo, 7), infoData("x")), []byte{})
	for _, mode := range allModes {
		script, _ := conversation(mode)
		f.Add(cat(hello, script), script[4:]) // behind the client's flags
		f.Add([]byte{}, greetings()[mode][4:])
	}
	f.Add([]byte{22, 3, 1, 0xff, 0xff}, cat(optHeader(rOptStartTLS, 0), optHeader(rOptList, 0)))
	f.Fuzz(func(t *testing.T, plain, under []byte) {
		for mode, s := range servers {
			answers := startInTheClear(s, plain)
			if bytes.Contains(answers, be64(0x3e889045565a9)) {
				t.Errorf("mode %v: an option was answered in the clear: %x", mode, answers)
			}
			sayUnderTLS(t, s, client, under)
		}
	})
}

// helloOf is the first thing that a client says under TLS.
func helloOf(cfg *tls.Config) []byte {
	c := &loudConn{fuzzConn: fuzzConn{in: newPipe()}}
	c.in.closed = true
	_ = tls.Client(c, cfg).Handshake()
	return c.answers.Bytes()
}

// startInTheClear agrees on TLS, goes on in the clear, and returns what the
// server says after the agreement.
func startInTheClear(s *nbd.Server, plain []byte) []byte {
	c := &loudConn{fuzzConn: fuzzConn{in: newPipe()}}
	c.in.data, c.in.closed = cat(be32(3), optHeader(rOptStartTLS, 0), plain), true
	_ = s.ServeConn(c)
	return c.answers.Bytes()[18+20:] // the greeting and the acknowledgement
}

// sayUnderTLS starts TLS in order and says something under it.
func sayUnderTLS(t *testing.T, s *nbd.Server, cfg *tls.Config, script []byte) {
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- s.ServeConn(theirs) }()
	agreed := make([]byte, 18+20)
	if _, err := io.ReadFull(ours, agreed[:18]); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(cat(be32(3), optHeader(rOptStartTLS, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ours, agreed[18:]); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(ours, cfg)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, c)
	}()
	_, _ = c.Write(script) // the server may have had enough before its end
	_ = c.CloseWrite()
	<-heard
	_ = ours.Close()
	<-served
}
