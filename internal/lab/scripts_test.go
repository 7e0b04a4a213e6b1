package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tests of the scripts that the Makefile calls, with other programs in the place
// of those that they ask.

// programs makes a folder of shell scripts and puts it in front of PATH.
func programs(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestOnDiskWithoutMount: root in a container may not mount; the command runs in
// the folder that there is.
func TestOnDiskWithoutMount(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	programs(t, map[string]string{
		"stat": "echo tmpfs", "id": "echo 0", "mkfs.ext4": ":", "mount": "echo mount: permission denied. >&2; exit 32",
		"mktemp": "mkdir $TMPDIR/sd && echo $TMPDIR/sd",
	})
	cmd := exec.Command("../../scripts/on-disk", "sh", "-c", `echo "ran in $TMPDIR"; exit 3`)
	text, err := cmd.CombinedOutput()
	want := "on-disk: no temporary folder on a disk, and root cannot mount one (mount: permission denied.): " +
		"some tests may fail (set TMPDIR)\nran in " + dir + "\n"
	if string(text) != want || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v: %s, want %s", err, text, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNeedGo: one line when there is no Go, or one that is too old.
func TestNeedGo(t *testing.T) {
	for version, good := range map[string]bool{
		"go1.19.8": false, "go1.9": false, "go1.25.11": false, "": false,
		"go1.26.0": true, "go1.26rc1": true, "go1.27": true, "go2.0.1": true,
	} {
		programs(t, map[string]string{"go": "echo " + version})
		text, err := exec.Command("../../scripts/need-go").CombinedOutput()
		if (err == nil) != good || good != (len(text) == 0) {
			t.Errorf("%q: %v: %s", version, err, text)
		}
	}
	text, err := exec.Command("../../scripts/need-go", "no-such-go").CombinedOutput()
	if err == nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), "go.dev") {
		t.Errorf("%v: %s", err, text)
	}
}

// TestLeavesNothing: a file that a command leaves in the tree is named and makes it
// fail; one that was there, or that git ignores, does not, nor does a tree without git.
func TestLeavesNothing(t *testing.T) {
	script, err := filepath.Abs("../../scripts/leaves-nothing")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		git, command, want string
		status             int
	}{
		{`[ "$1" = status ] && ls | sed 's/^/?? /'`, "true", "", 0},
		{`[ "$1" = status ] && ls | sed 's/^/?? /'`, "rm mine", "", 0},
		{`[ "$1" = status ] && ls | sed 's/^/?? /'`, "rm mine; exit 3", "", 3},
		{`[ "$1" = status ] && ls | sed 's/^/?? /'`, ": >'a new one'", "a new one\n", 1},
		{`[ "$1" = status ] && ls | sed 's/^/?? /'`, ": >new; exit 3", "new\n", 3},
		{`echo " M $(ls)"`, ": >new", "", 0},
		{"exit 128", ": >new; exit 3", "", 3},
	} {
		programs(t, map[string]string{"git": c.git})
		cmd := exec.Command(script, "sh", "-c", c.command)
		cmd.Dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(cmd.Dir, "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := cmd.CombinedOutput()
		_, files, _ := strings.Cut(string(text), ":\n")
		if files != c.want || (c.want == "") != (len(text) == 0) || cmd.ProcessState.ExitCode() != c.status {
			t.Errorf("%s: %v: %s", c.command, err, text)
		}
	}
}
