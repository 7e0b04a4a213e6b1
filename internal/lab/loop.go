package lab

import (
	"os/exec"
	"strconv"
	"strings"
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
