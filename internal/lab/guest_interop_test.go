//go:build interop

package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sparse makes a sparse file of the given size in bytes.
func sparse(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// qemuNBD serves a file and returns its socket.
func qemuNBD(t *testing.T, file, export string, args ...string) string {
	t.Helper()
	Need(t, "qemu-nbd", "nbdinfo")
	sock := Socket(t)
	pid := filepath.Join(t.TempDir(), "pid")
	args = append([]string{"-t", "-e", "8", "-k", sock, "-f", "raw", "-x", export, "--discard=unmap", "--pid-file", pid}, args...)
	p := Start(t, "qemu-nbd", append(args, file)...)
	p.Until("it writes its pid file", func() bool {
		text, err := os.ReadFile(pid)
		return err == nil && len(text) > 0
	})
	return sock
}

func TestGuestWritesAndReadsItsDisk(t *testing.T) {
	file := sparse(t, 128<<20)
	sock := qemuNBD(t, file, "vol1")
	console := Guest(t, GuestConfig{Disks: []string{"nbd+unix:///vol1?socket=" + sock}})
	t.Log(console)
	if n := strings.Count(console, "guest: "); n != 4 {
		t.Errorf("%d lines of figures in:\n%s", n, console)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data[56<<20:], []byte("block 00000008")) {
		t.Error("what the guest wrote is not in the file")
	}
	if bytes.ContainsFunc(data[:16<<20], func(r rune) bool { return r != 0 }) {
		t.Error("what the guest discarded is still in the file")
	}
}

func TestGuestScriptThatFailsFailsTheTest(t *testing.T) {
	failure, _ := failing(t, func(t TB) { Guest(t, GuestConfig{Script: "echo so far so good; false; echo not here"}) })
	if !strings.Contains(failure, "GUEST-FAIL") || !strings.Contains(failure, "so far so good") || strings.Contains(failure, "not here") {
		t.Errorf("failure:\n%s", failure)
	}
}

func TestLoopShowsTheFile(t *testing.T) {
	file := sparse(t, 1<<20)
	if err := os.WriteFile(file, bytes.Repeat([]byte("loop"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	var dev string
	for _, sector := range []int{0, 4096} {
		t.Run("", func(t *testing.T) {
			dev = Loop(t, file, sector)
			got, err := os.ReadFile(dev)
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("loop"), 1<<18)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
		if text, err := exec.Command("losetup", "--associated", file).CombinedOutput(); err != nil || len(text) > 0 {
			t.Errorf("after the test: %s %v", text, err)
		}
	}
}

func TestCertsSuitQEMUAndLibnbd(t *testing.T) {
	Need(t, "nbdinfo")
	certs := Certs(t)
	sock := qemuNBD(t, sparse(t, 1<<20), "tls",
		"--object", "tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir="+certs.Dir, "--tls-creds", "tls0")
	uri := "nbds+unix:///tls?socket=" + sock + "&tls-certificates=" + certs.Dir + "&tls-hostname=localhost"
	if got := Run(t, "nbdinfo", "--size", uri); got != "1048576\n" {
		t.Errorf("size %q", got)
	}
}
