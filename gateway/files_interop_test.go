//go:build interop

package gateway

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/gateway/spec"
)

// file opens an export's FUSE file until the test ends.
func (h *house) file(name string) *os.File {
	h.t.Helper()
	f, err := os.OpenFile(filepath.Join(h.cfg.Files.Dir(), name), os.O_RDWR, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		select {
		case <-begun(f.Close):
		case <-time.After(5 * time.Second): // the end of the Gateway is what ends it
			h.t.Errorf("a request on the file of %s does not end", name)
		}
	})
	return f
}

// begun gives what a call ends with that takes its time.
func begun(call func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	return ended
}

// reading and writing begin a request on a file.
func reading(f *os.File) <-chan error {
	return begun(func() error { _, err := f.ReadAt(make([]byte, 512), 0); return err })
}

func writing(f *os.File, text string) <-chan error {
	return begun(func() error { _, err := f.WriteAt([]byte(text), 0); return err })
}

func wantErrno(t *testing.T, what string, ended <-chan error, want error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: no answer, want %v", what, want)
	}
}

// A file's attributes say what is behind it.
func TestFileAttributes(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	images := map[string][2]string{
		"by-name":  {h.image("a.img", 1), ""},
		"by-order": {h.image("b.qcow2", 1), "raw"},
		"memory":   {"mem://1M", ""},
	}
	for name, image := range images {
		st := h.add(spec.Spec{Name: name, URL: image[0], Format: image[1]})
		for attribute, want := range map[string]string{"user.sluice.format": "raw", "user.sluice.url": image[0]} {
			value := make([]byte, 1024)
			n, err := unix.Getxattr(st.File, attribute, value)
			if err != nil || string(value[:max(n, 0)]) != want {
				t.Errorf("%s of %s: %q (%v), want %q", attribute, name, value[:max(n, 0)], err, want)
			}
		}
		list := make([]byte, 1024)
		n, err := unix.Listxattr(st.File, list)
		if err != nil || string(list[:max(n, 0)]) != "user.sluice.format\x00user.sluice.url\x00" {
			t.Errorf("attributes of %s: %q (%v)", name, list[:max(n, 0)], err)
		}
	}
}

// Who has the file open sees its new size when Resize returns.
func TestResizeOfAnOpenFile(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	st := h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1)})
	f := h.file("a")
	for _, size := range []int64{3 << 20, 1 << 20, 2<<20 + 512} {
		if _, err := h.Gateway.Resize(t.Context(), "a", size); err != nil {
			t.Fatal(err)
		}
		open, err := f.Stat()
		if err != nil || open.Size() != size {
			t.Errorf("an open file has %d bytes (%v), want %d", open.Size(), err, size)
		}
		if named, err := os.Stat(st.File); err != nil || named.Size() != size {
			t.Errorf("the file has %d bytes (%v), want %d", named.Size(), err, size)
		}
		if _, err := f.WriteAt([]byte("last"), size-4); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(filepath.Join(h.dir, "a.img")); err != nil || int64(len(data)) != size || !bytes.HasSuffix(data, []byte("last")) {
			t.Errorf("the image has %d bytes (%v), want %d and the last that were written", len(data), err, size)
		}
	}
}

// An export that cannot be kept leaves no file.
func TestFileOfAnAddThatIsNotKept(t *testing.T) {
	h, s := unkept(t, newHouseWithFiles)
	_, err := h.Add(t.Context(), s)
	kindIs(t, "adding what cannot be kept", err, block.Closed)
	if _, err := h.cfg.Files.ID("a"); block.KindOf(err) != block.NotFound {
		t.Errorf("the file is left: %v", err)
	}
}

// An export that cannot be taken out of the state has its file still, or again.
func TestFileOfARemovalThatIsNotKept(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1)})
	id, err := h.cfg.Files.ID("a")
	if err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "a write", writing(h.file("a"), "kept"), nil)
	if err := h.state.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		kindIs(t, "a removal that cannot be kept", h.Remove(t.Context(), "a", true), block.Closed)
	}
	got := make([]byte, 4)
	if _, err := h.file("a").ReadAt(got, 0); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
	if again, err := h.cfg.Files.ID("a"); err != nil || again != id {
		t.Errorf("number %d (%v), was %d", again, err, id)
	}
}

// A client waits on the file of an export that is being opened: a removal without
// force is refused and changes nothing for it.
func TestRemovalRefusedWhileOpening(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1)})
	back := h.away("a.img")
	waiting := reading(h.file("a"))
	kindIs(t, "removing it under a client", h.Remove(t.Context(), "a", false), block.Busy)
	back()
	wantErrno(t, "the read that waited", waiting, nil)
}

