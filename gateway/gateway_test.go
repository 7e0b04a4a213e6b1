package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/block"
	"sluice/gateway/spec"
	"sluice/gateway/state"
	"sluice/internal/lab"
	"sluice/metrics"
	"sluice/nbd"
)

// house is a Gateway that serves on a unix socket, with its state.
type house struct {
	*Gateway
	t       *testing.T
	dir     string
	state   *state.State
	serving chan error
	open    bool
}

// newHouse starts a Gateway on a folder of its own.
func newHouse(t *testing.T, change func(*Config)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	h.start(change)
	t.Cleanup(func() {
		if h.open {
			h.stop()
		}
	})
	return h
}

// start starts the Gateway, as a process does that begins anew.
func (h *house) start(change func(*Config)) {
	h.t.Helper()
	var err error
	if h.state, err = state.Open(filepath.Join(h.dir, "state")); err != nil {
		h.t.Fatal(err)
	}
	cfg := Config{State: h.state, Metrics: metrics.New(metrics.Build{Version: "test"}), Tuning: Tuning{DrainTimeout: 10 * time.Second}}
	if change != nil {
		change(&cfg)
	}
	h.Gateway = New(cfg)
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		h.t.Fatal(err)
	}
	h.serving = make(chan error, 1)
	go func(g *Gateway) { h.serving <- g.Serve(l) }(h.Gateway)
	h.open = true
	waitFor(h.t, "the listener", func() bool { return len(h.URIs("x")) == 1 })
}

// stop ends it in order.
func (h *house) stop() {
	h.t.Helper()
	h.open = false
	if err := errors.Join(h.Close(context.Background()), <-h.serving, h.state.Close()); err != nil {
		h.t.Errorf("close: %v", err)
	}
}

func (h *house) socket() string { return filepath.Join(h.dir, "s") }

// image makes an image file of n MiB and gives its path.
func (h *house) image(name string, mib int64) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600), os.Truncate(path, mib<<20)); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *house) add(s spec.Spec) Status {
	h.t.Helper()
	st, err := h.Add(h.t.Context(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	return st
}

func (h *house) dial(name string) *nbd.Client {
	h.t.Helper()
	c, err := nbd.Dial(h.t.Context(), h.URIs(name)[0], nbd.ClientConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// waitFor waits for something that other goroutines do.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("20 s passed before %s", what)
		}
	}
}

func kindIs(t *testing.T, what string, err error, kind block.Kind) {
	t.Helper()
	if block.KindOf(err) != kind {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func mustRead(t *testing.T, d block.Device, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := d.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want) {
		t.Errorf("at %d: %q (%v), want %q", off, clip(got), err, clip(want))
	}
}

func clip(p []byte) []byte { return p[:min(len(p), 40)] }

func mustWrite(t *testing.T, d block.Device, off int64, p []byte) {
	t.Helper()
	if err := d.WriteAt(t.Context(), p, off, 0); err != nil {
		t.Errorf("write at %d: %v", off, err)
	}
}

func TestLifeOfAnExport(t *testing.T) {
	h := newHouse(t, nil)
	path := h.image("a.img", 4)
	st := h.add(spec.Spec{Name: "a", URL: path, Description: "the first"})
	if st.State != Serving || st.Size != 4<<20 || st.Source != FromAPI || len(st.URIs) != 1 {
		t.Errorf("status %+v", st)
	}
	c := h.dial("a")
	mustWrite(t, c, 4096, []byte("hello"))
	mustRead(t, c, 4096, []byte("hello"))

	_, err := h.Add(t.Context(), spec.Spec{Name: "a", URL: path})
	kindIs(t, "a name that is taken", err, block.Exists)
	_, err = h.Add(t.Context(), spec.Spec{Name: "b", URL: path})
	kindIs(t, "an image that is in use", err, block.Busy)
	kindIs(t, "removing it under a client", h.Remove(t.Context(), "a", false), block.Busy)
	mustRead(t, c, 4096, []byte("hello"))
	if st, err := h.Show("a"); err != nil || st.Connections != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	waitFor(t, "the client to leave", func() bool { st, _ := h.Show("a"); return st.Connections == 0 })
	if err := h.Remove(t.Context(), "a", false); err != nil {
		t.Error(err)
	}
	if list := h.List(); len(list) != 0 {
		t.Errorf("still listed: %+v", list)
	}
	kindIs(t, "removing it again", h.Remove(t.Context(), "a", false), block.NotFound)
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data[4096:4101], []byte("hello")) {
		t.Errorf("the image has %q (%v)", data[4096:4101], err)
	}
	h.add(spec.Spec{Name: "b", URL: path}) // its lock is free
}

// A client that writes all the time is sent away between two requests: what was
// acknowledged is in the image.
func TestForcedRemoval(t *testing.T) {
	h := newHouse(t, nil)
	path := h.image("a.img", 1)
	h.add(spec.Spec{Name: "a", URL: path})
	c := h.dial("a")
	var acknowledged atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := int64(0); ; n++ {
			p := bytes.Repeat([]byte{byte(n)}, 512)
			if err := c.WriteAt(t.Context(), p, n%2048*512, 0); err != nil {
				return
			}
			acknowledged.Store(n + 1)
		}
	})
	waitFor(t, "some writes", func() bool { return acknowledged.Load() > 100 })
	if err := h.Remove(t.Context(), "a", true); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	writing.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := acknowledged.Load()
	for k := max(n-2048, 0); k < n; k++ {
		if got := data[k%2048*512]; got != byte(k) && got != byte(n) {
			t.Fatalf("write %d of %d is not there: %d", k, n, got)
		}
	}
}

