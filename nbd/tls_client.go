package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/block"
)

// clientTLSConfig gives the TLS settings for a URI, or nil where the connection
// stays in plain text. Settings from the program (given) win over the URI's; a
// server name is filled in from the URI when it has none.
func clientTLSConfig(u URI, given *tls.Config) (*tls.Config, error) {
	if !u.TLS && given == nil {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if given != nil {
		cfg = given.Clone()
	} else if err := clientLoadCertificates(cfg, u); err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg.ServerName = u.TLSHostname
	}
	if cfg.ServerName == "" {
		cfg.ServerName = u.Host
	}
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		return nil, block.Errorf(block.Invalid, "connect", u.String(), -1,
			"TLS over a unix socket needs tls-hostname=NAME, the name in the server's certificate (or tls-verify-peer=0)")
	}
	return cfg, nil
}

// clientLoadCertificates reads libnbd's folder of certificates. Without a folder
// the system's authorities decide.
func clientLoadCertificates(cfg *tls.Config, u URI) error {
	cfg.InsecureSkipVerify = u.TLSNoVerify
	dir := u.TLSCertificates
	if dir == "" {
		return nil
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	switch {
	case err == nil:
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return block.Errorf(block.Invalid, "read", filepath.Join(dir, "ca-cert.pem"), -1, "no certificate in it")
		}
	case !errors.Is(err, fs.ErrNotExist) || !u.TLSNoVerify:
		return block.Wrap(err, "read", filepath.Join(dir, "ca-cert.pem"), -1)
	}
	certFile, keyFile := filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem")
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return block.Wrap(err, "read", certFile, -1)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return nil
}
