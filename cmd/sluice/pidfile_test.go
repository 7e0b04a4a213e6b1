package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"sluice/block"
)

func pidText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPIDFileIsOnesOwn: nobody takes over a file that is in use, and who goes
// takes away no file but its own.
func TestPIDFileIsOnesOwn(t *testing.T) {
	path, own := filepath.Join(t.TempDir(), "pid"), strconv.Itoa(os.Getpid())+"\n"
	first, err := writePIDFile(path)
	if err != nil || pidText(t, path) != own {
		t.Fatalf("%q, %v", pidText(t, path), err)
	}
	if _, err := writePIDFile(path); block.KindOf(err) != block.Busy {
		t.Errorf("a second process: %v", err)
	}
	if pidText(t, path) != own {
		t.Errorf("after that the file holds %q", pidText(t, path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := writePIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first.remove()
	if pidText(t, path) != own {
		t.Error("the first one took the second one's file")
	}
	second.remove()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

// TestPIDFileOfTheDead: what a killed process left behind is replaced, whatever
// its length.
func TestPIDFileOfTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	for _, left := range []string{"", "1\n", "2147483647", " 12 \n\n"} {
		if err := os.WriteFile(path, []byte(left), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := writePIDFile(path)
		if err != nil {
			t.Fatalf("%q: %v", left, err)
		}
		if got := pidText(t, path); got != strconv.Itoa(os.Getpid())+"\n" {
			t.Errorf("%q became %q", left, got)
		}
		p.remove()
	}
}

// TestPIDFileByMistake: a file with anything else in it stays as it is.
func TestPIDFileByMistake(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	for _, content := range []string{"an image", "12 monkeys\n", "-5\n", "\n", string(make([]byte, 4096)), "99999999999\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := writePIDFile(path); block.KindOf(err) != block.Exists {
			t.Errorf("%.10q: %v", content, err)
		}
		if pidText(t, path) != content {
			t.Errorf("%.10q was changed", content)
		}
	}
	if _, err := writePIDFile(dir); err == nil {
		t.Error("a folder was taken")
	}
	if _, err := writePIDFile(os.DevNull); block.KindOf(err) != block.Invalid {
		t.Errorf("a device: %v", err)
	}
	o := sluice(t, dir, "serve", "disk.img", "--nbd", "unix:s", "--pid-file", "disk.img")
	if o.code != exitFailure || pidText(t, path) != "99999999999\n" {
		t.Errorf("exit code %d, %q; the image holds %q", o.code, o.stderr, pidText(t, path))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
