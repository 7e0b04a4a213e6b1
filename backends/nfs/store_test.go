package nfs

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/block"
)

var (
	_ block.Renamer     = (*Store)(nil)
	_ block.Linker      = (*Store)(nil)
	_ block.Inheriter   = (*Store)(nil)
	_ block.LinkTeller  = (*Store)(nil)
	_ block.SpaceTeller = (*Store)(nil)
)

// folder gives the store of a server's folder /images.
func folder(t testing.TB) (*server, *Store) {
	t.Helper()
	s := newServer()
	store, err := openStore(background, s.pool(), config(t, "nfs://filer/images"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, store.Close) })
	return s, store
}

func TestStoreNames(t *testing.T) {
	s, store := folder(t)
	s.file("/images/b.img", make([]byte, 100))
	s.file("/images/a.img", nil)
	s.file("/secret", nil)
	s.put("/images/sub", remote.Directory)
	s.file("/images/sub/c.img", nil)
	s.put("/images/link", remote.Symlink).to = "/images/b.img"
	entries, err := store.List(background, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name+" "+e.Kind)
	}
	if want := []string{"a.img file", "b.img file", "link symlink", "sub dir"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	if entries, err = store.List(background, "sub"); err != nil || len(entries) != 1 || entries[0].Name != "sub/c.img" {
		t.Error(entries, err)
	}
	if e, err := store.Stat(background, "link"); err != nil || e.Size != 100 || e.Kind != "file" {
		t.Error(e, err)
	}
	if e, err := store.Lstat(background, "link"); err != nil || e.Kind != "symlink" {
		t.Error(e, err)
	}
	if err := store.Remove(background, "link"); err != nil || s.nodes["/images/b.img"] == nil || s.nodes["/images/link"] != nil {
		t.Error(err)
	}
	if total, free, err := store.Space(background); total != 100 || free != 40 || err != nil {
		t.Error(total, free, err)
	}
}

func TestNamesStayInside(t *testing.T) {
	s, store := folder(t)
	s.file("/secret", nil)
	s.file("/images/a.img", nil)
	for _, name := range []string{"../secret", "sub/../../secret", "/secret", "..", ".", "", "a/", "a\x00b", "./."} {
		_, statErr := store.Stat(background, name)
		_, openErr := store.Open(background, name, block.OpenOptions{})
		for i, err := range []error{
			statErr, openErr, store.Create(background, name, block.CreateOptions{}), store.Remove(background, name),
			store.Rename(background, "a.img", name), store.Rename(background, name, "x"),
			store.Link(background, "a.img", name), store.Inherit(background, "a.img", name),
		} {
			if block.KindOf(err) != block.Invalid {
				t.Errorf("%q, %d: %v", name, i, err)
			}
		}
	}
	if _, err := store.List(background, "../"); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
}

func TestStoreChanges(t *testing.T) {
	s, store := folder(t)
	s.file("/images/a.img", make([]byte, 100))
	s.nodes["/images/a.img"].attr.Mode, s.nodes["/images/a.img"].attr.UID = 0o640, 36
	s.put("/images/sub", remote.Directory)
	if err := store.Link(background, "a.img", "b.img"); err != nil {
		t.Error(err)
	}
	if err := store.Link(background, "a.img", "b.img"); block.KindOf(err) != block.Exists || !says(err, "nfs://filer/images/b.img") {
		t.Error(err)
	}
	if err := store.Rename(background, "b.img", "sub/c.img"); err != nil || s.nodes["/images/sub/c.img"] == nil {
		t.Error(err)
	}
	if err := store.Remove(background, "sub"); block.KindOf(err) != block.Invalid || !says(err, "directory") {
		t.Error(err)
	}
	if err := store.Remove(background, "none"); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	n := s.file("/images/new", nil)
	n.attr.Mode = 0o600
	if err := store.Inherit(background, "a.img", "new"); err != nil || n.attr.Mode != 0o640 || n.attr.UID != 36 {
		t.Error(err, n.attr)
	}
	if err := store.Inherit(background, "none", "new"); block.KindOf(err) != block.NotFound {
		t.Error(err)
	}
	s.nodes["/images/a.img"].attr.UID = nobody
	if err := store.Inherit(background, "a.img", "new"); block.KindOf(err) != block.Unsupported {
		t.Error(err)
	}
}

