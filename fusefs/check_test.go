package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/block"
)

func TestBadFilesAreRefused(t *testing.T) {
	good, coarse := newScripted(4096), newScripted(4096)
	coarse.min = 512
	for _, f := range []File{
		{Name: "", Device: good}, {Name: ".", Device: good}, {Name: "..", Device: good}, {Name: "a/b", Device: good},
		{Name: strings.Repeat("n", 256), Device: good}, {Name: "none"}, {Name: "coarse", Device: coarse},
		{Name: "root", Device: good, ID: 1}, {Name: "mode", Device: good, Mode: 0o4755},
		{Name: "xattr", Device: good, Xattrs: map[string]string{"trusted.x": "y"}},
	} {
		err := checkFile(f)
		if block.KindOf(err) != block.Invalid || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q: %v", f.Name, err)
		}
	}
	if err := checkFile(File{Name: "disk", Device: good, Xattrs: map[string]string{"user.x": "y"}}); err != nil {
		t.Error(err)
	}
}

func TestBadMountPointsAreRefused(t *testing.T) {
	dir := t.TempDir()
	full, plain := filepath.Join(dir, "full"), filepath.Join(dir, "plain")
	if err := errors.Join(os.Mkdir(full, 0o755), os.WriteFile(filepath.Join(full, "x"), nil, 0o600), os.WriteFile(plain, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]block.Kind{
		filepath.Join(dir, "absent"): block.NotFound, plain: block.Invalid, full: block.Exists, "/proc": block.Busy, "": block.Invalid,
	} {
		fs, err := Mount(Config{Dir: path})
		if block.KindOf(err) != kind || fs != nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %v", path, err, kind)
		}
	}
}

func TestResumeRefusesWhatIsNotItsState(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for _, state := range []string{"", "{}", `{"version":1,"init":"AAAA","reply":"AAAA"}`, `{"version":7}`} {
		if _, err := Resume(Config{Dir: t.TempDir()}, int(null.Fd()), []byte(state)); block.KindOf(err) != block.Corrupt {
			t.Errorf("%q: %v", state, err)
		}
	}
}

// Every kind has the code of its own table; Canceled must not look like a signal.
func TestErrno(t *testing.T) {
	for kind := block.OK + 1; kind <= block.Canceled; kind++ {
		want := kind.Errno()
		if kind == block.Canceled {
			want = syscall.EIO
		}
		if got := errnoOf(block.Errorf(kind, "read", "x", 0, "")); got != want {
			t.Errorf("%v: %v, want %v", kind, got, want)
		}
	}
}

func TestListingGoesOnWhereItWas(t *testing.T) {
	tr, d := newTree(), newScripted(4096)
	for _, name := range []string{"a", "b", "c", "d"} {
		tr.add(newFile(File{Name: name, Device: d}, 1))
	}
	first := tr.after(firstSerial-1, 2)
	tr.hide(first[1])
	tr.add(newFile(File{Name: "e", Device: d}, 1))
	var names []string
	for _, f := range tr.after(first[1].serial, 10) {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"c", "d", "e"}) {
		t.Errorf("after a and b: %v", names)
	}
}

func TestWorkQueuesInOrder(t *testing.T) {
	w := work{max: 1}
	holder := &job{}
	if !w.begin(holder) || w.begin(&job{}) {
		t.Fatal("one place was not one place")
	}
	jobs := []*job{{req: request{off: 1}}, {req: request{off: 2}}}
	for _, j := range jobs {
		if w.enqueue(j) != queued {
			t.Fatal("begun beyond the bound")
		}
	}
	for _, want := range jobs {
		got, _ := w.next(holder)
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		holder = got
	}
	if j, _ := w.next(holder); j != nil || !w.begin(&job{}) {
		t.Error("the place did not become free")
	}
}
