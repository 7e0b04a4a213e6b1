package nbd_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"testing"

	"sluice/internal/lab"
	"sluice/nbd"
)

// CHECKLIST.md N29 and N40 to N47: TLS.

var tlsTests = []serverTest{
	{"N29_state_forgotten", testTLSForgets},
	{"N29_plaintext_injection", testPlaintextInjection},
	{"N29_plaintext_injection_in_one_segment", testInjectedOption},
	{"N40_modes", testTLSModes},
	{"N41_forced", testForcedTLS},
	{"N42_selective", testSelectiveTLS},
	{"N43_starttls_twice_or_with_data", testStartTLSInvalid},
	{"N43_not_offered", testNoTLS},
	{"N44_versions", testTLSVersions},
	{"N44_client_certificates", testClientCertificates},
	{"N44_authorities_not_named", testNoAuthorities},
	{"N44_purpose_of_certificate", testCertificatePurpose},
	{"N44_own_verification", testOwnVerification},
	{"N44_certificate_if_given", testCertificateIfGiven},
	{"N44_names_to_exports", testCommonNames},
	{"N44_transmission", testTLSTransmission},
	{"N47_unix_socket_hostname", testTLSHostname},
	{"N09_close_notify", testCloseNotify},
	{"N10_shutdown_drains_tls", testTLSDrain},
}

// tlsLab is a CA with a server's certificate for localhost and a client's with
// the common name "client".
type tlsLab struct {
	pki  *lab.PKI
	pool *x509.CertPool
}

func newTLSLab(t testing.TB) *tlsLab {
	t.Helper()
	l := &tlsLab{pki: lab.Certs(t), pool: x509.NewCertPool()}
	ca, err := os.ReadFile(l.pki.Path("ca-cert.pem"))
	if err != nil || !l.pool.AppendCertsFromPEM(ca) {
		t.Fatalf("CA: %v", err)
	}
	return l
}

func (l *tlsLab) pair(t testing.TB, role string) []tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(l.pki.Path(role+"-cert.pem"), l.pki.Path(role+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{pair}
}

// server is a configuration that verifies clients.
func (l *tlsLab) server(t testing.TB) *tls.Config {
	return &tls.Config{Certificates: l.pair(t, "server"), ClientCAs: l.pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func (l *tlsLab) client(t testing.TB) *tls.Config {
	return &tls.Config{Certificates: l.pair(t, "client"), RootCAs: l.pool, ServerName: "localhost"}
}

// serveTLS serves the exports "open", "secret" (to the common name "client"
// alone) and the default one.
func serveTLS(t testing.TB, l *tlsLab, mode nbd.TLSMode) *testServer {
	t.Helper()
	s := serveWith(t, nbd.ServerConfig{TLS: l.server(t), TLSMode: mode},
		&nbd.Export{Device: bitmapDisk()}, &nbd.Export{Name: "open", Device: newMem(t, 1<<20)},
		&nbd.Export{Name: "secret", Device: newMem(t, 1<<20)})
	allow := nbd.AllowCommonNames("client")
	s.exports.Authorize = func(name string, peer nbd.Peer) error {
		if name == "secret" {
			return allow(name, peer)
		}
		return nil
	}
	return s
}

func testTLSForgets(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSOptional)
	c := dial(t, s.addr)
	c.negotiate(structured)
	c.setMeta("", qAllocation)
	c.startTLS(l.client(t))
	c.mustAnswer(rOptSetMeta, metaData("", qAllocation), rErrInvalid) // structured replies are off
	c.goExport("")
	if c.info.flags&(rDF|rStatusPayload) != 0 {
		t.Errorf("flags %#x after STARTTLS", c.info.flags)
	}
	c.mustOK(c.read(0, 512)) // answered by a simple reply
	// Contexts are forgotten even if structured replies are agreed on anew.
	c = dial(t, s.addr)
	c.negotiate(structured)
	c.setMeta("", qAllocation)
	c.startTLS(l.client(t))
	c.negotiate(structured)
	c.goExport("")
	c.mustFail(c.do(rawRequest{cmd: rCmdStatus, length: 512}), rEINVAL)
	// So are extended headers.
	c = dial(t, s.addr)
	c.negotiate(extended)
	c.startTLS(l.client(t))
	c.mustAck(rOptStructured, nil)
}

// testPlaintextInjection: what an attacker puts behind STARTTLS in the clear is
// not taken for an option of the client's.
func testPlaintextInjection(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSOptional)
	c := dial(t, s.addr)
	c.send(cat(optHeader(rOptStartTLS, 0), optHeader(rOptList, 0)))
	if all := c.optReplies(rOptStartTLS); all[len(all)-1].typ != rRepAck {
		t.Fatalf("STARTTLS: %v", all)
	}
	c.extend()
	if err := c.shakeHands(l.client(t)); err == nil {
		t.Error("TLS began after bytes in the clear")
	}
}

// testInjectedOption: an option that arrives together with the client's first
// TLS record ends the connection too.
func testInjectedOption(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSOptional)
	c := dial(t, s.addr)
	c.mustAck(rOptStartTLS, nil)
	ours, theirs := net.Pipe()
	hello := make(chan []byte, 1)
	go func() {
		p := make([]byte, 4096)
		n, _ := theirs.Read(p)
		hello <- p[:n]
		_ = theirs.Close()
	}()
	_ = tls.Client(ours, l.client(t)).Handshake()
	_ = ours.Close()
	c.send(cat(optHeader(rOptExtended, 0), <-hello))
	p, _ := io.ReadAll(c.r) // at most a TLS alert
	if len(p) >= 8 && u64(p) == 0x3e889045565a9 {
		t.Errorf("server answered an option in the clear: %x", p)
	}
}