func TestCreate(t *testing.T) {
	for _, mode := range []block.Preallocation{
		"", block.PreallocateOff, block.PreallocateMetadata, block.PreallocateFalloc, block.PreallocateFull,
	} {
		s, store := folder(t)
		const size = 300000
		if err := store.Create(background, "a.img", block.CreateOptions{Size: size, Preallocate: mode, Private: true}); err != nil {
			t.Fatal(mode, err)
		}
		n := s.nodes["/images/a.img"]
		if n.attr.Mode != 0o600 || n.data.Info().Size != size || len(s.open) != 0 {
			t.Errorf("%q: %+v", mode, n.attr)
		}
		extents, err := n.data.Extents(background, 0, size, make([]block.Extent, 0, 1))
		allocated := mode == block.PreallocateFalloc || mode == block.PreallocateFull
		if err != nil || (extents[0].State&block.Hole == 0) != allocated {
			t.Errorf("%q: %v, %v", mode, extents, err)
		}
		err = store.Create(background, "a.img", block.CreateOptions{Size: 1})
		if block.KindOf(err) != block.Exists || n.data.Info().Size != size || !says(err, "create nfs://filer/images/a.img") {
			t.Error(err)
		}
		durable(t, s, 0, size, 0)
	}
}

func TestCreateMode(t *testing.T) {
	s, store := folder(t)
	if err := store.Create(background, "a.img", block.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := s.nodes["/images/a.img"].attr.Mode; got != 0o644&^umask() {
		t.Errorf("mode %o", got)
	}
}

func TestAFailedCreateLeavesNothing(t *testing.T) {
	s, store := folder(t)
	s.limits.Allocate = false
	err := store.Create(background, "a.img", block.CreateOptions{Size: 4096, Preallocate: block.PreallocateFalloc})
	if block.KindOf(err) != block.Unsupported || s.nodes["/images/a.img"] != nil {
		t.Error(err)
	}
	s.limits.Allocate = true
	var stuck atomic.Bool
	s.on = func(op string) error {
		switch {
		case op == "WRITE" || op == "ALLOCATE":
			return refusal(op, nfsstat.NoSpc)
		case op == "REMOVE" && stuck.Load():
			return refusal(op, nfsstat.Access)
		}
		return nil
	}
	for _, mode := range []block.Preallocation{block.PreallocateFalloc, block.PreallocateFull} {
		err := store.Create(background, "a.img", block.CreateOptions{Size: 1 << 20, Preallocate: mode})
		if block.KindOf(err) != block.NoSpace || s.nodes["/images/a.img"] != nil || len(s.open) != 0 {
			t.Error(err)
		}
	}
	stuck.Store(true)
	err = store.Create(background, "a.img", block.CreateOptions{Size: 4096, Preallocate: block.PreallocateFull})
	if !errors.Is(err, nfsstat.NoSpc) || !says(err, "could not be removed") {
		t.Error(err)
	}
	for _, opts := range []block.CreateOptions{{Size: -1}, {Preallocate: "half"}} {
		if err := store.Create(background, "b.img", opts); block.KindOf(err) != block.Invalid || s.nodes["/images/b.img"] != nil {
			t.Error(err)
		}
	}
}

func TestOpenThroughAStore(t *testing.T) {
	s := newServer()
	s.file(image, make([]byte, 4096))
	p := s.pool()
	store, err := openStore(background, p, config(t, "nfs://filer/images?share=on&wsize=4K"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := store.Open(background, "a.img", block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, store.Close)
	if f := d.(*Device).file.(*fakeFile); !f.opts.Share || d.(*Device).wsize != 4096 {
		t.Error("the URL's parameters are lost")
	}
	expect(t, d, 0, 4096, 0) // the store's Close is not the Device's
	closeAll(t, d.Close)
	if n := s.counted(&s.clients); n != 0 {
		t.Errorf("%d clients left", n)
	}
}

// TestLocate goes through the functions of the registry, on the pool of the process.
func TestLocate(t *testing.T) {
	s := newServer()
	s.file(image, nil)
	s.put("/images/link", remote.Symlink).to = image
	dial := clients.dial
	clients.dial = s.pool().dial
	defer func() { clients.dial = dial }()
	for url, kind := range map[string]block.Kind{
		"nfs://filer/images/a.img": block.OK, "nfs://filer/images/new.img": block.OK, "nfs://filer/images/link": block.Invalid,
		"nfs://filer/images/": block.Invalid, "nfs://filer/": block.Invalid, "nfs://filer/none/a.img": block.NotFound,
		"nfs://filer/images/a.img/b": block.Invalid, "nfs://filer/a?x=1": block.Invalid,
	} {
		store, name, err := Locate(background, url)
		if block.KindOf(err) != kind {
			t.Errorf("%s: %v", url, err)
		}
		if err == nil {
			if name != url[len("nfs://filer/images/"):] {
				t.Error(name)
			}
			closeAll(t, store.Close)
		}
	}
	store, name, err := LocateEntry(background, "nfs://filer/images/link")
	if err != nil || name != "link" {
		t.Fatal(name, err)
	}
	top, err := OpenStore(background, "nfs://filer/images?vers=3")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(background, "nfs://filer/images/link?nconnect=2", block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, store.Close, top.Close, d.Close)
	if n := s.counted(&s.clients); n != 0 {
		t.Errorf("%d clients left", n)
	}
}
