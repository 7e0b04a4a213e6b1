package nbd

import (
	"bytes"
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"

	"sluice/block"
)

// FuzzParseURI: whatever text is parsed, what is written of it is read as the same,
// and an error has a kind.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"nbd://example.com/disk", "nbd://h//a%2Fb", "nbd:///x", "nbd://[fe80::1%25eth0]:5/x", "nbds://u:p@h:1/%C3%A4?tls-hostname=n",
		"nbd+unix:///d?socket=%00a", "nbds+unix:///d?socket=s;tls-verify-peer=0&tls-certificates=/pki&x-a=b", "nbd://a%25b/",
		"nbd:unix:/s:exportname=x", "nbd://h/x#y", "nbd+unix:///?socket=/a b+c&socket=d",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if kind := block.KindOf(err); kind != block.Invalid && kind != block.Unsupported {
				t.Fatalf("kind %q: %v", kind, err)
			}
			return
		}
		again, err := ParseURI(u.String())
		if err != nil || again != u {
			t.Fatalf("%q is %+v, written as %q, read as %+v (%v)", s, u, u, again, err)
		}
		if u.Address() == "" || (u.Socket == "") != (u.Network() == "tcp") {
			t.Fatalf("%q: network %q, address %q", s, u.Network(), u.Address())
		}
	})
}

// scriptConn is a connection to a server that has said all it has to say, and
// listens to nothing.
type scriptConn struct{ bytes.Reader }

func (c *scriptConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "fuzz", Net: "unix"} }
func (c *scriptConn) RemoteAddr() net.Addr             { return c.LocalAddr() }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzClientHandshake feeds bytes to the client as all that a server says before
// the transmission phase, to a Dial, with and without TLS, and to a List. Whatever
// they are, it must come to an end, promise nothing impossible, and not allocate by
// what the bytes claim.
func FuzzClientHandshake(f *testing.F) {
	for _, script := range handshakeScripts() {
		for kind := range handshakeKinds {
			f.Add(byte(kind), script)
			f.Add(byte(kind), script[:len(script)-1])
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, input []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fuzzHandshake(t, int(kind)%handshakeKinds, input)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20+256*uint64(len(input)) {
			t.Fatalf("%d bytes of input made the client allocate %d", len(input), grown)
		}
	})
}

const handshakeKinds = 3 // a Dial, a List, a Dial with TLS

func fuzzHandshake(t *testing.T, kind int, input []byte) {
	conn := new(scriptConn)
	conn.Reset(input)
	var secure *tls.Config
	if kind == 2 {
		secure = &tls.Config{InsecureSkipVerify: true}
	}
	h, err := clientOpenHandshake(background, conn, secure)
	if err != nil {
		return
	}
	if secure != nil {
		t.Fatal("went on in the clear")
	}
	c := &Client{cfg: ClientConfig{MetaContexts: []string{ContextAllocation, ContextDepth, ContextDirty + "b"}}}
	c.cfg.setDefaults()
	c.target.uri.Export = "disk"
	if kind == 1 {
		list, err := h.listAll(&c.cfg)
		for _, e := range list {
			if checkString(e.Name) != nil || e.Size < 0 || err != nil {
				t.Fatalf("listed %+v, %v", e, err)
			}
		}
		return
	}
	link, info, err := c.negotiate(h)
	if err == nil {
		err = c.resolve(info)
	}
	if err != nil {
		return
	}
	b := c.resolved.Block
	if c.resolved.Size < 0 || b.Min < 1 || b.Min&(b.Min-1) != 0 || b.Preferred < b.Min || c.resolved.Size%b.Min != 0 ||
		c.maxPayload < b.Min || c.maxPayload > maxPayload || c.maxPayload%b.Min != 0 || len(link.mode.contexts) > 3 {
		t.Fatalf("promises %+v with payloads up to %d and contexts %v", c.resolved, c.maxPayload, link.mode.contexts)
	}
}

// handshakeScripts is what honest servers say, and some that are not.
func handshakeScripts() map[string][]byte {
	hello := func(flags uint16) []byte {
		p := be.AppendUint64(be.AppendUint64(nil, magicNBD), magicOption)
		return be.AppendUint16(p, flags)
	}
	const modern = handshakeFixedNewstyle | handshakeNoZeroes
	export := be.AppendUint16(be.AppendUint64(nil, 1<<20), uint16(fakeFlags))
	return map[string][]byte{
		"oldstyle":    append(be.AppendUint64(be.AppendUint64(nil, magicNBD), clientOldstyleMagic), make([]byte, 136)...),
		"not fixed":   append(append(hello(0), export...), make([]byte, 124)...),
		"extended":    append(hello(modern), answers(true, optExtendedHeaders)...),
		"structured":  append(hello(modern), answers(true, optStructuredReply)...),
		"listing":     append(hello(modern), answers(false, optList)...),
		"secure":      append(append(hello(modern), optionAnswer(optStartTLS, repAck, "")...), 22, 3, 3, 0, 4, 2, 0, 0, 0),
		"agreed":      append(hello(modern), optionAnswer(optStartTLS, repAck, "")...),
		"far promise": append(append(hello(modern), optionAnswer(optExtendedHeaders, repAck, "")[:16]...), 0xff, 0xff, 0xff, 0xff),
	}
}

// answers is what a server says to a Dial or a List, with the widest form of
// headers that it knows.
func answers(dial bool, widest option) []byte {
	var p []byte
	say := func(opt option, typ optionReply, data string) { p = append(p, optionAnswer(opt, typ, data)...) }
	word := func(v uint32) string { return string(be.AppendUint32(nil, v)) }
	if widest != optExtendedHeaders {
		say(optExtendedHeaders, repErrUnsupported, "not here")
	} else {
		say(optExtendedHeaders, repAck, "")
	}
	if widest == optStructuredReply || widest == optList {
		say(optStructuredReply, repAck, "")
	}
	query, enter := optSetMetaContext, optGo
	if !dial {
		query, enter = optListMetaContext, optInfo
		say(optList, repServer, word(4)+"disk"+"about it")
		say(optList, repAck, "")
	} else {
		say(query, repMetaContext, word(1)+ContextAllocation)
		say(query, repMetaContext, word(2)+ContextDepth)
		say(query, repAck, "")
	}
	size := be.AppendUint64([]byte{0, byte(infoExport)}, 1<<20)
	say(enter, repInfo, string(be.AppendUint16(size, uint16(fakeFlags))))
	say(enter, repInfo, "\x00\x01name")
	say(enter, repInfo, "\x00\x02description")
	say(enter, repInfo, "\x00\x03"+word(512)+word(4096)+word(32<<20))
	say(enter, repAck, "")
	if !dial {
		say(query, repMetaContext, word(0)+ContextAllocation)
		say(query, repAck, "")
		say(optAbort, repAck, "")
	}
	return p
}

func optionAnswer(opt option, typ optionReply, data string) []byte {
	p := be.AppendUint64(nil, magicOptionReply)
	p = be.AppendUint32(be.AppendUint32(p, uint32(opt)), uint32(typ))
	return append(be.AppendUint32(p, uint32(len(data))), data...)
}
