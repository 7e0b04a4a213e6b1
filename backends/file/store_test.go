package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
)

// Who uses a Store asks for these by assertion, and does without them in silence.
var _ interface {
	block.Renamer
	block.Linker
	block.Inheriter
	block.LinkTeller
	block.SpaceTeller
} = (*Store)(nil)

func newStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*Store)
}

func wantKind(t *testing.T, err error, kind block.Kind, what string) {
	t.Helper()
	if block.KindOf(err) != kind {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than one line: %q", what, err)
	}
}

func names(t *testing.T, s *Store, dir string) []string {
	t.Helper()
	entries, err := s.List(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name+":"+e.Kind)
	}
	return list
}

func TestStoreLifeOfAnImage(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Create(ctx, "b.img", block.CreateOptions{Size: 1<<20 + 1}), block.OK, "create")
	wantKind(t, s.Create(ctx, "sub/c.img", block.CreateOptions{Size: 4096}), block.OK, "create in a folder")
	wantKind(t, s.Create(ctx, "b.img", block.CreateOptions{Size: 5}), block.Exists, "create again")
	wantKind(t, s.Create(ctx, "none/d.img", block.CreateOptions{Size: 5}), block.NotFound, "create in no folder")
	if diff := cmp.Diff([]string{"b.img:file", "sub:dir"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"sub/c.img:file"}, names(t, s, "sub")); diff != "" {
		t.Error(diff)
	}
	e, err := s.Stat(ctx, "b.img")
	if err != nil || e.Size != 1<<20+1 || e.Allocated != 0 || e.Name != "b.img" || e.ModTime.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	d, err := s.Open(ctx, "b.img", block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.WriteAt(ctx, []byte("content"), 1<<20-6, block.FUA), block.OK, "write")
	wantKind(t, s.Link(ctx, "b.img", "sub/l.img"), block.OK, "link")
	wantKind(t, s.Link(ctx, "b.img", "sub/l.img"), block.Exists, "link again")
	wantKind(t, s.Rename(ctx, "b.img", "sub/c.img"), block.OK, "rename over another")
	wantKind(t, s.Rename(ctx, "b.img", "x"), block.NotFound, "rename nothing")
	wantKind(t, s.Remove(ctx, "sub/l.img"), block.OK, "remove")
	wantKind(t, s.Remove(ctx, "sub/l.img"), block.NotFound, "remove again")
	wantKind(t, s.Remove(ctx, "sub"), block.Invalid, "remove a folder")
	wantKind(t, d.Close(), block.OK, "close")
	content, err := os.ReadFile(filepath.Join(dir, "sub/c.img"))
	if err != nil || !strings.HasSuffix(string(content), "content") {
		t.Errorf("the renamed image lost its content (%v)", err)
	}
	total, free, err := s.Space(ctx)
	if err != nil || free <= 0 || total < free {
		t.Errorf("space: %d, %d, %v", total, free, err)
	}
}

