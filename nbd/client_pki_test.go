package nbd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/block"
)

// pki is a folder as libnbd, nbdkit and qemu want it: ca-cert.pem,
// server-cert.pem, server-key.pem, client-cert.pem, client-key.pem.
type pki struct {
	t     testing.TB
	dir   string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	count int64
}

const pkiHost = "disks.example" // the server's name in its certificate

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	p.ca = &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	p.key = p.issue("ca", p.ca, true)
	p.issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: pkiHost}, DNSNames: []string{pkiHost},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, false)
	p.issue("client", &x509.Certificate{Subject: pkix.Name{CommonName: "guest"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, false)
	return p
}

func (p *pki) issue(name string, cert *x509.Certificate, self bool) *ecdsa.PrivateKey {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.count++
	cert.SerialNumber = big.NewInt(p.count)
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := p.key
	if self {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, p.ca, &key.PublicKey, signer)
	if err != nil {
		p.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+"-cert.pem", "CERTIFICATE", der)
	p.write(name+"-key.pem", "PRIVATE KEY", keyDER)
	return key
}

func (p *pki) write(name, kind string, der []byte) {
	p.t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// server is the server's configuration; clients must prove who they are.
func (p *pki) server() *tls.Config {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(p.dir, "server-cert.pem"), filepath.Join(p.dir, "server-key.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(p.dir, "ca-cert.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func TestClientTLS(t *testing.T) {
	p := newPKI(t)
	s := newFakeServer(t, 1<<20)
	s.secure = p.server()
	s.start()
	uri := func(u URI) string {
		u.TLS, u.Socket, u.Export = true, s.listener.Addr().String(), "disk"
		return u.String()
	}
	good := URI{TLSHostname: pkiHost, TLSCertificates: p.dir}
	c, err := Dial(background, uri(good), ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
	if !c.ExportInfo().TLS {
		t.Error("ExportInfo().TLS is false")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	for name, tc := range map[string]struct {
		uri  URI
		kind block.Kind
		text string
	}{
		"other name":   {URI{TLSHostname: "other.example", TLSCertificates: p.dir}, block.Permission, "not other.example"},
		"no authority": {URI{TLSHostname: pkiHost, TLSCertificates: newPKI(t).dir}, block.Permission, "unknown authority"},
		"no name":      {URI{TLSCertificates: p.dir}, block.Invalid, "needs tls-hostname"},
		"no folder":    {URI{TLSHostname: pkiHost, TLSCertificates: "/nowhere"}, block.NotFound, "ca-cert.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(background, uri(tc.uri), ClientConfig{})
			wantKind(t, err, tc.kind)
			if !strings.Contains(err.Error(), tc.text) {
				t.Error(err)
			}
		})
	}

	// Not verified, and a configuration of the program's own.
	c, err = Dial(background, uri(URI{TLSNoVerify: true, TLSCertificates: p.dir}), ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
	_ = c.Close()
}

// TestClientTLSRefused: nbds never goes on in plain text.
func TestClientTLSRefused(t *testing.T) {
	for name, set := range map[string]func(*fakeServer){
		"no STARTTLS":        func(*fakeServer) {},
		"not fixed newstyle": func(s *fakeServer) { s.plain = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			set(s)
			s.start()
			u := URI{TLS: true, Socket: s.listener.Addr().String(), TLSNoVerify: true}
			_, err := Dial(background, u.String(), ClientConfig{})
			wantKind(t, err, block.Unsupported)
			if !strings.Contains(err.Error(), "start TLS") {
				t.Error(err)
			}
			plain := URI{Socket: u.Socket}
			_, err = Dial(background, plain.String(), ClientConfig{TLS: &tls.Config{InsecureSkipVerify: true}})
			wantKind(t, err, block.Unsupported) // the configuration alone demands it, too
		})
	}
}

// TestClientTLSInjection: bytes in plain text behind the agreement on TLS are not
// taken for something that came over TLS (CVE-2021-3716).
func TestClientTLSInjection(t *testing.T) {
	s := newFakeServer(t, 1<<20)
	s.secure = newPKI(t).server()
	s.injected = make([]byte, 20)
	s.start()
	u := URI{TLS: true, Socket: s.listener.Addr().String(), TLSNoVerify: true}
	_, err := Dial(background, u.String(), ClientConfig{})
	if err == nil || !strings.Contains(err.Error(), "20 bytes in plain text") {
		t.Fatal(err)
	}
}
