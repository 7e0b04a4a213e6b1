//go:build interop

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/lab"
)

// idler is a client that has a file open and does nothing.
func idler(t *testing.T, file string) (end func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec 3<>"$0"; echo open; read end`, file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := lab.StartCmd(t, cmd)
	p.Expect("open")
	return func() {
		_ = in.Close()
		_ = p.Wait() // what read says of the end
	}
}

// TestIdleClientsOfRestartedDaemon: a client that does nothing keeps its file over
// both kinds of restart, unless it is taken away by force; new clients get in beside
// it; and with passthrough, force does not help.
func TestIdleClientsOfRestartedDaemon(t *testing.T) {
	d := newManaged(t)
	d.image("plain")
	passed := d.image("passed", "--passthrough")
	api := []string{"export", "--api", "unix:" + d.at("api")}
	remove := func(args ...string) []string {
		return append(append([]string{}, api...), append([]string{"remove"}, args...)...)
	}
	endPlain, endPassed := idler(t, filepath.Join(d.mount, "plain")), idler(t, filepath.Join(d.mount, "passed"))
	// When the test fails the daemon is gone before its clients: they must not wait.
	t.Cleanup(func() { _ = unix.Unmount(d.mount, unix.MNT_FORCE|unix.MNT_DETACH) })
	for i, restart := range []func(){d.m.Kill9, func() {
		if err := d.m.End(); err != nil {
			t.Errorf("the daemon's end: %v", err)
		}
	}, d.m.Kill9} {
		restart()
		d.m.Restart()
		if text := lab.Run(t, lab.Sluice(t), append(api, "show", "passed")...); !strings.Contains(strings.Join(strings.Fields(text), " "), "passthrough: yes") {
			t.Errorf("restart %d: %s", i, text)
		}
		for name, want := range map[string]string{"plain": "a client has it open; --force", "passed": "a client has it open; the kernel moves"} {
			if text := fails(t, 1, lab.Sluice(t), remove(name)...); !strings.Contains(text, want) {
				t.Errorf("restart %d: %s", i, text)
			}
		}
		if text := fails(t, 1, lab.Sluice(t), remove("passed", "--force")...); !strings.Contains(text, "until its clients close it") || strings.Contains(text, "--force") {
			t.Errorf("restart %d: by force: %s", i, text)
		}
		word := []byte{'n', 'e', 'w', byte('0' + i)}
		lab.Run(t, "sh", "-c", `printf "$1" | dd of="$0" bs=4 count=1 conv=notrunc`, filepath.Join(d.mount, "passed"), string(word))
		if content, err := os.ReadFile(passed); err != nil || string(content[:4]) != string(word) {
			t.Errorf("restart %d: a new client wrote %q: %v", i, content[:4], err)
		}
	}
	lab.Run(t, lab.Sluice(t), remove("plain", "--force")...)
	endPlain()
	endPassed()
	lab.Run(t, lab.Sluice(t), remove("passed")...)
}