func TestStoreKeepsNamesInside(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	for _, d := range []string{dir, filepath.Join(base, "out")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(base, "out", "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"rel": "../out", "abs": filepath.Join(base, "out"), "file": "../out/secret"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, dir)
	wantKind(t, s.Create(ctx, "inside", block.CreateOptions{Size: 1}), block.OK, "create")
	for _, name := range []string{
		"", ".", "..", "/", "../out/secret", "/etc/passwd", secret, "rel/secret", "abs/secret", "file", "x/../../out/secret", "a/", "a\x00b",
	} {
		if d, err := s.Open(ctx, name, block.OpenOptions{ReadOnly: true}); err == nil {
			t.Errorf("open %q: %v", name, d)
		}
		if err := s.Create(ctx, name, block.CreateOptions{Size: 1}); err == nil {
			t.Errorf("create %q worked", name)
		}
		if _, err := s.Stat(ctx, name); err == nil {
			t.Errorf("stat %q worked", name)
		}
		if err := s.Rename(ctx, "inside", name); err == nil && name != "file" {
			t.Errorf("rename to %q worked", name)
		} else if err == nil { // replaced the link itself
			wantKind(t, s.Rename(ctx, name, "inside"), block.OK, "rename back")
		}
		if err := s.Link(ctx, "inside", name); err == nil && name != "file" {
			t.Errorf("link to %q worked", name)
		}
	}
	for _, name := range []string{"..", "../out/secret", "rel/secret", "abs/secret"} {
		if err := s.Remove(ctx, name); err == nil {
			t.Errorf("remove %q worked", name)
		}
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("outside: %q, %v", got, err)
	}
	_, err := s.Open(ctx, "rel/secret", block.OpenOptions{})
	wantKind(t, err, block.Permission, "a link that leads out")
}

func TestCreatePreallocates(t *testing.T) {
	s := newStore(t, t.TempDir())
	for _, c := range []struct {
		mode  block.Preallocation
		whole bool
	}{{"", false}, {block.PreallocateOff, false}, {block.PreallocateMetadata, false}, {block.PreallocateFalloc, true}, {block.PreallocateFull, true}} {
		name := "p" + string(c.mode)
		wantKind(t, s.Create(ctx, name, block.CreateOptions{Size: 3<<20 + 5, Preallocate: c.mode}), block.OK, name)
		e, err := s.Stat(ctx, name)
		if err != nil || e.Size != 3<<20+5 || (e.Allocated >= 3<<20) != c.whole {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		got, err := os.ReadFile(filepath.Join(s.cfg.Path, name))
		if err != nil || strings.Trim(string(got), "\x00") != "" {
			t.Errorf("%s does not read as zeroes (%v)", name, err)
		}
	}
	wantKind(t, s.Create(ctx, "x", block.CreateOptions{Size: 5, Preallocate: "most"}), block.Invalid, "unknown mode")
	wantKind(t, s.Create(ctx, "x", block.CreateOptions{Size: -5}), block.Invalid, "negative size")
	wantKind(t, s.Create(ctx, "x", block.CreateOptions{Size: 1<<63 - 1}), block.NoSpace, "a size that no file has")
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	wantKind(t, s.Create(canceled, "x", block.CreateOptions{Size: 5, Preallocate: block.PreallocateFull}), block.Canceled, "cancelled")
	_, err := s.Stat(ctx, "x")
	wantKind(t, err, block.NotFound, "what a failed create left")
}

// Without O_TMPFILE the name comes first and goes again on failure.
func TestCreateByName(t *testing.T) {
	dir := t.TempDir()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	create := func(opts block.CreateOptions) error {
		c := creation{folder: folder, base: "x", named: true}
		return c.run(ctx, opts)
	}
	wantKind(t, create(block.CreateOptions{Size: 5, Preallocate: "most"}), block.Invalid, "create")
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("half an image was left behind")
	}
	wantKind(t, create(block.CreateOptions{Size: 5}), block.OK, "create")
	wantKind(t, create(block.CreateOptions{Size: 6}), block.Exists, "create again")
	if st, err := os.Stat(filepath.Join(dir, "x")); err != nil || st.Size() != 5 {
		t.Errorf("the first image is gone: %v, %v", st, err)
	}
}

func TestOneCreatorWins(t *testing.T) {
	s := newStore(t, t.TempDir())
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := s.Create(ctx, "x", block.CreateOptions{Size: int64(i + 1), Preallocate: block.PreallocateFull})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, block.Exists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d winners", won.Load())
	}
}

func TestOpenRefusesWhatIsNoDisk(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]block.Kind{
		dir: block.Invalid, fifo: block.Invalid, "/dev/null": block.Invalid, filepath.Join(dir, "none"): block.NotFound,
		fifo + "/x": block.Invalid,
	} {
		for _, opts := range []block.OpenOptions{{}, {ReadOnly: true}} {
			_, err := Open(ctx, path, opts)
			wantKind(t, err, kind, path)
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name %s", err, path)
			}
		}
	}
}