// What is changed while the image is away is not the end of the file in the next
// process.
func TestFileLastsWhileOpening(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 3)})
	back := h.away("a.img")
	if _, err := h.Change(t.Context(), "a", spec.Settings{Throttle: spec.Throttle{ReadIOPS: 1000}}); err != nil {
		t.Fatal(err)
	}
	files := h.cfg.Files
	h.stop()
	h.again(func(c *Config) { c.Files = files })
	f := h.file("a")
	if st, err := f.Stat(); err != nil || st.Size() != 3<<20 {
		t.Errorf("%v, %v", st, err)
	}
	waiting := reading(f)
	back()
	wantErrno(t, "the read that waited", waiting, nil)
}

// What comes to the file of an export whose image is away goes by the error policy.
func TestPolicyOfTheFileWhileOpening(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	policies := map[string]spec.OnError{
		"hold": {}, "limit": {Limit: spec.Duration(50 * time.Millisecond)}, "error": {Policy: "error"}, "freeze": {Policy: "read-only"},
	}
	for name, policy := range policies {
		h.add(spec.Spec{Name: name, URL: h.image(filepath.Join("images", name), 1), Settings: spec.Settings{OnError: policy}})
	}
	back := h.away("images")
	files := map[string]*os.File{}
	for name := range policies {
		files[name] = h.file(name)
	}
	waiting := reading(files["hold"])
	for _, name := range []string{"limit", "error", "freeze"} {
		wantErrno(t, name, reading(files[name]), unix.EIO)
	}
	wantErrno(t, "a write with the read-only policy", writing(files["freeze"], "x"), unix.EROFS)
	waitFor(t, "the read", func() bool { st, _ := h.Show("hold"); return st.State == Opening && st.HeldNow == 1 })
	if e, err := h.find("test", "hold"); err != nil || e.gauges().Held != 1 {
		t.Errorf("metrics do not tell of the read that waits (%v)", err)
	}
	back()
	wantErrno(t, "the read that waited", waiting, nil)
	for name := range policies {
		waitFor(t, "the image of "+name, func() bool { st, _ := h.Show(name); return st.State != Opening })
		wantErrno(t, name, reading(files[name]), nil)
	}
	if st, err := h.Show("freeze"); err != nil || st.State != Frozen || st.Error == "" {
		t.Errorf("%+v, %v", st, err)
	}
	wantErrno(t, "a write with the read-only policy", writing(files["freeze"], "x"), unix.EROFS)
	if _, err := h.Gateway.Resume(t.Context(), "freeze"); err != nil {
		t.Error(err)
	}
	for name := range policies {
		wantErrno(t, name, writing(files[name], "x"), nil)
	}
}

// A client that waits for an image is told when it cannot be opened, or when the
// policy becomes another one.
func TestFileOfAnExportThatFails(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	path := h.image("images/a", 1)
	h.add(spec.Spec{Name: "a", URL: path})
	back := h.away("images")
	f := h.file("a")
	waiting := writing(f, "x")
	waitFor(t, "the write", func() bool { st, _ := h.Show("a"); return st.HeldNow == 1 })
	if _, err := h.Change(t.Context(), "a", spec.Settings{OnError: spec.OnError{Policy: "error"}}); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "the write that waited", waiting, unix.EIO)
	if _, err := h.Change(t.Context(), "a", spec.Settings{}); err != nil {
		t.Fatal(err)
	}
	waiting = writing(f, "x")
	away := filepath.Dir(path) + ".away"
	if err := errors.Join(os.Rename(away+"/a", away+"/good"), os.Mkdir(away+"/a", 0o700)); err != nil {
		t.Fatal(err)
	}
	back()
	wantErrno(t, "a write to what cannot be opened", waiting, unix.EIO)
	if st, err := h.Show("a"); err != nil || st.State != Failed {
		t.Errorf("%+v, %v", st, err)
	}
	if err := errors.Join(os.Remove(path), os.Rename(filepath.Dir(path)+"/good", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Gateway.Resume(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the image", h.serves("a"))
	wantErrno(t, "a write", writing(f, "x"), nil)
}

// A storage that is found to be away after NBD clients have gone has nobody wait for
// the requests on its file.
func TestEndOfAFileWhenItsStorageGoesAway(t *testing.T) {
	h := newHouseWithFiles(t, func(c *Config) { c.DrainTimeout = time.Hour })
	dev := &late{CrashDevice: blocktest.NewCrashDevice(1<<20, 1), arrived: make(chan struct{}), let: make(chan struct{})}
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
	h.put("a", dev)
	written := writing(h.file("a"), "x")
	<-dev.arrived
	h.SendAway(t.Context()) // of NBD clients there are none
	close(dev.let)
	wantErrno(t, "the write", written, unix.EIO)
}
