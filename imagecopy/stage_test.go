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
