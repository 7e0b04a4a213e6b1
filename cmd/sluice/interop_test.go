//go:build interop

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/lab"
)

// Helpers of the tests that run the real binary against programs that others
// wrote.

// noise is content in which nothing is zero for long.
func noise(n int) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	p := make([]byte, n)
	_, _ = rng.Read(p)
	return p
}

// imageFile writes an image of noise, with a hole in the middle.
func imageFile(t *testing.T, dir, name string, size int) (path string, content []byte) {
	t.Helper()
	content = noise(size)
	clear(content[size/4 : size/2])
	path = filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content[:size/4], 0)
	if err == nil {
		_, err = f.WriteAt(content[size/2:], int64(size/2))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func sameContent(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not the %d expected ones (%v)", path, len(got), len(want), err)
	}
}

// served starts sluice serve at a unix socket.
func served(t *testing.T, url string, flags ...string) (p *lab.Proc, uri, socket string) {
	t.Helper()
	socket = lab.Socket(t)
	p = lab.Start(t, lab.Sluice(t), append([]string{"serve", url, "--nbd", "unix:" + socket}, flags...)...)
	return p, p.Ready(), socket
}

// stopped ends a server in order.
func stopped(t *testing.T, p *lab.Proc) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Errorf("exit after SIGTERM: %v", err)
	}
}

// fails runs a program that has to fail with the exit code and gives what it
// printed.
func fails(t *testing.T, code int, path string, args ...string) string {
	t.Helper()
	p := lab.Start(t, path, args...)
	_ = p.Wait()
	if p.ExitCode() != code {
		t.Errorf("%s %s: exit code %d, want %d\n%s", filepath.Base(path), strings.Join(args, " "), p.ExitCode(), code, p.Output())
	}
	return p.Output()
}

// oneLine checks an error message of ours.
func oneLine(t *testing.T, output, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "sluice: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], want) {
		t.Errorf("the message is %q, want one line with %q", output, want)
	}
}

// eventually waits for something that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// tmpfs mounts a file system of a few bytes.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	lab.Need(t, "mount", "umount")
	dir := t.TempDir()
	if text, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s (root is needed)", err, text)
	}
	t.Cleanup(func() {
		if text, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, text)
		}
	})
	return dir
}

// inFolder lists a folder.
func inFolder(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
