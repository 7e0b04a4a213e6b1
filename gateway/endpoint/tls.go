package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"sluice/block"
)

// ServerTLS reads the certificate and the key of a server and, where ca is not
// empty, the authority that has to have signed the certificates of clients, which
// they need then. All are PEM files. TLS is 1.2 or newer.
func ServerTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, block.Wrap(err, "read certificate", cert, -1)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if ca == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, block.Wrap(err, "read authority", ca, -1)
	}
	cfg.ClientCAs = x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, block.Errorf(block.Invalid, "read authority", ca, -1, "no certificate in it")
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}
