package imagecopy

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/backends/file"
	"sluice/block"
	"sluice/block/blocktest"
)

// folder gives a store on a new folder.
func folder(t *testing.T) (store block.Store, dir string) {
	t.Helper()
	dir = t.TempDir()
	store, err := file.OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, dir
}

func stage(t *testing.T, store block.Store, name string) *Stage {
	t.Helper()
	s, err := NewStage(t.Context(), store, name, block.CreateOptions{Size: 4096}, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Device.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 4096), 0, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// names gives what is in the folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestStageIsHiddenUntilCommit(t *testing.T) {
	store, dir := folder(t)
	s := stage(t, store, "disk.img")
	if n := names(t, dir); len(n) != 1 || !strings.HasPrefix(n[0], ".disk.img.") || !strings.HasSuffix(n[0], ".part") {
		t.Fatalf("the folder holds %v", n)
	}
	if err := s.Commit(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "disk.img"))
	if n := names(t, dir); err != nil || len(n) != 1 || !bytes.Equal(content, bytes.Repeat([]byte{1}, 4096)) {
		t.Errorf("%v, %v, %d bytes", n, err, len(content))
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	store, dir := folder(t)
	s := stage(t, store, "disk.img")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Abort(ctx)
	if n := names(t, dir); len(n) != 0 {
		t.Errorf("the folder holds %v", n)
	}
}

// TestTheFirstOneGetsTheName commits an image whose name was taken meanwhile.
func TestTheFirstOneGetsTheName(t *testing.T) {
	store, dir := folder(t)
	s := stage(t, store, "disk.img")
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), false); block.KindOf(err) != block.Exists {
		t.Errorf("error %v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "mine" || len(names(t, dir)) != 1 {
		t.Errorf("%q, %v, %v", content, err, names(t, dir))
	}
	s = stage(t, store, "disk.img")
	if err := s.Commit(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(path); err != nil || len(content) != 4096 || len(names(t, dir)) != 1 {
		t.Errorf("%d bytes, %v, %v", len(content), err, names(t, dir))
	}
}

// TestReplacingKeepsTheMode takes the mode that the old image has at the end.
func TestReplacingKeepsTheMode(t *testing.T) {
	store, dir := folder(t)
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	s, err := NewStage(t.Context(), store, "disk.img", block.CreateOptions{Size: 4096, Private: true}, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mode := func(path string, want os.FileMode) {
		t.Helper()
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("mode %v, %v; want %v", st.Mode(), err, want)
		}
	}
	temporary := filepath.Join(dir, s.temporary)
	mode(temporary, 0o600)
	if err := s.Inherit(t.Context()); err != nil {
		t.Fatal(err)
	}
	mode(temporary, 0o640)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	mode(path, 0o600)
	if st, err := os.Stat(path); err != nil || st.Size() != 4096 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := stage(t, store, "disk.img").Commit(t.Context(), true); err != nil {
		t.Errorf("nothing to inherit from: %v", err)
	}
}

// linkless is a store on a file system without hard links.
type linkless struct {
	block.Store
	block.Renamer
}

func (linkless) Link(_ context.Context, _, to string) error {
	return block.Errorf(block.Permission, "link", to, -1, "")
}

func TestStageWithoutHardLinks(t *testing.T) {
	real, dir := folder(t)
	store := linkless{real, real.(block.Renamer)}
	if err := stage(t, store, "a").Commit(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := stage(t, store, "a").Commit(t.Context(), false); block.KindOf(err) != block.Exists {
		t.Errorf("error %v", err)
	}
	if n := names(t, dir); len(n) != 1 || n[0] != "a" {
		t.Errorf("the folder holds %v", n)
	}
}

// sticky is a store whose images cannot be removed.
type sticky struct {
	block.Store
	block.Linker
}

func (sticky) Remove(_ context.Context, name string) error {
	return block.Errorf(block.IO, "remove", name, -1, "")
}

// TestATemporaryNameThatStays: the image has its name, and that is what counts.
func TestATemporaryNameThatStays(t *testing.T) {
	real, dir := folder(t)
	s := stage(t, sticky{real, real.(block.Linker)}, "disk.img")
	if err := s.Commit(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "disk.img"))
	if err != nil || !bytes.Equal(content, bytes.Repeat([]byte{1}, 4096)) {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	if n := names(t, dir); len(n) != 2 || n[0] != s.Left {
		t.Errorf("the folder holds %v, %q is said to be left", n, s.Left)
	}
	if s = stage(t, real, "other.img"); s.Commit(t.Context(), false) != nil || s.Left != "" {
		t.Errorf("%q is said to be left", s.Left)
	}
}

// watched is a store that notes, in order, what makes an image durable and what
// gives it its name.
type watched struct {
	block.Store
	linkless bool
	events   []string // with one request at a time there is one goroutine
}

func (w *watched) Open(ctx context.Context, name string, opts block.OpenOptions) (block.Device, error) {
	dev, err := w.Store.Open(ctx, name, opts)
	if err != nil {
		return nil, err
	}
	return blocktest.NewFaultDevice(dev, nil, blocktest.InjectorFunc(func(op blocktest.Op) error {
		if len(w.events) == 0 || w.events[len(w.events)-1] != string(op.Kind) || op.Kind == blocktest.OpFlush {
			w.events = append(w.events, string(op.Kind))
		}
		return nil
	})), nil
}

func (w *watched) Link(ctx context.Context, from, to string) error {
	if w.linkless {
		return block.Errorf(block.Unsupported, "link", to, -1, "")
	}
	w.events = append(w.events, "link")
	return w.Store.(block.Linker).Link(ctx, from, to)
}

func (w *watched) Rename(ctx context.Context, from, to string) error {
	w.events = append(w.events, "rename")
	return w.Store.(block.Renamer).Rename(ctx, from, to)
}

// TestTheImageIsDurableBeforeItHasItsName: one flush, after the last write and
// before the name, whichever way the image gets it.
func TestTheImageIsDurableBeforeItHasItsName(t *testing.T) {
	for _, c := range []struct {
		name               string
		replaces, linkless bool
		want               string
	}{
		{"link", false, false, "write flush close link"},
		{"rename", false, true, "write flush close rename"},
		{"replace", true, false, "write flush close rename"},
	} {
		real, dir := folder(t)
		if c.replaces {
			if err := os.WriteFile(filepath.Join(dir, "disk.img"), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		content := bytes.Repeat([]byte{9}, 1<<20)
		store := &watched{Store: real, linkless: c.linkless}
		s, err := NewStage(t.Context(), store, "disk.img", block.CreateOptions{Size: 1 << 20}, block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), s.Device, ram(t, content), Options{NoFlush: true, Requests: 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), c.replaces); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(store.events, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "disk.img")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
	}
}

func TestStageNeedsRename(t *testing.T) {
	real, dir := folder(t)
	_, err := NewStage(t.Context(), struct{ block.Store }{real}, "a", block.CreateOptions{}, block.OpenOptions{})
	if block.KindOf(err) != block.Unsupported || len(names(t, dir)) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestLongNames(t *testing.T) {
	store, dir := folder(t)
	name := strings.Repeat("n", 255)
	if err := stage(t, store, name).Commit(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if n := names(t, dir); len(n) != 1 || n[0] != name {
		t.Errorf("the folder holds %v", n)
	}
}
