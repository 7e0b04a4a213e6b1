package lab

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"testing"
)

// handshake shakes hands with the files of the PKI, both ends checked, and
// returns the client's common name as the server sees it.
func handshake(t *testing.T, p *PKI) (name string, err error) {
	t.Helper()
	ca, err := os.ReadFile(p.Path("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("ca-cert.pem holds no certificate")
	}
	load := func(role string) []tls.Certificate {
		pair, err := tls.LoadX509KeyPair(p.Path(role+"-cert.pem"), p.Path(role+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{Certificates: load("server"), ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	client := tls.Client(b, &tls.Config{Certificates: load("client"), RootCAs: pool, ServerName: "localhost"})
	serverErr := make(chan error, 1)
	go func() {
		err := server.Handshake()
		_ = server.Close()
		serverErr <- err
	}()
	clientErr := client.Handshake()
	if clientErr == nil {
		// The server's verdict on the client's certificate comes after the
		// client's own handshake is done; end of file is a good one.
		_, _ = client.Read(make([]byte, 1))
	}
	_ = b.Close()
	if err := <-serverErr; err != nil {
		return "", err
	}
	name = server.ConnectionState().PeerCertificates[0].Subject.CommonName
	return name, clientErr
}

func TestCertsShakeHands(t *testing.T) {
	p := Certs(t)
	if name, err := handshake(t, p); err != nil || name != "client" {
		t.Errorf("name %q, error %v", name, err)
	}
	p.Issue(Client, Subject{Name: pkix.Name{CommonName: "alice", Organization: []string{"Lab"}}})
	if name, err := handshake(t, p); err != nil || name != "alice" {
		t.Errorf("name %q, error %v", name, err)
	}
}

func TestRSACertsShakeHands(t *testing.T) {
	if name, err := handshake(t, RSACerts(t)); err != nil || name != "client" {
		t.Errorf("name %q, error %v", name, err)
	}
}

func TestExpiredCertificateIsRefused(t *testing.T) {
	p := Certs(t)
	p.Issue(Client, Subject{Name: pkix.Name{CommonName: "client"}, Expired: true})
	if _, err := handshake(t, p); err == nil {
		t.Error("an expired client certificate was taken")
	}
}
