package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"sluice/block"
)

// ServerTLS reads the certificate and the key of a server and, where ca is not
// empty, the authority that has to have signed the certificates of clients, which
// they need then. All are PEM files. TLS is 1.2 or newer.
func ServerTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if ca == "" {
		return cfg, nil
	}
	if cfg.ClientCAs, err = Authority(ca); err != nil {
		return nil, err
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}

// KeyPair reads a certificate and its key.
func KeyPair(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	var file *os.PathError
	switch {
	case err == nil:
		return pair, nil
	case errors.As(err, &file) && file.Path != cert:
		return pair, unreadable(file, "read key")
	case errors.As(err, &file):
		return pair, unreadable(file, "read certificate")
	}
	text := strings.TrimPrefix(err.Error(), "tls: ")
	return pair, block.Errorf(block.Invalid, "read certificate", cert, -1, "with the key %s: %s", key, text)
}

// Authority reads the certificates of an authority.
func Authority(ca string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(ca)
	var file *os.PathError
	if errors.As(err, &file) {
		return nil, unreadable(file, "read authority")
	}
	if err != nil {
		return nil, block.Wrap(err, "read authority", ca, -1)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, block.Errorf(block.Invalid, "read authority", ca, -1, "no certificate in it")
	}
	return pool, nil
}

// unreadable names the file once.
func unreadable(e *os.PathError, op string) error {
	return &block.Error{Kind: block.KindOf(e.Err), Op: op, Object: e.Path, Off: -1, Err: e.Err}
}
