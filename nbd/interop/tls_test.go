//go:build interop

package interop

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/block"
	"sluice/internal/lab"
	"sluice/nbd"
)

// tlsConfig loads a server's side of a PKI; clients must show a certificate of
// its CA.
func tlsConfig(t *testing.T, pki *lab.PKI) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(pki.Path("server-cert.pem"), pki.Path("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(pki.Path("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// serveTLS serves an image on TCP to the common name "client" alone.
func serveTLS(t *testing.T, pki *lab.PKI, mode nbd.TLSMode, image string) (port string) {
	t.Helper()
	exports := &nbd.Exports{Authorize: nbd.AllowCommonNames("client")}
	if mode == nbd.TLSOptional { // who comes in the clear may have "public"
		secret := exports.Authorize
		exports.Authorize = func(name string, peer nbd.Peer) error {
			if name == "public" {
				return nil
			}
			return secret(name, peer)
		}
		if err := exports.Add(&nbd.Export{Name: "public", Device: newMem(t, mib)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := exports.Add(&nbd.Export{Device: openFile(t, image, block.OpenOptions{})}); err != nil {
		t.Fatal(err)
	}
	return serveTCP(t, nbd.ServerConfig{Catalog: exports, TLS: tlsConfig(t, pki), TLSMode: mode})
}

// tlsPython runs the script: "tls", "plain" or "allow" and a folder of
// certificates.
func tlsPython(t *testing.T, port, mode, dir, export string) string {
	t.Helper()
	return python(t, "tls.py", "localhost", port, mode, dir, export)
}

func tlsPythonFails(t *testing.T, port, mode, dir, export string) {
	t.Helper()
	lab.Need(t, "nbdsh")
	out := fails(t, "/usr/bin/python3", "testdata/tls.py", "localhost", port, mode, dir, export)
	if !strings.Contains(out, "nbd.Error") {
		t.Errorf("script fails otherwise than by the server's refusal:\n%s", out)
	}
}

// qemuTLS is what a QEMU tool needs to reach a server over TLS.
func qemuTLS(dir, port string) (object, image string) {
	return "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir,
		"driver=nbd,server.type=inet,server.host=localhost,server.port=" + port + ",tls-creds=tls0"
}

func TestTLSForced(t *testing.T) {
	lab.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy")
	pki, image := lab.Certs(t), newImage(t)
	port := serveTLS(t, pki, nbd.TLSForced, image)
	if out := tlsPython(t, port, "tls", pki.Dir, ""); !strings.Contains(out, "tls True") {
		t.Errorf("script says %s", out)
	}
	tlsPythonFails(t, port, "plain", pki.Dir, "")
	reply := nbdinfo(t, "nbds://localhost:"+port+"/?tls-certificates="+pki.Dir)
	if !reply.TLS || reply.Exports[0].Size != imageSize {
		t.Errorf("nbdinfo: %+v", reply)
	}
	to := t.TempDir() + "/copy"
	lab.Run(t, "nbdcopy", "nbds://localhost:"+port+"/?tls-certificates="+pki.Dir, to)
	sameContent(t, image, to)
	fails(t, "nbdinfo", "nbd://localhost:"+port)
	t.Run("QEMU", func(t *testing.T) {
		object, target := qemuTLS(pki.Dir, port)
		lab.Run(t, "qemu-img", "compare", "--object", object, "--image-opts", target, "driver=file,filename="+image)
		qemuIO(t, []string{"--object", object, "--image-opts", target}, "write -P 0x21 20M 8M", "read -P 0x21 20M 8M", "flush")
		out := lab.Run(t, "qemu-nbd", "--list", "--object", object, "--tls-creds", "tls0", "-b", "localhost", "-p", port)
		if !strings.Contains(out, "exports available: 1") {
			t.Errorf("qemu-nbd --list: %s", out)
		}
		fails(t, "qemu-nbd", "--list", "-b", "localhost", "-p", port)
	})
}

func TestTLSOptional(t *testing.T) {
	pki, image := lab.Certs(t), newImage(t)
	port := serveTLS(t, pki, nbd.TLSOptional, image)
	if out := tlsPython(t, port, "allow", pki.Dir, ""); !strings.Contains(out, "tls True") {
		t.Errorf("script says %s", out)
	}
	if out := tlsPython(t, port, "plain", pki.Dir, "public"); !strings.Contains(out, "tls False") {
		t.Errorf("script says %s", out)
	}
	tlsPythonFails(t, port, "plain", pki.Dir, "")
	if list := nbdinfo(t, "--list", "nbd://localhost:"+port); len(list.Exports) != 1 {
		t.Errorf("in the clear: %+v", list)
	}
	if list := nbdinfo(t, "--list", "nbds://localhost:"+port+"/?tls-certificates="+pki.Dir); len(list.Exports) != 2 {
		t.Errorf("over TLS: %+v", list)
	}
}

// TestTLSNotOffered: a server without TLS, asked by clients that insist, and by
// clients that do not.
func TestTLSNotOffered(t *testing.T) {
	pki := lab.Certs(t)
	port := serveTCP(t, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, mib)})
	tlsPythonFails(t, port, "tls", pki.Dir, "")
	if out := tlsPython(t, port, "allow", pki.Dir, ""); !strings.Contains(out, "tls False") {
		t.Errorf("script says %s", out)
	}
}

// TestTLSWrongCertificates: another CA on either side, a name that is not
// allowed, an expired certificate, a server of another name.
func TestTLSWrongCertificates(t *testing.T) {
	lab.Need(t, "qemu-img")
	pki, foreign, image := lab.Certs(t), lab.Certs(t), newImage(t)
	port := serveTLS(t, pki, nbd.TLSForced, image)
	refused := func(name, port, dir string) {
		t.Run(name, func(t *testing.T) {
			tlsPythonFails(t, port, "tls", dir, "")
			object, target := qemuTLS(dir, port)
			fails(t, "qemu-img", "info", "--object", object, "--image-opts", target)
		})
	}
	refused("another CA", port, foreign.Dir)
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "mallory"}})
	refused("name not allowed", port, pki.Dir)
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "client"}, Expired: true})
	refused("expired", port, pki.Dir)
	pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "client"}})
	pki.Issue(lab.Server, lab.Subject{Name: pkix.Name{CommonName: "elsewhere"}, DNS: []string{"elsewhere"}})
	refused("server of another name", serveTLS(t, pki, nbd.TLSForced, newImage(t)), pki.Dir)
	if out := tlsPython(t, port, "tls", pki.Dir, ""); !strings.Contains(out, "tls True") {
		t.Errorf("the right certificates do not work: %s", out)
	}
}