func testTLSModes(t *testing.T) {
	l := newTLSLab(t)
	for _, mode := range []nbd.TLSMode{nbd.TLSOptional, nbd.TLSForced} {
		s := serveTLS(t, l, mode)
		c := dial(t, s.addr)
		c.startTLS(l.client(t))
		c.negotiate(extended)
		c.goExport("secret")
		c.mustOK(c.write(0, pattern(100000, 1)))
		mustEqual(t, c.mustOK(c.read(0, 100000)).data, pattern(100000, 1), "read")
	}
}

func testForcedTLS(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	c := dial(t, s.addr)
	for _, opt := range []uint32{rOptList, rOptStructured, rOptExtended, 99} {
		c.mustAnswer(opt, nil, rErrTLSReqd)
	}
	c.mustAnswer(rOptList, []byte{1}, rErrTLSReqd)
	for _, opt := range []uint32{rOptInfo, rOptGo} {
		c.mustAnswer(opt, infoData("open"), rErrTLSReqd)
		c.mustAnswer(opt, infoData("nobody"), rErrTLSReqd)
	}
	c.mustAnswer(rOptSetMeta, metaData("", qAllocation), rErrTLSReqd)
	c.mustAck(rOptAbort, nil)
	c.mustClose()
	c = dial(t, s.addr)
	c.send(cat(optHeader(rOptExportName, 4), []byte("open")))
	c.mustClose()
	c = connect(t, s.addr)
	c.send(be32(0)) // plain newstyle has no way to TLS
	c.send(cat(optHeader(rOptExportName, 4), []byte("open")))
	c.mustClose()
}

func testSelectiveTLS(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSOptional)
	c := dial(t, s.addr)
	c.negotiate(structured)
	if all := c.ask(rOptList, nil); len(all) != 3 {
		t.Errorf("LIST in the clear: %v", all)
	}
	for _, opt := range []uint32{rOptInfo, rOptGo} {
		c.mustAnswer(opt, infoData("secret"), rErrTLSReqd)
		c.mustAnswer(opt, infoData("nobody"), rErrTLSReqd)
	}
	// TLS_REQD is for INFO and GO alone.
	c.mustAnswer(rOptSetMeta, metaData("secret", qAllocation), rErrPolicy)
	c.mustAnswer(rOptListMeta, metaData("nobody"), rErrUnknown)
	c.mustAnswer(99, nil, rErrUnsup)
	c.goExport("open")
	c.alive()
	c = dial(t, s.addr)
	c.send(cat(optHeader(rOptExportName, 6), []byte("secret")))
	c.mustClose()
	c = dial(t, s.addr)
	c.startTLS(l.client(t))
	if all := c.ask(rOptList, nil); len(all) != 4 {
		t.Errorf("LIST under TLS: %v", all)
	}
	c.mustAnswer(rOptGo, infoData("nobody"), rErrUnknown)
	c.goExport("secret")
	c.alive()
}

func testStartTLSInvalid(t *testing.T) {
	l := newTLSLab(t)
	for _, mode := range []nbd.TLSMode{nbd.TLSOptional, nbd.TLSForced} {
		s := serveTLS(t, l, mode)
		c := dial(t, s.addr)
		c.mustAnswer(rOptStartTLS, []byte{1}, rErrInvalid)
		c.startTLS(l.client(t))
		c.mustAnswer(rOptStartTLS, nil, rErrInvalid)
		c.goExport("open")
		c.alive()
	}
}