// What is added survives, what was removed does not come back, and what could not
// be added leaves nothing.
func TestRestore(t *testing.T) {
	h := newHouse(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		h.add(spec.Spec{Name: name, URL: h.image(name+".img", 1), Settings: spec.Settings{Throttle: spec.Throttle{ReadIOPS: 7}}})
	}
	mustWrite(t, h.dial("b"), 0, []byte("kept"))
	if err := h.Remove(t.Context(), "c", true); err != nil {
		t.Fatal(err)
	}
	bad := []spec.Spec{
		{Name: "bad1", URL: filepath.Join(h.dir, "missing.img")},
		{Name: "bad2", URL: h.dir},
		{Name: "bad3", URL: "nothing://x"},
		{Name: "bad4", URL: h.image("d.img", 1), NBD: []string{"unix:" + h.dir + "/own", "unix:/nowhere/at/all"}},
		{Name: "bad5", URL: h.image("e.qcow2", 1)},
		{Name: "no/slash", URL: "mem://1M"},
		{Name: "bad7", URL: "here.img"},
		{Name: "bad8", URL: "mem://1M", Allow: []string{"host1"}},
		{Name: "bad6", URL: "mem://1M", Settings: spec.Settings{Faults: []string{"read:error=io"}}},
	}
	for _, s := range bad {
		if _, err := h.Add(t.Context(), s); err == nil {
			t.Errorf("%s was added", s.Name)
		} else {
			t.Log(err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "own")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a socket was left behind (%v)", err)
	}
	h.add(spec.Spec{Name: "d", URL: filepath.Join(h.dir, "d.img")}) // not locked any more

	h.stop()
	h.start(nil)
	if err := h.Restore(); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	var names []string
	for _, st := range h.List() {
		names = append(names, st.Spec.Name)
		if st.State != Serving {
			t.Errorf("%+v", st)
		}
	}
	if fmt.Sprint(names) != "[a b d]" {
		t.Errorf("after a restart: %v", names)
	}
	if st, _ := h.Show("a"); st.Spec.Throttle.ReadIOPS != 7 {
		t.Errorf("settings are lost: %+v", st.Spec)
	}
	mustRead(t, h.dial("b"), 0, []byte("kept"))
}

// An image that is not there when the daemon starts is waited for, and so is the
// client.
func TestImageComesLater(t *testing.T) {
	h := newHouse(t, nil)
	path := h.image("a.img", 1)
	h.add(spec.Spec{Name: "a", URL: path})
	h.add(spec.Spec{Name: "gone", URL: h.image("gone.img", 1)})
	h.stop()
	for _, name := range []string{"a.img", "gone.img"} {
		if err := os.Rename(filepath.Join(h.dir, name), filepath.Join(h.dir, name+".away")); err != nil {
			t.Fatal(err)
		}
	}
	h.start(nil)
	if err := h.Restore(); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	st, err := h.Show("a")
	if err != nil || st.State != Opening || st.Error == "" {
		t.Errorf("%+v, %v", st, err)
	}
	if err := h.Remove(t.Context(), "gone", false); err != nil {
		t.Errorf("removing what is not open: %v", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := nbd.Dial(t.Context(), h.URIs("a")[0], nbd.ClientConfig{})
		if err == nil {
			err = c.Close()
		}
		dialed <- err
	}()
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if err := <-dialed; err != nil {
		t.Errorf("the client: %v", err)
	}
	if st, _ := h.Show("a"); st.State != Serving || st.Error != "" {
		t.Errorf("%+v", st)
	}
}

// What cannot get better is not tried again until somebody asks.
func TestImageFails(t *testing.T) {
	h := newHouse(t, nil)
	folder := filepath.Join(h.dir, "f")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.Configure(t.Context(), []spec.Spec{{Name: "f", URL: folder}}); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	st, _ := h.Show("f")
	if st.State != Failed || st.Error == "" || st.Source != FromConfig {
		t.Errorf("%+v", st)
	}
	if _, err := nbd.Dial(t.Context(), h.URIs("f")[0], nbd.ClientConfig{}); err == nil {
		t.Error("a client got in")
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	h.image("f", 1)
	if _, err := h.Resume(t.Context(), "f"); err != nil {
		t.Error(err)
	}
	waitFor(t, "the image to be opened", func() bool { st, _ := h.Show("f"); return st.State == Serving })
	h.dial("f")
}

func TestOwnSockets(t *testing.T) {
	h := newHouse(t, nil)
	own := filepath.Join(h.dir, "own")
	st := h.add(spec.Spec{Name: "a", URL: "mem://1M", NBD: []string{"unix:" + own}, MaxConnections: 2})
	h.add(spec.Spec{Name: "b", URL: "mem://1M"})
	if len(st.URIs) != 2 {
		t.Fatalf("uris %v", st.URIs)
	}
	for _, name := range []string{"", "a"} {
		c, err := nbd.Dial(t.Context(), "nbd+unix:///"+name+"?socket="+own, nbd.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, c, 0, []byte("x"))
		defer func() { _ = c.Close() }()
	}
	for _, name := range []string{"b", "", "a"} { // another export, and one client too many
		if _, err := nbd.Dial(t.Context(), "nbd+unix:///"+name+"?socket="+own, nbd.ClientConfig{}); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
	if err := h.Remove(t.Context(), "a", true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestConfigure(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "api", URL: "mem://1M"})
	list := []spec.Spec{{Name: "a", URL: "mem://1M"}, {Name: "b", URL: "mem://1M"}, {Name: "c", URL: "mem://1M"}}
	if err := h.Configure(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	a, b := h.dial("a"), h.dial("b")
	mustWrite(t, a, 0, []byte("stays"))
	mustWrite(t, b, 0, []byte("goes"))
	_ = b.Close()
	kindIs(t, "removing it by hand", h.Remove(t.Context(), "a", true), block.Permission)
	err := h.Configure(t.Context(), []spec.Spec{
		{Name: "a", URL: "mem://1M", Settings: spec.Settings{OnError: spec.OnError{Policy: "error"}}},
		{Name: "b", URL: "mem://2M"},
		{Name: "api", URL: "mem://1M"},
		{Name: "d", URL: "mem://1M"},
	})
	kindIs(t, "a name that was taken at run time", err, block.Exists)
	h.Settled(t.Context())
	mustRead(t, a, 0, []byte("stays")) // on the same connection
	if a.Reconnects() != 0 {
		t.Error("a change of settings cut the client off")
	}
	got := map[string]string{}
	for _, st := range h.List() {
		got[st.Spec.Name] = fmt.Sprint(st.Source, st.Size>>20, st.Spec.OnError.Policy)
	}
	want := map[string]string{"a": "config1error", "b": "config2", "d": "config1", "api": "api1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestThousandExports(t *testing.T) {
	h := newHouse(t, nil)
	begin := time.Now()
	for n := range 1000 {
		h.add(spec.Spec{Name: fmt.Sprintf("disk-%04d", n), URL: h.image(fmt.Sprintf("%d.img", n), 1)})
	}
	t.Logf("1000 exports added in %v", time.Since(begin))
	listed := time.Hour
	for range 5 {
		begin = time.Now()
		if n := len(h.List()); n != 1000 {
			t.Errorf("%d exports", n)
		}
		listed = min(listed, time.Since(begin))
	}
	lab.Goal(t, "the quickest list", listed, 100*time.Millisecond, 2*time.Second)
	mustWrite(t, h.dial("disk-0999"), 0, []byte("last"))
	h.stop()
	begin = time.Now()
	h.start(nil)
	if err := h.Restore(); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	t.Logf("restored in %v", time.Since(begin))
	for _, st := range h.List() {
		if st.State != Serving {
			t.Fatalf("%+v", st)
		}
	}
	mustRead(t, h.dial("disk-0999"), 0, []byte("last"))
}
