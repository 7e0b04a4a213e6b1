package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Loop makes a loop device of a file and returns its path (/dev/loopN). Sectors
// of sectorSize bytes, 0 for 512. It needs root.
func Loop(t TB, file string, sectorSize int) string {
	t.Helper()
	Need(t, "losetup")
	args := []string{"--find", "--show"}
	if sectorSize != 0 {
		args = append(args, "--sector-size", strconv.Itoa(sectorSize))
	}
	text, err := exec.Command("losetup", append(args, file)...).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup %s: %v: %s (loop devices need root)", file, err, text)
	}
	dev := strings.TrimSpace(string(text))
	t.Cleanup(func() {
		if text, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Logf("losetup --detach %s: %v: %s", dev, err, text)
		}
	})
	return dev
}

// SmallDisk returns a folder that is the root of a small ext4 of its own, which a
// test can fill. It needs root.
func SmallDisk(t TB, size int64) (dir string) {
	t.Helper()
	Need(t, "mkfs.ext4")
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatalf("file for a small disk: %v", err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatalf("file for a small disk: %v", err)
	}
	Run(t, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", file)
	dir = t.TempDir()
	if err := syscall.Mount(Loop(t, file, 0), dir, "ext4", 0, ""); err != nil {
		t.Fatalf("mount a small disk: %v (it needs root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Logf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
