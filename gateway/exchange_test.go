package gateway

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"sluice/block"
	"sluice/gateway/image"
	"sluice/gateway/spec"
)

// copied is a Next that copies an image to a file, and closes the old one.
func copied(path string) Next {
	return func(ctx context.Context, old block.Device, keep func(Image) error) (block.Device, error) {
		next, err := image.Open(ctx, path, image.Format{Name: "raw"}, block.OpenOptions{})
		if err != nil {
			return nil, err
		}
		p := make([]byte, old.Info().Size)
		err = errors.Join(old.ReadAt(ctx, p, 0), next.WriteAt(ctx, p, 0, 0), next.Flush(ctx))
		if err == nil {
			err = keep(Image{URL: path, Format: "raw"})
		}
		if err != nil {
			return nil, errors.Join(err, next.Close())
		}
		return next, old.Close()
	}
}

// An export is its new image for the next process, too.
func TestExchangeLasts(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.image("a.img", 1), h.image("b.img", 2)
	h.add(spec.Spec{Name: "x", URL: a})
	c := h.dial("x")
	mustWrite(t, c, 0, []byte("old"))
	if err := h.Exchange(t.Context(), "x", copied(b)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, 1000, []byte("new"))
	records, err := h.state.All() // what a process finds that comes after this was killed
	if err != nil || len(records) != 1 || records[0].Spec.URL != b || records[0].Spec.Format != "raw" || records[0].Size != 2<<20 {
		t.Errorf("%+v, %v", records, err)
	}
	h.stop()
	h.again(nil)
	c = h.dial("x")
	mustRead(t, c, 0, []byte("old"))
	mustRead(t, c, 1000, []byte("new"))
	h.add(spec.Spec{Name: "a", URL: a}) // nobody has it any more
}

// An exchange that fails after it was kept, or that cannot be kept, changes nothing.
func TestExchangeThatFails(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.image("a.img", 1), h.image("b.img", 1)
	h.add(spec.Spec{Name: "x", URL: a})
	c := h.dial("x")
	stays := func(when string) {
		t.Helper()
		mustWrite(t, c, 0, []byte(when))
		mustRead(t, c, 0, []byte(when))
		if st, err := h.Show("x"); err != nil || st.Spec.URL != a || st.State != Serving {
			t.Errorf("%s: %+v, %v", when, st, err)
		}
	}
	err := h.Exchange(t.Context(), "x", func(_ context.Context, _ block.Device, keep func(Image) error) (block.Device, error) {
		if err := keep(Image{URL: b}); err != nil {
			t.Error(err)
		}
		return nil, block.NoSpace
	})
	kindIs(t, "an exchange that fails in the end", err, block.NoSpace)
	stays("after a failure")
	if records, err := h.state.All(); err != nil || records[0].Spec.URL != a {
		t.Errorf("%+v, %v", records, err)
	}
	kindIs(t, "an image that is somewhere else tomorrow", h.Exchange(t.Context(), "x", keeps("b.img")), block.Invalid)
	stays("after a bad name")
	if err := h.state.Close(); err != nil {
		t.Fatal(err)
	}
	kindIs(t, "an exchange that cannot be kept", h.Exchange(t.Context(), "x", copied(b)), block.Closed)
	stays("without the state")
}

// keeps is a Next that says where its image is, and stays with the old one.
func keeps(url string) Next {
	return func(_ context.Context, old block.Device, keep func(Image) error) (block.Device, error) {
		return old, keep(Image{URL: url})
	}
}

// The configuration says what its exports' images are; new layers are another thing.
func TestExchangeOfTheConfiguration(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.image("a.img", 1), h.image("b.img", 1)
	list := []spec.Spec{{Name: "x", URL: a}}
	if err := h.Configure(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	h.Settled(t.Context())
	c := h.dial("x")
	kindIs(t, "another image", h.Exchange(t.Context(), "x", copied(b)), block.Permission)
	if err := h.Exchange(t.Context(), "x", keeps(filepath.Join(h.dir, "a.img"))); err != nil {
		t.Error(err)
	}
	if err := h.Configure(t.Context(), list); err != nil {
		t.Error(err)
	}
	mustWrite(t, c, 0, []byte("still"))
	if c.Reconnects() != 0 {
		t.Error("the client was cut off")
	}
}
