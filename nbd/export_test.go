package nbd_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

func TestExportsAddAndList(t *testing.T) {
	var e nbd.Exports
	for _, name := range []string{"b", "", "a"} {
		if err := e.Add(&nbd.Export{Name: name, Description: "about " + name, Device: newDisk(1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Add(&nbd.Export{Name: "a", Device: newDisk(1, 0)}); block.KindOf(err) != block.Exists {
		t.Errorf("a name twice: %v", err)
	}
	for _, name := range []string{"a\x00b", "\xff"} {
		if err := e.Add(&nbd.Export{Name: name, Device: newDisk(1, 0)}); block.KindOf(err) != block.Invalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	list, err := e.List(context.Background(), nbd.Peer{})
	want := []nbd.Listing{{Name: "", Description: "about "}, {Name: "a", Description: "about a"}, {Name: "b", Description: "about b"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("list %v, error %v", list, err)
	}
	if _, err := e.Open(context.Background(), "c", nbd.Peer{}); block.KindOf(err) != block.NotFound {
		t.Errorf("open an unknown export: %v", err)
	}
	if err := e.Remove("c"); block.KindOf(err) != block.NotFound {
		t.Errorf("remove an unknown export: %v", err)
	}
}

// TestExportsRemoveWaits: an export that is withdrawn is gone for newcomers at
// once, and its device free when Remove returns.
func TestExportsRemoveWaits(t *testing.T) {
	s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Name: "x", Device: newMem(t, 1<<20)})
	c := enter(t, s.addr, structured, "x")
	removed := make(chan error, 1)
	go func() { removed <- s.exports.Remove("x") }()
	waitFor(t, "the export to be withdrawn", func() bool {
		list, err := s.exports.List(context.Background(), nbd.Peer{})
		return err == nil && len(list) == 0
	})
	late := dial(t, s.addr)
	late.mustAnswer(rOptGo, infoData("x"), rErrUnknown)
	c.mustOK(c.write(0, pattern(4096, 1)))
	select {
	case err := <-removed:
		t.Fatalf("Remove returned %v while a client is connected", err)
	default:
	}
	c.start(rawRequest{cmd: rCmdDisc})
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

func TestPeerCommonName(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}}
	verified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	for name, test := range map[string]struct {
		state *tls.ConnectionState
		want  string
	}{
		"in the clear": {nil, ""},
		"anonymous":    {&tls.ConnectionState{}, ""},
		"unverified":   {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, ""},
		"verified":     {verified, "alice"},
	} {
		if got := (nbd.Peer{TLS: test.state}).CommonName(); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	allow := nbd.AllowCommonNames("bob", "alice")
	if err := allow("x", nbd.Peer{TLS: verified}); err != nil {
		t.Error(err)
	}
	for _, authorize := range []func(string, nbd.Peer) error{nbd.AllowCommonNames("bob"), nbd.AllowCommonNames(), nbd.AllowCommonNames("")} {
		if err := authorize("x", nbd.Peer{TLS: verified}); block.KindOf(err) != block.Permission {
			t.Errorf("alice: %v", err)
		}
		if err := authorize("x", nbd.Peer{}); block.KindOf(err) != block.Permission {
			t.Errorf("nobody: %v", err)
		}
	}
}