func TestParseConfig(t *testing.T) {
	for in, want := range map[string]Config{
		"a b?c#d":                               {Path: "a b?c#d"},
		"/x/y.img":                              {Path: "/x/y.img"},
		"file:///x/a%20b%3f":                    {Path: "/x/a b?"},
		"file://localhost/x":                    {Path: "/x"},
		"FILE:///x?direct=on&lock=off":          {Path: "/x", Direct: 1, Lock: 2},
		"file:///x?direct=off&lock=on&share=on": {Path: "/x", Direct: 2, Lock: 1, Share: 1},
	} {
		got, err := ParseConfig(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for in, text := range map[string]string{
		"":                       "no path",
		"file://":                "no path",
		"file://host/x":          "names no host",
		"file:///x?Direct=on":    `unknown parameter "Direct"`,
		"file:///x?direct=maybe": "neither on nor off",
		"file:///x%00y":          "no path",
		"a\x00b":                 "no path",
	} {
		_, err := ParseConfig(in)
		wantKind(t, err, block.Invalid, in)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %s", in, err, text)
		}
	}
}

func TestLocateFindsStoreAndName(t *testing.T) {
	dir := t.TempDir()
	store, name, err := Locate(ctx, "file://"+dir+"/a%20b.img?direct=on")
	if err != nil || name != "a b.img" {
		t.Fatalf("%q, %v", name, err)
	}
	defer func() { _ = store.Close() }()
	wantKind(t, store.Create(ctx, name, block.CreateOptions{Size: 8192}), block.OK, "create")
	d, err := store.Open(ctx, name, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Info().Block.Min == 1 {
		t.Error("the URL's parameters were lost")
	}
	wantKind(t, d.Close(), block.OK, "close")
	for _, url := range []string{"/", ".", "..", dir + "/.."} {
		if s, name, err := Locate(ctx, url); err == nil && name == "" {
			t.Errorf("%s: %v, %q", url, s, name)
		}
	}
}

func TestLocateFollowsALink(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(far, "real.img"), make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": filepath.Join(far, "real.img"), "dangling": filepath.Join(far, "none")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	store, name, err := Locate(ctx, filepath.Join(dir, "link"))
	if err != nil || name != "real.img" {
		t.Fatalf("%q, %v", name, err)
	}
	defer func() { _ = store.Close() }()
	if e, err := store.Stat(ctx, name); err != nil || e.Size != 512 || e.Kind != "file" {
		t.Errorf("%+v, %v", e, err)
	}
	other, name, err := Locate(ctx, filepath.Join(dir, "dangling"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	wantKind(t, other.Create(ctx, name, block.CreateOptions{Size: 5}), block.Exists, "create over a dangling link")
}

func TestNoStoreIsNil(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	s, err := OpenStore(ctx, missing)
	wantKind(t, err, block.NotFound, "open")
	located, _, err2 := Locate(ctx, filepath.Join(missing, "x"))
	wantKind(t, err2, block.NotFound, "locate")
	if s != nil || located != nil {
		t.Error("a store that is not nil came with an error")
	}
}

func TestTwoWritersAreRefused(t *testing.T) {
	path := newFile(t, t.TempDir(), 4096)
	rw, ro := block.OpenOptions{}, block.OpenOptions{ReadOnly: true}
	share, none := block.OpenOptions{Share: true}, block.OpenOptions{Unlocked: true}
	for _, c := range []struct {
		first, second block.OpenOptions
		want          block.Kind
	}{
		{rw, rw, block.Busy}, {rw, ro, block.Busy}, {ro, rw, block.Busy}, {ro, ro, block.OK}, {rw, share, block.Busy},
		{share, rw, block.Busy}, {share, share, block.OK}, {share, ro, block.Busy}, {rw, none, block.OK}, {none, rw, block.OK},
	} {
		first := openFile(t, path, c.first)
		second, err := Open(ctx, path, c.second)
		wantKind(t, err, c.want, "the second opening")
		if err == nil {
			wantKind(t, second.Close(), block.OK, "close")
		}
		wantKind(t, first.Close(), block.OK, "close")
		openAgain := openFile(t, path, c.second)
		wantKind(t, openAgain.Close(), block.OK, "close")
	}
}

func TestResizeNeedsTheOthersConsent(t *testing.T) {
	path := newFile(t, t.TempDir(), 4096)
	a, b := openFile(t, path, block.OpenOptions{Share: true}), openFile(t, path, block.OpenOptions{Share: true})
	wantKind(t, a.Resize(ctx, 8192), block.Busy, "resize while shared")
	wantKind(t, b.Close(), block.OK, "close")
	wantKind(t, a.Resize(ctx, 8192), block.OK, "resize alone")
	if st, err := os.Stat(path); err != nil || st.Size() != 8192 {
		t.Errorf("%v, %v", st, err)
	}
	wantKind(t, a.Close(), block.OK, "close")
}

func TestURLDecidesOverOptions(t *testing.T) {
	path := newFile(t, t.TempDir(), 4096)
	d := openFile(t, "file://"+path+"?direct=off&lock=off", block.OpenOptions{Direct: true})
	if d.Info().Block.Min != 1 || d.lock != nil {
		t.Error("the URL's parameters were not heeded")
	}
	wantKind(t, d.Close(), block.OK, "close")
}

// Close waits for a pinned range, so that its descriptor cannot come to mean
// another file.
func TestCloseWaitsForPinnedRange(t *testing.T) {
	d := openFile(t, newFile(t, t.TempDir(), 4096), block.OpenOptions{})
	r, ok := d.PinRange(100, 1000)
	if !ok || r.Off != 100 || r.Len != 1000 {
		t.Fatalf("%+v, %v", r, ok)
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	for d.gate.Enter() { // until Close has begun
		d.gate.Leave()
	}
	select {
	case <-closed:
		t.Error("closed under a pinned range")
	default:
	}
	if n, err := syscall.Pread(r.FD, make([]byte, 10), r.Off); n != 10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	d.UnpinRange(r)
	wantKind(t, <-closed, block.OK, "close")
	if _, ok := d.PinRange(0, 1); ok {
		t.Error("pinned after close")
	}
}
