package nbd_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

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

// tally counts what an Observer is told.
type tally struct {
	mu       sync.Mutex
	requests map[string]int64 // bytes by operation and outcome
	inFlight [nbd.NumOps]int
	clients  int
}

func (o *tally) Request(op nbd.Op, bytes int64, took time.Duration, kind block.Kind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if took < 0 {
		o.requests["clock"]++
	}
	o.requests[op.String()+" "+kind.String()] += bytes + 1
}

func (o *tally) InFlight(op nbd.Op, delta int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inFlight[op] += delta
}

func (o *tally) Connection(delta int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clients += delta
}

// TestObserver: every request is told of once, whichever way it went.
func TestObserver(t *testing.T) {
	for _, nowait := range []bool{false, true} {
		d := newDisk(1<<20, diskCaps)
		if d.nowait = nowait; nowait {
			d.info.Caps |= block.CapNowait | block.CapNowaitWrites
		}
		o := &tally{requests: make(map[string]int64)}
		s := serveWith(t, nbd.ServerConfig{}, &nbd.Export{Device: d, Observer: o})
		c := dial(t, s.addr)
		c.negotiate(structured)
		c.setMeta("", qAllocation)
		c.goExport("")
		c.mustOK(c.read(0, 4096))
		c.mustOK(c.read(0, 100000))
		c.mustOK(c.write(0, pattern(512, 1)))
		c.mustOK(c.flush())
		c.mustOK(c.do(rawRequest{cmd: rCmdTrim, length: 10}))
		c.mustOK(c.do(rawRequest{cmd: rCmdZeroes, length: 20}))
		c.mustOK(c.do(rawRequest{cmd: rCmdCache, length: 30}))
		c.status(0, 0, 40)
		c.do(rawRequest{cmd: rCmdTrim, offset: 1 << 30, length: 50})
		d.setBefore(func(call) error { return block.NoSpace })
		c.do(rawRequest{cmd: rCmdZeroes, length: 60})
		c.start(rawRequest{cmd: rCmdDisc})
		c.mustClose()
		waitFor(t, "the end of the connection", func() bool { return s.Connections() == 0 })
		want := map[string]int64{
			"read ok": 104096 + 2, "write ok": 513, "flush ok": 1, "trim ok": 11, "zero ok": 21, "cache ok": 31,
			"status ok": 41, "trim out of range": 1, "zero no space left": 61,
		}
		o.mu.Lock()
		if !maps.Equal(o.requests, want) || o.inFlight != [nbd.NumOps]int{} || o.clients != 0 {
			t.Errorf("told of %v, want %v; %v in flight, %d clients", o.requests, want, o.inFlight, o.clients)
		}
		o.mu.Unlock()
	}
}
