//go:build interop

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"sluice/internal/lab"
)

// Owners and permissions, with a user who is not root. The tests are run by root.

const nobody = "65534"

// asNobody gives the words that run the binary as an ordinary user, and a folder
// of that user's that others may write to.
func asNobody(t *testing.T) (words []string, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-owner-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile(lab.Sluice(t)) // where it lies, others may not go
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sluice"), program, 0o755)
	}
	images := filepath.Join(dir, "images")
	if err == nil {
		err = os.Mkdir(images, 0o700)
	}
	if err == nil {
		err = os.Chown(images, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--reuid=" + nobody, "--regid=" + nobody, "--clear-groups", filepath.Join(dir, "sluice")}, images
}

func owned(t *testing.T, path string, uid, gid uint32, mode os.FileMode) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if has := st.Sys().(*syscall.Stat_t); has.Uid != uid || has.Gid != gid || st.Mode() != mode {
		t.Errorf("%s: %d:%d, %v; want %d:%d, %v", filepath.Base(path), has.Uid, has.Gid, st.Mode(), uid, gid, mode)
	}
}

// TestForceKeepsTheOwner: root replaces the image of a user.
func TestForceKeepsTheOwner(t *testing.T) {
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 1<<20)
	old, _ := imageFile(t, dir, "old.img", 1<<20)
	if err := os.Chown(old, 65534, 65533); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Run(t, lab.Sluice(t), "copy", src, old, "--force")
	owned(t, old, 65534, 65533, 0o600)
	sameContent(t, old, content)
	if err := os.Chmod(old, 0o640); err != nil {
		t.Fatal(err)
	}
	p := copying(t, slowURI(t), old, "--force")
	eventually(t, "the group's right to read", func() bool {
		st, err := os.Stat(parts(t, dir)[0])
		return err == nil && st.Mode() != 0o600
	})
	owned(t, parts(t, dir)[0], 65534, 65533, 0o640)
	p.Signal(syscall.SIGINT)
	_ = p.Wait()
	oneLine(t, p.Output(), "interrupted (the old file is as it was)")
	owned(t, old, 65534, 65533, 0o640)
	sameContent(t, old, content)
}

// TestForceThatCannotKeepTheOwner: a user may write into an image of root's, but
// not give a new one to root.
func TestForceThatCannotKeepTheOwner(t *testing.T) {
	words, dir := asNobody(t)
	src, content := imageFile(t, dir, "src.img", 1<<20)
	old, before := imageFile(t, dir, "old.img", 2<<20)
	for path, mode := range map[string]os.FileMode{src: 0o644, old: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	oneLine(t, fails(t, 1, "setpriv", append(words, "copy", src, old, "--force")...),
		"keep the owner and mode of "+old+": operation not permitted; --in-place writes into it and keeps them")
	sameContent(t, old, before)
	if names := inFolder(t, dir); len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
	lab.Run(t, "setpriv", append(words, "copy", src, old, "--in-place")...)
	owned(t, old, 0, 0, 0o666)
	sameContent(t, old, append(content, before[1<<20:]...))
}

// TestUserRemovesGoldenImage: in use and read-only; not readable at all.
func TestUserRemovesGoldenImage(t *testing.T) {
	words, dir := asNobody(t)
	path, content := imageFile(t, dir, "golden.img", 1<<20)
	rm := append(words, "rm", path)
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	p := lab.Start(t, "setpriv", append(words, "serve", path, "--read-only", "--nbd", "unix:"+filepath.Join(dir, "s"))...)
	p.Ready()
	oneLine(t, fails(t, 1, "setpriv", rm...), "remove "+path+": in use by another process; end the program that uses it, or use --force")
	stopped(t, p)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	oneLine(t, fails(t, 1, "setpriv", rm...), "it cannot be told whether it is in use")
	sameContent(t, path, content)
	lab.Run(t, "setpriv", append(rm, "--force")...)
	if names := inFolder(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// TestSocketOfOnesOwn: a user who does not say where finds the export in the
// runtime folder, and nothing there when it is over.
func TestSocketOfOnesOwn(t *testing.T) {
	words, dir := asNobody(t)
	cmd := exec.Command("setpriv", append(words, "serve", "mem://1M")...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	p := lab.StartCmd(t, cmd)
	socket := filepath.Join(dir, "sluice", "serve-"+strconv.Itoa(p.Pid())+".sock")
	if uri := p.Ready(); uri != "nbd+unix:///?socket="+socket {
		t.Errorf("ready at %s, want %s", uri, socket)
	}
	owned(t, socket, 65534, 65534, os.ModeSocket|0o660)
	lab.Run(t, lab.Sluice(t), "info", "nbd+unix:///?socket="+socket)
	stopped(t, p)
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
