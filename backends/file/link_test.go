package file

import (
	"os"
	"path/filepath"
	"testing"

	"sluice/block"
)

// Whoever holds the image is seen through a descriptor that may only read, from
// within the process too.
func TestInUse(t *testing.T) {
	path := newFile(t, t.TempDir(), 4096)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	mode := func(mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		opts block.OpenOptions
		want bool
	}{
		{block.OpenOptions{}, true}, {block.OpenOptions{ReadOnly: true}, true}, {block.OpenOptions{Share: true}, true},
		{block.OpenOptions{ReadOnly: true, Share: true}, true}, {block.OpenOptions{Unlocked: true}, false},
	} {
		mode(0o600)
		d := openFile(t, path, c.opts)
		mode(0o400)
		for _, url := range []string{path, link, "file://" + path} {
			if got, err := InUse(url); got != c.want || err != nil {
				t.Errorf("%s, %+v: %v, %v", url, c.opts, got, err)
			}
		}
		other := openFile(t, path, block.OpenOptions{ReadOnly: true, Unlocked: true})
		wantKind(t, other.Close(), block.OK, "close")
		wantKind(t, d.Close(), block.OK, "close")
		if got, err := InUse(path); got || err != nil {
			t.Errorf("closed: %v, %v", got, err)
		}
	}
	_, err := InUse(filepath.Join(path, "none"))
	wantKind(t, err, block.Invalid, "beneath a file")
	_, err = InUse(path + ".none")
	wantKind(t, err, block.NotFound, "nothing")
	_, err = InUse("/dev/null")
	wantKind(t, err, block.Invalid, "no image")
}

// Removing a link removes the link, wherever it leads and whether to anything.
func TestRemovingALinkKeepsItsTarget(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	targets := []string{filepath.Join(far, "far.img"), filepath.Join(dir, "near.img")}
	for _, path := range targets {
		if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"far": targets[0], "near": "near.img", "dangling": "none", "folder": far, "self": "self"} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		s, entry, err := LocateEntry(ctx, link)
		if err != nil || entry != name {
			t.Fatalf("%s: %q, %v", name, entry, err)
		}
		e, err := s.(*Store).Lstat(ctx, entry)
		if err != nil || e.Kind != "symlink" || e.Name != name {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		wantKind(t, s.Remove(ctx, entry), block.OK, name)
		wantKind(t, s.Close(), block.OK, "close")
		if _, err := os.Lstat(link); !os.IsNotExist(err) {
			t.Errorf("%s: the link is still there (%v)", name, err)
		}
	}
	for _, path := range targets {
		if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, url := range []string{dir + "/", "/", ".", "..", dir + "/..", ""} {
		_, _, err := LocateEntry(ctx, url)
		wantKind(t, err, block.Invalid, url)
	}
}

// After a link, ".." is where the system says, not where the text does: an image
// is located where Open finds it.
func TestLocateBehindALinkAndBack(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	for path, content := range map[string]string{filepath.Join(dir, "x.img"): "near", filepath.Join(far, "x.img"): "far, longer"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(far, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(far, "sub"), filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	url := dir + "/sub/../x.img"
	for _, f := range []func(string) (block.Store, string, error){
		func(url string) (block.Store, string, error) { return Locate(ctx, url) },
		func(url string) (block.Store, string, error) { return LocateEntry(ctx, url) },
	} {
		s, name, err := f(url)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := s.Stat(ctx, name); err != nil || e.Size != 11 {
			t.Errorf("%+v, %v", e, err)
		}
		wantKind(t, s.Close(), block.OK, "close")
	}
}
