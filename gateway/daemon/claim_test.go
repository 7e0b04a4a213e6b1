package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
	"sluice/gateway/state"
	"sluice/nbd"
)

// remember puts an export that was added over the API into the state of a daemon
// that was prepared.
func (r *running) remember(s spec.Spec) {
	r.t.Helper()
	st, err := state.Open(r.Config.State)
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := st.NextID()
	if err == nil {
		err = st.Put(state.Record{Spec: s, ID: id, Source: string(gateway.FromAPI)})
	}
	if err := errors.Join(err, st.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// openHanded opens the daemon with sockets that the service manager hands over.
func (r *running) openHanded(h endpoint.Handed) {
	r.t.Helper()
	r.openNow(func(d *daemon, ctx context.Context) error {
		if err := d.takeSockets(ctx); err != nil {
			return err
		}
		d.keeper.handed.NBD, d.keeper.handed.Stored = h.NBD, h.Stored
		return d.openWith(ctx)
	})
}

// await waits for an event of an export, also one that has been.
func (r *running) await(kind gateway.EventKind, name string) {
	r.t.Helper()
	ctx, done := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer done()
	for ev := range r.gw.Subscribe(ctx, 0) {
		if ev.Kind == kind && ev.Export == name {
			return
		}
	}
	r.t.Fatalf("20 s passed before %s of %s", kind, name)
}

// image makes an image of 1 MiB.
func image(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
		t.Fatal(err)
	}
}

func sizeAt(t *testing.T, socket, name string) (int64, error) {
	t.Helper()
	c, err := nbd.Dial(t.Context(), "nbd+unix:///"+name+"?socket="+socket, nbd.ClientConfig{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	return c.Info().Size, nil
}

// TestUnitSocketsOfExports: a unit's socket that an export has as its own waits for
// that export, which may be opened later than the gateway's sockets, and serves no
// other.
func TestUnitSocketsOfExports(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	own := func(name string) spec.Spec {
		return spec.Spec{Name: name, URL: at(name + ".img"), NBD: []string{"unix:" + at(name)}}
	}
	r := prepared(t, own("configured"), spec.Spec{Name: "other", URL: "mem://2M"})
	r.remember(own("added"))
	r.Config.NBD = nil
	var units []net.Listener
	for _, name := range []string{"configured", "all", "added"} {
		l := listener(t, "unix", at(name))
		l.(*net.UnixListener).SetUnlinkOnClose(false) // as those that are handed over
		units = append(units, l)
	}
	r.openHanded(endpoint.Handed{NBD: units})
	if got := texts(r.listeners.nbd); len(got) != 1 || got[0] != "unix:"+at("all") {
		t.Errorf("the gateway serves %q", got)
	}
	for _, name := range []string{"configured", "added"} {
		image(t, at(name+".img"))
		r.await(gateway.ExportAdded, name)
		if size, err := sizeAt(t, at(name), ""); err != nil || size != 1<<20 {
			t.Errorf("%s at its own socket: %d, %v", name, size, err)
		}
		if size, err := sizeAt(t, at(name), "other"); err == nil {
			t.Errorf("another export is at the socket of %s: %d", name, size)
		}
	}
	if size, err := sizeAt(t, at("all"), "other"); err != nil || size != 2<<20 {
		t.Errorf("at the gateway's: %d, %v", size, err)
	}
	if err := r.end(); err != nil {
		t.Errorf("the end: %v", err)
	}
	for _, name := range []string{"configured", "all", "added"} { // the next process serves them
		if _, err := os.Lstat(at(name)); err != nil {
			t.Errorf("after the end: %v", err)
		}
	}
}
