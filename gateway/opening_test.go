package gateway

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"sluice/block"
	"sluice/gateway/spec"
)

// away restarts the Gateway while an image is away, and gives what brings it back.
func (h *house) away(image string) (back func()) {
	h.t.Helper()
	path, files := filepath.Join(h.dir, image), h.cfg.Files
	h.stop()
	if err := os.Rename(path, path+".away"); err != nil {
		h.t.Fatal(err)
	}
	h.again(func(c *Config) { c.Files = files })
	return func() {
		h.t.Helper()
		if err := os.Rename(path+".away", path); err != nil {
			h.t.Fatal(err)
		}
	}
}

// again starts the Gateway anew with the exports that it had.
func (h *house) again(change func(*Config)) {
	h.t.Helper()
	h.start(change)
	if err := h.Restore(); err != nil {
		h.t.Fatal(err)
	}
	h.Settled(h.t.Context())
}

func (h *house) serves(name string) func() bool {
	return func() bool { st, err := h.Show(name); return err == nil && st.State == Serving }
}

// A removal that is given up does not end the attempts to open the image.
func TestRemovalGivenUpWhileOpening(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1)})
	back := h.away("a.img")
	e, err := h.find("test", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.control.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		kindIs(t, "a removal that is given up", h.Remove(ctx, "a", true), block.Canceled)
	}
	e.control.unlock()
	back()
	waitFor(t, "the image to be opened", h.serves("a"))
	if err := h.Remove(t.Context(), "a", false); err != nil {
		t.Error(err)
	}
}

// What is changed while the image is away does not lose its size, without which the
// next process cannot show the file.
func TestSizeLastsWhileOpening(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 3)})
	back := h.away("a.img")
	defer back()
	if _, err := h.Change(t.Context(), "a", spec.Settings{OnError: spec.OnError{Policy: "error"}}); err != nil {
		t.Fatal(err)
	}
	records, err := h.state.All()
	if err != nil || len(records) != 1 || records[0].Size != 3<<20 || records[0].Spec.OnError.Policy != "error" {
		t.Errorf("%+v, %v", records, err)
	}
}

// An export of the configuration that was never open goes, or is replaced, without
// an error.
func TestReloadWithoutWhatNeverOpened(t *testing.T) {
	h := newHouse(t, nil)
	missing := filepath.Join(h.dir, "missing.img")
	if err := h.Configure(t.Context(), []spec.Spec{{Name: "a", URL: missing}, {Name: "b", URL: missing}}); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	if err := h.Configure(t.Context(), []spec.Spec{{Name: "b", URL: h.image("b.img", 1)}}); err != nil {
		t.Errorf("a reload that worked: %v", err)
	}
	h.Settled(t.Context())
	if list := h.List(); len(list) != 1 || list[0].Spec.Name != "b" || list[0].State != Serving {
		t.Errorf("%+v", list)
	}
}

// An attempt that comes after the one that has opened the image, although that one was
// given up, leaves everything as it is.
func TestOpenedIsNotOpenedAgain(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1), ReadOnly: true}) // without a lock against a second one
	e, err := h.find("test", "a")
	if err != nil {
		t.Fatal(err)
	}
	before := e.stack
	if !e.tryOpen(t.Context()) || e.stack != before || !h.serves("a")() {
		t.Error("the image was opened again")
	}
}
