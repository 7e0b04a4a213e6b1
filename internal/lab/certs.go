package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// PKI is a certificate authority in a folder. Its files have the names that
// QEMU, libnbd and nbdkit look for: ca-cert.pem, server-cert.pem,
// server-key.pem, client-cert.pem, client-key.pem. One test uses it.
type PKI struct {
	Dir string

	t    TB
	cert *x509.Certificate
	key  crypto.Signer
	make func() (crypto.Signer, error) // the kind of all its keys
	next int64                         // serial number
}

// Subject is what a certificate says of its holder.
type Subject struct {
	Name    pkix.Name
	DNS     []string
	IP      []net.IP
	Expired bool // valid until yesterday
}

// Role says which end a certificate is for; it is also the files' prefix.
type Role string

// The two roles.
const (
	Server Role = "server"
	Client Role = "client"
)

// Certs makes an authority, a certificate for a server on this machine
// (localhost, 127.0.0.1, ::1) and one for a client with the common name
// "client". The folder goes with the test. All keys are on the curve P-256, which
// every TLS library knows.
func Certs(t TB) *PKI {
	t.Helper()
	return NewPKI(t, "Lab CA").issueBoth()
}

// RSACerts is Certs with RSA keys of 2048 bits, which most people have.
func RSACerts(t TB) *PKI {
	t.Helper()
	return newPKI(t, "Lab RSA CA", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }).issueBoth()
}

// issueBoth issues the certificates of Certs.
func (p *PKI) issueBoth() *PKI {
	p.t.Helper()
	p.Issue(Server, Subject{
		Name: pkix.Name{CommonName: "localhost"},
		DNS:  []string{"localhost"},
		IP:   []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	})
	p.Issue(Client, Subject{Name: pkix.Name{CommonName: "client"}})
	return p
}

// NewPKI makes an authority of the given common name in a new folder.
func NewPKI(t TB, name string) *PKI {
	t.Helper()
	return newPKI(t, name, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
}

func newPKI(t TB, name string, makeKey func() (crypto.Signer, error)) *PKI {
	t.Helper()
	p := &PKI{Dir: t.TempDir(), t: t, make: makeKey, next: 1}
	p.key = p.newKey()
	template := &x509.Certificate{
		SerialNumber:          p.serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der := p.sign(template, template, p.key.Public())
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parse the CA's certificate: %v", err)
	}
	p.cert = cert
	p.write("ca-cert.pem", "CERTIFICATE", der)
	return p
}

// Path returns the path of one of the files.
func (p *PKI) Path(name string) string { return filepath.Join(p.Dir, name) }

// Issue makes a certificate and a key and writes them to ROLE-cert.pem and
// ROLE-key.pem, replacing what was there.
func (p *PKI) Issue(role Role, s Subject) {
	p.t.Helper()
	template := &x509.Certificate{
		SerialNumber: p.serial(),
		Subject:      s.Name,
		DNSNames:     s.DNS,
		IPAddresses:  s.IP,
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if role == Client {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if s.Expired {
		template.NotAfter = time.Now().Add(-24 * time.Hour)
	}
	key := p.newKey()
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatalf("marshal a key: %v", err)
	}
	p.write(string(role)+"-cert.pem", "CERTIFICATE", p.sign(template, p.cert, key.Public()))
	p.write(string(role)+"-key.pem", "PRIVATE KEY", keyDER)
}

// serial counts certificates.
func (p *PKI) serial() *big.Int {
	p.next++
	return big.NewInt(p.next)
}

// newKey makes a key.
func (p *PKI) newKey() crypto.Signer {
	p.t.Helper()
	key, err := p.make()
	if err != nil {
		p.t.Fatalf("generate a key: %v", err)
	}
	return key
}

// sign signs a certificate with the authority's key.
func (p *PKI) sign(template, parent *x509.Certificate, pub crypto.PublicKey) []byte {
	p.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, p.key)
	if err != nil {
		p.t.Fatalf("sign a certificate: %v", err)
	}
	return der
}

// write stores one PEM file, readable by its owner alone.
func (p *PKI) write(name, kind string, der []byte) {
	p.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(p.Path(name), text, 0o600); err != nil {
		p.t.Fatalf("write a certificate: %v", err)
	}
}
