package nbd_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"testing"

	"sluice/internal/lab"
	"sluice/nbd"
)

// Certificates: whose are taken, and what they open.

// testClientCertificates: none, one of another CA and an expired one do not get
// in.
func testClientCertificates(t *testing.T) {
	l, other := newTLSLab(t), newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	none := l.client(t)
	none.Certificates = nil
	foreign := other.client(t)
	foreign.RootCAs = l.pool
	l.pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "client"}, Expired: true})
	for name, cfg := range map[string]*tls.Config{"none": none, "foreign": foreign, "expired": l.client(t)} {
		c := dial(t, s.addr)
		c.mustAck(rOptStartTLS, nil)
		if err := c.shakeHands(cfg); err != nil {
			continue
		}
		// With TLS 1.3 the server's verdict comes after the client is done.
		_, _ = c.conn.Write(optHeader(rOptList, 0))
		if p, err := io.ReadAll(c.r); err == nil || len(p) > 0 {
			t.Errorf("%s: server sent %d bytes, error %v", name, len(p), err)
		}
	}
}

func testCommonNames(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	l.pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "mallory"}})
	c := dial(t, s.addr)
	c.startTLS(l.client(t))
	c.mustAnswer(rOptGo, infoData("secret"), rErrPolicy)
	if all := c.ask(rOptList, nil); len(all) != 3 {
		t.Errorf("LIST: %v", all)
	}
	c.goExport("open")
	// A certificate that was not verified proves no name.
	cfg := l.server(t)
	cfg.ClientAuth = tls.RequestClientCert
	s = serveWith(t, nbd.ServerConfig{TLS: cfg, TLSMode: nbd.TLSForced}, &nbd.Export{Name: "secret", Device: newMem(t, 1)})
	s.exports.Authorize = nbd.AllowCommonNames("client", "mallory")
	c = dial(t, s.addr)
	c.startTLS(l.client(t))
	c.mustAnswer(rOptGo, infoData("secret"), rErrPolicy)
}

// testNoAuthorities: clients are asked for a certificate without being told by
// whom. GnuTLS would send none that is RSA otherwise.
func testNoAuthorities(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := l.client(t)
		cfg.MinVersion, cfg.MaxVersion = version, version
		asked := 0
		cfg.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked++
			if len(info.AcceptableCAs) > 0 {
				t.Errorf("%s: %d authorities are named", tls.VersionName(version), len(info.AcceptableCAs))
			}
			return &l.pair(t, "client")[0], nil
		}
		c := dial(t, s.addr)
		c.startTLS(cfg)
		c.goExport("secret")
		if asked != 1 {
			t.Errorf("%s: asked %d times", tls.VersionName(version), asked)
		}
	}
}

// testCertificatePurpose: a certificate that the right authority made for a
// server does not let a client in.
func testCertificatePurpose(t *testing.T) {
	l := newTLSLab(t)
	s := serveTLS(t, l, nbd.TLSForced)
	cfg := l.client(t)
	cfg.Certificates = l.pair(t, "server")
	cfg.MaxVersion = tls.VersionTLS12 // the verdict comes during the handshake
	c := dial(t, s.addr)
	c.mustAck(rOptStartTLS, nil)
	if err := c.shakeHands(cfg); err == nil {
		t.Error("a server's certificate was taken")
	}
}

// testOwnVerification: what the configuration itself wants to see of a
// connection is called, with what was verified.
func testOwnVerification(t *testing.T) {
	l := newTLSLab(t)
	for _, hook := range []string{"VerifyConnection", "VerifyPeerCertificate"} {
		for _, verdict := range []error{nil, io.ErrUnexpectedEOF} {
			cfg := l.server(t)
			seen := 0
			if hook == "VerifyConnection" {
				cfg.VerifyConnection = func(state tls.ConnectionState) error { seen = len(state.VerifiedChains); return verdict }
			} else {
				cfg.VerifyPeerCertificate = func(_ [][]byte, chains [][]*x509.Certificate) error { seen = len(chains); return verdict }
			}
			s := serveWith(t, nbd.ServerConfig{TLS: cfg, TLSMode: nbd.TLSForced}, &nbd.Export{Device: newMem(t, 512)})
			s.exports.Authorize = nbd.AllowCommonNames("client")
			client := l.client(t)
			client.MaxVersion = tls.VersionTLS12
			c := dial(t, s.addr)
			c.mustAck(rOptStartTLS, nil)
			err := c.shakeHands(client)
			if (err == nil) != (verdict == nil) || seen != 1 {
				t.Errorf("%s says %v: %v, %d chains seen", hook, verdict, err, seen)
			}
			if err == nil {
				c.goExport("")
			}
		}
	}
}

// testCertificateIfGiven: clients may come without a certificate, not with one
// of another authority.
func testCertificateIfGiven(t *testing.T) {
	l, other := newTLSLab(t), newTLSLab(t)
	cfg := l.server(t)
	cfg.ClientAuth = tls.VerifyClientCertIfGiven
	s := serveWith(t, nbd.ServerConfig{TLS: cfg, TLSMode: nbd.TLSForced}, &nbd.Export{Device: newMem(t, 512)})
	s.exports.Authorize = nbd.AllowCommonNames("client")
	for name, test := range map[string]struct {
		pair         []tls.Certificate
		hands, named bool
	}{"none": {nil, true, false}, "good": {l.pair(t, "client"), true, true}, "foreign": {other.pair(t, "client"), false, false}} {
		client := l.client(t)
		client.Certificates, client.MaxVersion = test.pair, tls.VersionTLS12
		c := dial(t, s.addr)
		c.mustAck(rOptStartTLS, nil)
		if err := c.shakeHands(client); (err == nil) != test.hands {
			t.Errorf("%s: %v", name, err)
		} else if test.named {
			c.goExport("")
		} else if test.hands {
			c.mustAnswer(rOptGo, infoData(""), rErrPolicy)
		}
	}
}
