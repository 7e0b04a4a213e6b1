//go:build interop

package gateway

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"sluice/fusefs"
	"sluice/gateway/spec"
)

// anotherMount mounts until the test ends; before that the Gateway ends.
func anotherMount(t *testing.T) *fusefs.FS {
	t.Helper()
	files, err := fusefs.Mount(fusefs.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return files
}

// controlled gives exports that somebody is busy with, and what ends that.
func (h *house) controlled(names ...string) (free func()) {
	h.t.Helper()
	var busy []*export
	for _, name := range names {
		e, err := h.find("test", name)
		if err != nil {
			h.t.Fatal(err)
		}
		if err := e.control.lock(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		busy = append(busy, e)
	}
	return func() {
		for _, e := range busy {
			e.control.unlock()
		}
	}
}

// An export that is busy when the files are mounted again is named, and has its file
// after the next reload; one that has its file is not waited for.
func TestFilesOfBusyExportsAfterARemount(t *testing.T) {
	files := anotherMount(t)
	h := newHouseWithFiles(t, nil)
	for _, name := range []string{"busy", "opening", "calm"} {
		h.add(spec.Spec{Name: name, URL: h.image(name+".img", 1)})
	}
	back := h.away("opening.img")
	events := h.Subscribe(t.Context(), 0)
	h.Unmounted()
	free := h.controlled("busy", "opening")
	ctx, cancel := context.WithCancel(t.Context())
	told := begun(func() error { return h.Remounted(ctx, files) })
	waitFor(t, "the file of the calm one", func() bool { return files.Has("calm") })
	cancel()
	err := <-told
	if err == nil || !strings.Contains(err.Error(), "of busy") || !strings.Contains(err.Error(), "of opening") || strings.Contains(err.Error(), "calm") {
		t.Fatalf("mounted again: %v", err)
	}
	if st, err := h.Show("busy"); err != nil || st.File != "" || !strings.Contains(st.FileError, "reload") {
		t.Errorf("%+v, %v", st, err)
	}
	free()
	free = h.controlled("calm")
	if err := h.Remounted(t.Context(), files); err != nil {
		t.Errorf("the next reload: %v", err)
	}
	free()
	back()
	for _, name := range []string{"busy", "opening", "calm"} {
		waitFor(t, "the image of "+name, h.serves(name))
		if st, _ := h.Show(name); st.File != filepath.Join(files.Dir(), name) {
			t.Errorf("%+v", st)
		}
	}
	h.Unmounted()
	if err := h.Remounted(t.Context(), files); err != nil || h.files.Load() != nil {
		t.Errorf("what is unmounted is used again (%v)", err)
	}
	h.Announce(Event{Kind: Reloaded})
	var mounted int
	for ev := range events {
		if ev.Kind == Mounted {
			mounted++
		}
		if ev.Kind == Reloaded {
			break
		}
	}
	if mounted != 1 {
		t.Errorf("told of %d mounts", mounted)
	}
}
