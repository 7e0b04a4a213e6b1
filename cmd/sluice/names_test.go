package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/backends"
	"sluice/block"
)

// What is behind a name: links, folders, devices, other formats, oneself.

func link(t *testing.T, dir, name, to string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// refused runs command lines that have to fail with one line that has the text.
func refused(t *testing.T, dir, want string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		o := sluice(t, dir, strings.Fields(line)...)
		if o.code != exitFailure || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, want) {
			t.Errorf("sluice %s: exit code %d, %q, %q; want %q", line, o.code, o.stdout, o.stderr, want)
		}
	}
}

func isLink(t *testing.T, dir, name string) {
	t.Helper()
	if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("%s is no link any more: %v", name, err)
	}
}

func TestRemoveRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	link(t, dir, "relative", "disk.img")
	link(t, dir, "absolute", filepath.Join(dir, "disk.img"))
	link(t, dir, "dangling", "none")
	for name, to := range map[string]string{"relative": "disk.img", "absolute": filepath.Join(dir, "disk.img"), "dangling": "none"} {
		refused(t, dir, "is a symbolic link to "+to+", not an image; name the image itself, or remove the link with rm",
			"rm "+name, "rm "+name+" --force", "rm file://"+filepath.Join(dir, name))
		isLink(t, dir, name)
	}
	refused(t, dir, "not the name of an image", "rm disk.img/", "rm relative/")
	holds(t, dir, "disk.img", content)
	link(t, dir, "folder", dir)
	must(t, dir, "rm", "folder/disk.img")
	isLink(t, dir, "folder")
}

// TestRemoveReadOnlyInUse: an image that may only be read is in use all the same.
func TestRemoveReadOnlyInUse(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	path := filepath.Join(dir, "disk.img")
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	for _, opts := range []block.OpenOptions{{ReadOnly: true}, {ReadOnly: true, Share: true}} {
		dev, err := backends.Open(t.Context(), path, opts)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "remove disk.img: in use by another process; end the program that uses it, or use --force", "rm disk.img")
		holds(t, dir, "disk.img", content)
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
	must(t, dir, "rm", "disk.img")
}

// TestOtherFormatsAreNotRaw: whatever name an image is given by.
func TestOtherFormatsAreNotRaw(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("QFI\xfb"), 64<<10)
	for _, name := range []string{"real.qcow2", "a.vmdk", "a.vhdx", "a.vdi", "a.qcow", "a.qed", "a.vpc", "a.vhd", "a.hdd"} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "is not supported (known: raw); --format raw takes the bytes as they are", "info "+name, "resize "+name+" 64K --shrink")
	}
	disk(t, dir, "disk.img")
	link(t, dir, "relative", "real.qcow2")
	link(t, dir, "absolute", filepath.Join(dir, "real.qcow2"))
	link(t, dir, "chain", "relative")
	must(t, dir, "create", "other.img", "--size", "4M")
	link(t, dir, "middle.vmdk", "other.img")
	link(t, dir, "hidden", "middle.vmdk")
	link(t, dir, "dangling", "none.qcow2")
	for _, name := range []string{"relative", "absolute", "chain", "hidden", "dangling", "file://" + dir + "/re%61l.qcow%32", "file://" + dir + "/chain"} {
		refused(t, dir, "; --format raw takes the bytes as they are", "resize "+name+" 64K --shrink", "info "+name, "map "+name,
			"check "+name, "serve "+name+" --nbd unix:s", "copy disk.img "+name+" --force", "copy disk.img "+name+" --in-place",
			"create "+name+" --size 1M")
		refused(t, dir, "; --src-format raw takes the bytes as they are", "copy "+name+" x.img", "copy "+name+" x.img --format raw")
	}
	refused(t, dir, "open chain: leads to real.qcow2: format qcow2 is not supported", "info chain")
	refused(t, dir, "; --src-format raw takes the bytes as they are", "copy disk.img x.img --src-format qcow2")
	holds(t, dir, "real.qcow2", content)
	must(t, dir, "copy", "chain", "x.img", "--src-format", "raw")
	holds(t, dir, "x.img", content)
	must(t, dir, "resize", "relative", "64K", "--shrink", "--format", "raw")
	holds(t, dir, "real.qcow2", content[:64<<10])
}

// TestAwkwardDestinations are refused before anything is copied, with what to do.
func TestAwkwardDestinations(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	link(t, dir, "dangling.img", "none")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "create dangling.img: is a symbolic link to none, which is not there; name that place itself, or remove the link",
		"copy disk.img dangling.img", "copy disk.img dangling.img --force", "copy disk.img dangling.img --in-place", "create dangling.img --size 1M")
	refused(t, dir, "the / at its end makes it the name of a folder, not of an image",
		"copy disk.img new/", "copy disk.img folder/", "copy disk.img disk.img/", "create new/ --size 1M", "create folder/ --size 1M", "create disk.img/ --size 1M",
		"create file://"+dir+"/new/ --size 1M")
	refused(t, dir, "is a folder\n", "create folder --size 1M", "create /tmp --size 1M")
	refused(t, dir, "is no image\n", "create /dev/null --size 1M")
	refused(t, dir, "; remove it first (sluice rm)", "create disk.img --size 1M")
	link(t, dir, "link.img", "disk.img")
	if err := os.Link(filepath.Join(dir, "disk.img"), filepath.Join(dir, "hard.img")); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "source and destination are the same image", "copy disk.img disk.img", "copy disk.img link.img", "copy link.img disk.img --force",
		"copy ./disk.img hard.img --in-place", "copy disk.img file://"+dir+"/disk.img --unlocked --in-place")
	holds(t, dir, "disk.img", content)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestForceKeepsTheMode: who could not read the old image cannot read the new one.
// That the owner stays is for root to test (owner_interop_test.go).
func TestForceKeepsTheMode(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	path := filepath.Join(dir, "old.img")
	for _, mode := range []os.FileMode{0o600, 0o640, 0o666, 0o700} {
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		must(t, dir, "copy", "disk.img", "old.img", "--force")
		if st, err := os.Stat(path); err != nil || st.Mode() != mode {
			t.Errorf("mode %v became %v, %v", mode, st.Mode(), err)
		}
		holds(t, dir, "old.img", content)
	}
	must(t, dir, "copy", "disk.img", "new.img") // as create makes images
	made, err := os.Stat(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "new.img")); err != nil || st.Mode() != made.Mode() {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}