// TestTLSKeys: clients' certificates of either kind are asked for in a manner
// that GnuTLS understands, with TLS 1.3 and 1.2, and the name in them counts.
func TestTLSKeys(t *testing.T) {
	lab.Need(t, "qemu-img", "nbdinfo", "nbdcopy")
	for kind, pki := range map[string]*lab.PKI{"ECDSA": lab.Certs(t), "RSA": lab.RSACerts(t)} {
		t.Run(kind, func(t *testing.T) {
			image := newImage(t)
			port := serveTLS(t, pki, nbd.TLSForced, image)
			uri := "nbds://localhost:" + port + "/?tls-certificates=" + pki.Dir
			back := filepath.Join(t.TempDir(), "back")
			lab.Run(t, "nbdcopy", "--connections=2", uri, back)
			sameContent(t, image, back)
			object, target := qemuTLS(pki.Dir, port)
			for _, priority := range []string{"", ",priority=NORMAL:-VERS-TLS1.3", ",priority=NORMAL:-VERS-ALL:+VERS-TLS1.3"} {
				lab.Run(t, "qemu-img", "compare", "--object", object+priority, "--image-opts", target, "driver=file,filename="+image)
			}
			pki.Issue(lab.Client, lab.Subject{Name: pkix.Name{CommonName: "mallory"}})
			fails(t, "nbdinfo", "--size", uri)
			fails(t, "qemu-img", "info", "--object", object, "--image-opts", target)
		})
	}
}

// TestTLSOnUnixSocket: the name in the certificate is given by the client.
func TestTLSOnUnixSocket(t *testing.T) {
	lab.Need(t, "qemu-img")
	pki, image := lab.Certs(t), newImage(t)
	exports := &nbd.Exports{Authorize: nbd.AllowCommonNames("client")}
	if err := exports.Add(&nbd.Export{Device: openFile(t, image, block.OpenOptions{})}); err != nil {
		t.Fatal(err)
	}
	socket := serve(t, nbd.ServerConfig{Catalog: exports, TLS: tlsConfig(t, pki), TLSMode: nbd.TLSForced})
	if out := python(t, "tls.py", socket, "", "tls", pki.Dir, ""); !strings.Contains(out, "tls True") {
		t.Errorf("script says %s", out)
	}
	object := "tls-creds-x509,id=tls0,endpoint=client,dir=" + pki.Dir
	target := "driver=nbd,server.type=unix,server.path=" + socket + ",tls-creds=tls0,tls-hostname="
	lab.Run(t, "qemu-img", "compare", "--object", object, "--image-opts", target+"localhost", "driver=file,filename="+image)
	fails(t, "qemu-img", "info", "--object", object, "--image-opts", target+"elsewhere")
}
