package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
)

// stored is a socket of a process before.
func stored(t *testing.T, path string) endpoint.Stored {
	t.Helper()
	l := listener(t, "unix", path)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as those that are handed over
	return endpoint.Stored{Listener: l, Name: storedName(address(t, "unix:"+path))}
}

// TestSocketsOfExportsThatNeverOpened: they go when their exports are removed, and not
// before.
func TestSocketsOfExportsThatNeverOpened(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	missing := func(name string) spec.Spec {
		return spec.Spec{Name: name, URL: at(name + ".img"), NBD: []string{"unix:" + at(name)}}
	}
	r := prepared(t, missing("configured"))
	r.remember(missing("added"))
	var all []endpoint.Stored
	for _, name := range []string{"configured", "added"} {
		all = append(all, stored(t, at(name)))
	}
	r.openHanded(endpoint.Handed{Stored: all})
	for name, remove := range map[string]func() error{
		"added":      func() error { return r.gw.Remove(t.Context(), "added", false) },
		"configured": func() error { return r.reload(t.Context()) },
	} {
		early, err := net.Dial("unix", at(name)) // it is there, and waits
		if err != nil {
			t.Fatalf("%s before the removal: %v", name, err)
		}
		defer func() { _ = early.Close() }()
		if err := remove(); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
		// Its end is what the client sees.
		if err := early.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := early.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who waits for %s: %v", name, err)
		}
		if _, err := os.Lstat(at(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of %s: %v", name, err)
		}
	}
	if err := r.end(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// TestUnitSocketsAreNotDropped: that of an export that is refused, say, is there again
// when the daemon is started with a configuration that is right.
func TestUnitSocketsAreNotDropped(t *testing.T) {
	dir := t.TempDir()
	units, own := stored(t, filepath.Join(dir, "units")), stored(t, filepath.Join(dir, "own"))
	units.Listener = unitSocket{units.Listener}
	k := &keeper{notifier: endpoint.NewNotifier(), handed: &endpoint.Handed{Stored: []endpoint.Stored{own, units}}}
	k.dropStored(nil)
	if left := k.handed.Stored; len(left) != 1 || left[0] != units {
		t.Errorf("left: %v", left)
	}
	for path, want := range map[string]error{"units": nil, "own": os.ErrNotExist} {
		if _, err := os.Lstat(filepath.Join(dir, path)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
