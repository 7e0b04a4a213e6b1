package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// checkingClients gives the configuration for one connection of a server that
// verifies clients' certificates: the one given, except that the clients are not
// told which authorities are accepted. Their certificates are verified against
// ClientCAs all the same, during the handshake; chains gets the result, which
// the connection's own state lacks then.
//
// The reason is GnuTLS, the TLS of QEMU, libnbd and nbdkit. Told the authorities,
// it looks for a certificate that suits them and the signature algorithms that
// the server takes. Under TLS 1.3 crypto/tls names for RSA only rsa_pss_rsae_*,
// as the standard has it, which GnuTLS (3.7.9 at least) does not match with an
// RSA key: it sends no certificate. Told no authorities, it sends the one
// certificate it has. The other way out, TLS 1.2 at most, would show clients'
// certificates to whoever listens.
//
// A configuration that verifies in its own way (VerifyPeerCertificate,
// GetConfigForClient), or not at all, stays as it is.
func checkingClients(cfg *tls.Config, chains *[][]*x509.Certificate) *tls.Config {
	if cfg.ClientAuth < tls.VerifyClientCertIfGiven || cfg.VerifyPeerCertificate != nil || cfg.GetConfigForClient != nil {
		return cfg
	}
	own := cfg.Clone()
	own.ClientCAs = nil
	own.ClientAuth = tls.RequireAnyClientCert
	if cfg.ClientAuth == tls.VerifyClientCertIfGiven {
		own.ClientAuth = tls.RequestClientCert
	}
	own.VerifyConnection = func(state tls.ConnectionState) error {
		var err error
		if state.VerifiedChains, err = verifyClient(cfg, state.PeerCertificates); err != nil {
			return err
		}
		*chains = state.VerifiedChains
		if cfg.VerifyConnection != nil {
			return cfg.VerifyConnection(state)
		}
		return nil
	}
	return own
}

// verifyClient does what crypto/tls does with a client's certificate and those
// it sent along. No certificate, where that is permitted, proves nothing: nil.
func verifyClient(cfg *tls.Config, certs []*x509.Certificate) ([][]*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, nil
	}
	opts := x509.VerifyOptions{
		Roots:         cfg.ClientCAs,
		CurrentTime:   time.Now(),
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}
	for _, cert := range certs[1:] {
		opts.Intermediates.AddCert(cert)
	}
	chains, err := certs[0].Verify(opts)
	if err != nil {
		return nil, &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	return chains, nil
}
