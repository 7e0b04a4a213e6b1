package metrics

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sluice/block"
	"sluice/nbd"
)

// ram is a device of 1 MiB whose last 64 KiB cannot be written.
type ram []byte

const ramSize, ramGood = 1 << 20, 1<<20 - 64<<10

func (d ram) Info() block.Info {
	return block.Info{Size: ramSize, Block: block.BlockSize{Min: 1, Preferred: 4096}, Caps: block.CapFlush}
}

func (d ram) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, d[off:])
	return nil
}

func (d ram) WriteAt(_ context.Context, p []byte, off int64, _ block.Flags) error {
	if off+int64(len(p)) > ramGood {
		return block.Errorf(block.NoSpace, "write", "ram", off, "")
	}
	copy(d[off:], p)
	return nil
}

func (d ram) Flush(context.Context) error { return nil }
func (d ram) Close() error                { return nil }

// TestServed lets a real server tell an Export about a real client.
func TestServed(t *testing.T) {
	r := New(Build{})
	e := r.Export("ram")
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Name: "ram", Device: make(ram, ramSize), Observer: e}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	c, err := nbd.Dial(t.Context(), "nbd+unix:///ram?socket="+socket, nbd.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for i := range int64(20) {
		if err := c.WriteAt(t.Context(), buf, i*4096, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(30) {
		if err := c.ReadAt(t.Context(), buf, i*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WriteAt(t.Context(), buf, ramGood, 0); block.KindOf(err) != block.NoSpace {
		t.Fatalf("write to the end: %v", err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-served
	got := text(t, r)
	for _, want := range []string{
		`sluice_requests_total{export="ram",op="read",protocol="nbd"} 30`,
		`sluice_requests_total{export="ram",op="write",protocol="nbd"} 21`,
		`sluice_requests_total{export="ram",op="flush",protocol="nbd"} 1`,
		`sluice_request_bytes_total{export="ram",op="read",protocol="nbd"} 122880`,
		`sluice_request_bytes_total{export="ram",op="write",protocol="nbd"} 86016`,
		`sluice_request_bytes_total{export="ram",op="flush",protocol="nbd"} 0`,
		`sluice_request_errors_total{export="ram",kind="no_space",op="write",protocol="nbd"} 1`,
		`sluice_request_duration_seconds_count{export="ram",op="read",protocol="nbd"} 30`,
		`sluice_requests_in_flight{export="ram",op="read",protocol="nbd"} 0`,
		`sluice_requests_in_flight{export="ram",op="write",protocol="nbd"} 0`,
		`sluice_connections{export="ram"} 0`,
		`sluice_connections_total{export="ram"} 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}
