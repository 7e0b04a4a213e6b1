package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"sluice/backends/location"
	"sluice/block"
	"sluice/gateway/image"
)

// What the names of local files say before anything is opened. Names in other
// places have none of these traps.

// checkNewName refuses names that no new image can get, before work is done for it.
func checkNewName(url string) error {
	path, ok := image.LocalPath(url)
	if !ok {
		return nil
	}
	if strings.HasSuffix(path, "/") {
		return block.Errorf(block.Invalid, "create", location.Redact(url), -1, "the / at its end makes it the name of a folder, not of an image")
	}
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Type() != fs.ModeSymlink {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		to, _ := os.Readlink(path) // only for the message
		return block.Errorf(block.Exists, "create", location.Redact(url), -1,
			"is a symbolic link to %s, which is not there; name that place itself, or remove the link", to)
	}
	return nil
}

// takenBy explains an error of kind Exists: what has the name. Only of an image
// can it be said that it may be removed.
func takenBy(err error, url string) error {
	if block.KindOf(err) != block.Exists {
		return err
	}
	if path, ok := image.LocalPath(url); ok {
		st, e := os.Stat(path)
		if e == nil && !st.Mode().IsRegular() {
			return block.Errorf(block.Exists, "create", location.Redact(url), -1, "%s", kindOf(st.Mode()))
		}
	}
	return advise(err, block.Exists, "remove it first (sluice rm)")
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "is a folder"
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return "is a block device, which needs no creating"
	}
	return "there is something of that name, and it is no image"
}

// sameImage reports whether two URLs name one file or block device, by whatever
// names.
func sameImage(a, b string) bool {
	one, ok := image.LocalPath(a)
	two, ok2 := image.LocalPath(b)
	if !ok || !ok2 {
		return false
	}
	st, err := os.Stat(one)
	if err != nil {
		return false
	}
	st2, err := os.Stat(two)
	if err != nil {
		return false
	}
	return os.SameFile(st, st2) || sameDevice(st, st2)
}

// sameDevice reports whether two nodes are of one block device.
func sameDevice(a, b fs.FileInfo) bool {
	const kind = fs.ModeDevice | fs.ModeCharDevice
	one, ok := a.Sys().(*syscall.Stat_t)
	two, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && a.Mode()&kind == fs.ModeDevice && b.Mode()&kind == fs.ModeDevice && one.Rdev == two.Rdev
}
