//go:build interop

package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// overTLS asks the API over TCP, with the client's certificate of a folder, if one is
// given.
func overTLS(t *testing.T, at string, trusts, has *lab.PKI) (code int, text string, err error) {
	t.Helper()
	pem, err := os.ReadFile(trusts.Path("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AppendCertsFromPEM(pem)
	if has != nil {
		pair, err := tls.LoadX509KeyPair(has.Path("client-cert.pem"), has.Path("client-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("https://" + at + "/v1/exports")
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// TestDaemonAPIOverTCP: with the certificates of [api_tls], for those whom it lists.
func TestDaemonAPIOverTCP(t *testing.T) {
	pki, other := lab.Certs(t), lab.Certs(t)
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "admin"}})
	config := filepath.Join(t.TempDir(), "c.toml")
	text := fmt.Sprintf("api = [\"tcp:127.0.0.1:0\"]\n[api_tls]\ncert = %q\nkey = %q\nca = %q\nallow = [\"admin\"]\n"+
		"[[export]]\nname = \"disk\"\nurl = \"mem://1M\"\n", pki.Path("server-cert.pem"), pki.Path("server-key.pem"), pki.Path("ca-cert.pem"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(lab.Socket(t))
	p := lab.Start(t, lab.Sluice(t), "daemon", "--config", config, "--state", filepath.Join(dir, "state"), "--nbd", "unix:"+filepath.Join(dir, "nbd"), "--metrics", "none")
	_, at, _ := strings.Cut(p.Expect("ready api tcp:"), "tcp:")
	if code, text, err := overTLS(t, at, pki, pki); err != nil || code != 200 || !strings.Contains(text, `"disk"`) {
		t.Errorf("the one who is listed: %d %s, %v", code, text, err)
	}
	for name, has := range map[string]*lab.PKI{"without a certificate": nil, "with one of another authority": other} {
		if code, text, err := overTLS(t, at, pki, has); err == nil {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "somebody"}})
	if code, text, err := overTLS(t, at, pki, pki); err != nil || code != 403 || strings.Contains(text, `"disk"`) {
		t.Errorf("one who is not listed: %d %s, %v", code, text, err)
	}
	res, err := http.Get("http://" + at + "/v1/exports")
	if err == nil {
		_ = res.Body.Close()
	}
	if err == nil && res.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %s", res.Status)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