func testNoTLS(t *testing.T) {
	s := serveDevice(t, newMem(t, 1<<20))
	c := dial(t, s.addr)
	c.mustAnswer(rOptStartTLS, nil, rErrPolicy)
	c.mustAnswer(rOptGo, infoData("nobody"), rErrUnknown)
	c.goExport("")
	c.alive()
}

func testTLSVersions(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	for version, good := range map[uint16]bool{
		tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true,
	} {
		cfg := l.client(t)
		cfg.MinVersion, cfg.MaxVersion = version, version
		c := dial(t, s.addr)
		c.mustAck(rOptStartTLS, nil)
		if err := c.shakeHands(cfg); (err == nil) != good {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		} else if good {
			c.goExport("open")
		}
	}
}

// testTLSTransmission: large and small requests, many under way.
func testTLSTransmission(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	c := dial(t, s.addr)
	c.startTLS(l.client(t))
	c.negotiate(structured)
	c.goExport("open")
	want := pattern(1<<20, 7)
	c.mustOK(c.write(0, want))
	var reqs []rawRequest
	byCookie := map[uint64]rawRequest{}
	for i := range uint64(40) {
		reqs = append(reqs, rawRequest{cmd: rCmdRead, offset: i * 4096, length: 1 << (9 + i%11)})
	}
	for _, req := range reqs {
		byCookie[c.start(req)] = req
	}
	for range reqs {
		ch := c.chunk(0)
		req := byCookie[ch.cookie]
		rep := c.assemble(req, []rawChunk{ch})
		mustEqual(t, rep.data, want[req.offset:req.offset+req.length], "read")
	}
}

// testTLSHostname: on a unix socket the name to verify is the client's choice.
func testTLSHostname(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	cfg := l.client(t)
	cfg.ServerName = "127.0.0.1"
	c := dial(t, s.addr)
	c.startTLS(cfg)
	cfg = l.client(t)
	cfg.ServerName = "elsewhere"
	c = dial(t, s.addr)
	c.mustAck(rOptStartTLS, nil)
	if err := c.shakeHands(cfg); err == nil {
		t.Error("a certificate for another host was taken")
	}
}

// testCloseNotify: a soft disconnect ends TLS in order, so that the client can
// tell it from a cut.
func testCloseNotify(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	for name, end := range map[string]func(c *rawClient){
		"ABORT": func(c *rawClient) { c.mustAck(rOptAbort, nil) },
		"DISC":  func(c *rawClient) { c.goExport("open"); c.start(rawRequest{cmd: rCmdDisc}) },
	} {
		c := dial(t, s.addr)
		c.mustAck(rOptStartTLS, nil)
		below := &tapConn{Conn: c.conn}
		c.conn = below
		if err := c.shakeHands(l.client(t)); err != nil {
			t.Fatal(err)
		}
		end(c)
		c.mustClose()
		// The last record that came is an alert (21; under TLS 1.3 it is dressed
		// as data, but has the length of one).
		if rec := below.lastRecord(); len(rec) == 0 || rec[0] != 21 && len(rec) != 5+2+1+16 {
			t.Errorf("%s: last record %x is no alert", name, rec)
		}
	}
}

// tapConn keeps what it received.
type tapConn struct {
	net.Conn
	got []byte
}

func (c *tapConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got = append(c.got, p[:n]...)
	return n, err
}

// lastRecord gives the last TLS record.
func (c *tapConn) lastRecord() []byte {
	var last []byte
	for p := c.got; len(p) >= 5; {
		n := min(5+int(be16(p[3:])), len(p))
		last, p = p[:n], p[n:]
	}
	return last
}

func testTLSDrain(t *testing.T) {
	l := newTLSLab(t)
	release := make(chan struct{})
	d := newDisk(1<<20, diskCaps)
	d.before = func(c call) error {
		if c.op == "write" {
			<-release
		}
		return nil
	}
	s := serveWith(t, nbd.ServerConfig{TLS: l.server(t), TLSMode: nbd.TLSForced}, &nbd.Export{Device: d})
	c := dial(t, s.addr)
	c.startTLS(l.client(t))
	c.negotiate(structured)
	c.goExport("")
	req := rawRequest{cmd: rCmdWrite, payload: pattern(4096, 1)}
	cookie := c.start(req)
	waitFor(t, "the write", func() bool { return len(d.took("write")) == 1 })
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	waitFor(t, "the drain", func() bool {
		_, err := net.Dial(s.addr.Network(), s.addr.String())
		return err != nil
	})
	close(release)
	if rep := c.finish(cookie, rawRequest{}); rep.err != 0 {
		t.Errorf("write: %d", rep.err)
	}
	c.mustClose()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
