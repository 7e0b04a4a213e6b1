package daemon

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
)

// TestSocketsOutliveFailedAttempts: a socket of the process before stays where clients
// find it, and wait, while another one of its export cannot be opened.
func TestSocketsOutliveFailedAttempts(t *testing.T) {
	dir := t.TempDir()
	live, later := filepath.Join(dir, "live"), filepath.Join(dir, "not-yet", "s")
	r := prepared(t, spec.Spec{Name: "disk", URL: "mem://1M", NBD: []string{"unix:" + live, "unix:" + later}})
	r.openHanded(endpoint.Handed{Stored: []endpoint.Stored{stored(t, live)}})
	r.await(gateway.ExportState, "disk") // the first attempt has failed
	early, err := net.Dial("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Close() }()
	if err := os.Mkdir(filepath.Dir(later), 0o700); err != nil {
		t.Fatal(err)
	}
	r.await(gateway.ExportAdded, "disk")
	greeting := make([]byte, 8)
	if err := early.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(early, greeting); err != nil || string(greeting) != "NBDMAGIC" {
		t.Errorf("who has waited: %q, %v", greeting, err)
	}
	if size, err := sizeAt(t, live, ""); err != nil || size != 1<<20 {
		t.Errorf("at its socket: %d, %v", size, err)
	}
	if size, err := sizeAt(t, later, ""); err != nil || size != 1<<20 {
		t.Errorf("at the other socket: %d, %v", size, err)
	}
	if len(r.keeper.handed.Stored) != 0 {
		t.Errorf("left: %v", r.keeper.handed.Stored)
	}
	if err := r.end(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
