package httpapi

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"sluice/block"
	"sluice/gateway/httpapi/apitest"
	"sluice/internal/lab"
)

// serverTLS is what a daemon has to have for TCP.
func serverTLS(t *testing.T, pki *lab.PKI) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(pki.Path("server-cert.pem"), pki.Path("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots(t, pki), ClientAuth: tls.RequireAndVerifyClientCert}
}

func roots(t *testing.T, pki *lab.PKI) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(pki.Path("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// status asks over TCP with the client's certificate of a folder, if one is given.
func status(t *testing.T, l net.Listener, trusts, has *lab.PKI) (int, string, error) {
	t.Helper()
	cfg := &tls.Config{RootCAs: roots(t, trusts)}
	if has != nil {
		pair, err := tls.LoadX509KeyPair(has.Path("client-cert.pem"), has.Path("client-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		// Also one that the server does not ask for.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String() + "/v1/status")
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text := make([]byte, 4096)
	n, _ := res.Body.Read(text)
	return res.StatusCode, res.Proto + " " + string(text[:n]), nil
}

// TestTCP: a certificate that the authority signed lets a client in, and nothing
// else does.
func TestTCP(t *testing.T) {
	pki, other := lab.Certs(t), lab.Certs(t)
	b := start(t, standardLimits, func(c *Config) { c.TLS = serverTLS(t, pki) })
	l := tcp(t)
	b.serve(l)
	if code, text, err := status(t, l, pki, pki); err != nil || code != 200 || !strings.HasPrefix(text, "HTTP/1.1 {") {
		t.Errorf("%d %s, %v", code, text, err)
	}
	for name, has := range map[string]*lab.PKI{"without a certificate": nil, "with one of another authority": other} {
		if code, text, err := status(t, l, pki, has); err == nil {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "client"}, Expired: true})
	if code, text, err := status(t, l, pki, pki); err == nil {
		t.Errorf("with an old certificate: %d %s", code, text)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"))
	if got := b.hungUp(conn); strings.Contains(got, "v1") || !strings.HasPrefix(got, "HTTP/1.0 400 ") {
		t.Errorf("without TLS: %q", got)
	}
	b.want(200, "GET", "/v1/exports", "", &struct{ Exports []string }{}) // the socket goes on
}

// TestAllow: of the clients with a certificate, those whose name is listed.
func TestAllow(t *testing.T) {
	pki := lab.Certs(t)
	b := start(t, standardLimits, func(c *Config) { c.TLS, c.Allow = serverTLS(t, pki), []string{"admin", "root"} })
	l := tcp(t)
	b.serve(l)
	const want = "let in client: the certificate's name is not among those that may use the API"
	if code, text, err := status(t, l, pki, pki); err != nil || code != 403 || !strings.Contains(text, want) {
		t.Errorf("%d %s, %v", code, text, err)
	}
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "admin"}})
	if code, text, err := status(t, l, pki, pki); err != nil || code != 200 {
		t.Errorf("%d %s, %v", code, text, err)
	}
}

// TestTCPNeedsCertificates: whatever lets in clients without one is refused.
func TestTCPNeedsCertificates(t *testing.T) {
	good := serverTLS(t, lab.Certs(t))
	for name, change := range map[string]func(*tls.Config){
		"no authority":        func(c *tls.Config) { c.ClientCAs = nil },
		"asks for none":       func(c *tls.Config) { c.ClientAuth = tls.NoClientCert },
		"takes none":          func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven },
		"takes any":           func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert },
		"none of the server":  func(c *tls.Config) { c.Certificates = nil },
		"no configuration at": nil,
	} {
		cfg := good.Clone()
		if change == nil {
			cfg = nil
		} else {
			change(cfg)
		}
		srv := New(Config{Gateway: apitest.New(), TLS: cfg})
		l := tcp(t)
		err := srv.Serve(l)
		if block.KindOf(err) != block.Invalid || !strings.Contains(err.Error(), "serve the API on tcp:127.0.0.1:") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = conn.Close()
			t.Errorf("%s: it listens", name)
		}
		srv.Close()
	}
}

// TestServeAfterClose ends at once.
func TestServeAfterClose(t *testing.T) {
	srv := New(Config{Gateway: apitest.New(), TLS: serverTLS(t, lab.Certs(t))})
	srv.Close()
	l := tcp(t)
	if err := srv.Serve(l); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("it listens")
	}
}

// TestListenerThatFails: the error names the address.
func TestListenerThatFails(t *testing.T) {
	srv := New(Config{Gateway: apitest.New(), TLS: serverTLS(t, lab.Certs(t))})
	defer srv.Close()
	l := tcp(t)
	_ = l.Close()
	if err := srv.Serve(l); err == nil || !strings.HasPrefix(err.Error(), "serve the API on tcp:"+l.Addr().String()) {
		t.Error(err)
	}
}
