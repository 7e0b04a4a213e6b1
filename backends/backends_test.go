package backends

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"sluice/block"
)

var ctx = context.Background()

func TestOpenBySchemeAndPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.img")
	store, name, err := Locate(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Create(ctx, name, block.CreateOptions{Size: 4096}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	for _, url := range []string{"mem://4K", path, "file://" + path} {
		d, err := Open(ctx, url, block.OpenOptions{})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if d.Info().Size != 4096 {
			t.Errorf("%s: %+v", url, d.Info())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsAreOneLineThatNamesTheObject(t *testing.T) {
	for url, want := range map[string][2]string{
		"nosuch://u:secret@x/y": {`unknown scheme "nosuch"`, "known: file, mem"},
		"mem://4K?a=b":          {`unknown parameter "a"`, "mem://4K"},
		"file:///x?a=b":         {`unknown parameter "a"`, "file:///x"},
		"nfs://u:secret@x/a":    {"uid and gid", "nfs://x/a"},
		"nfs://x/a?vers=4.0":    {"no sessions", "nfs://x/a"},
		"/no/such/file":         {"no such file", "/no/such/file"},
	} {
		d, err := Open(ctx, url, block.OpenOptions{})
		if err == nil {
			t.Errorf("%s: %v", url, d)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q has no %q", url, err, part)
			}
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q", err)
		}
	}
}

func TestMemoryHasNoStore(t *testing.T) {
	if s, err := OpenStore(ctx, "mem://1G"); block.KindOf(err) != block.Unsupported {
		t.Errorf("%v, %v", s, err)
	}
	if s, _, err := Locate(ctx, "mem://1G"); block.KindOf(err) != block.Unsupported {
		t.Errorf("%v, %v", s, err)
	}
	if s, err := OpenStore(ctx, "other://x"); block.KindOf(err) != block.Invalid {
		t.Errorf("%v, %v", s, err)
	}
}
