//go:build interop

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/lab"
)

// Copies that do not come to their end. slowURI is a source that takes minutes.
func slowURI(t *testing.T) string {
	t.Helper()
	return nbdkit(t, "--filter=delay", "data", "(0x55)*67108864", "rdelay=500ms")
}

// copying starts a copy to dst and waits until it has made its temporary file.
func copying(t *testing.T, src, dst string, flags ...string) *lab.Proc {
	t.Helper()
	p := lab.Start(t, lab.Sluice(t), append([]string{"copy", src, dst, "--parallel", "1", "--request-size", "4K"}, flags...)...)
	eventually(t, "the temporary file", func() bool { return len(parts(t, filepath.Dir(dst))) == 1 })
	return p
}

// parts lists temporary files.
func parts(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, ".*.part"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestKilledCopyLeavesNoDestination(t *testing.T) {
	dir, old := t.TempDir(), []byte("the old image")
	dst := filepath.Join(dir, "dst.img")
	copying(t, slowURI(t), dst).Kill9()
	if _, err := os.Stat(dst); !os.IsNotExist(err) {
		t.Errorf("the destination is there: %v", err)
	}
	for _, name := range parts(t, dir) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dst, old, 0o600); err != nil {
		t.Fatal(err)
	}
	copying(t, slowURI(t), dst, "--force").Kill9()
	sameContent(t, dst, old)
}

func TestInterruptedCopyCleansUp(t *testing.T) {
	hearHangups(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		dir := t.TempDir()
		p := copying(t, slowURI(t), filepath.Join(dir, "dst.img"))
		p.Signal(sig)
		if sig == syscall.SIGHUP {
			_ = syscall.Kill(p.Pid(), sig) // it comes twice; the process may be gone already
		}
		if _ = p.Wait(); p.ExitCode() != 1 {
			t.Errorf("exit code %d", p.ExitCode())
		}
		oneLine(t, p.Output(), "interrupted (nothing was left behind)")
		if names := inFolder(t, dir); len(names) != 0 {
			t.Errorf("left behind: %v", names)
		}
	}
}

func TestSourceGoesAway(t *testing.T) {
	dir := t.TempDir()
	server, uri := nbdkitProc(t, "--filter=delay", "data", "(0x55)*67108864", "rdelay=500ms")
	p := copying(t, uri+"&reconnect=off", filepath.Join(dir, "dst.img"))
	server.Kill9()
	if _ = p.Wait(); p.ExitCode() != 1 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	oneLine(t, p.Output(), "(nothing was left behind)")
	if names := inFolder(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestDestinationGoesAway(t *testing.T) {
	src, _ := imageFile(t, t.TempDir(), "src.img", 8<<20)
	log := filepath.Join(t.TempDir(), "log")
	server, uri := nbdkitProc(t, "--filter=log", "--filter=delay", "memory", "8M", "wdelay=100ms", "logfile="+log)
	p := lab.Start(t, lab.Sluice(t), "copy", src, uri+"&reconnect=off", "--parallel", "1", "--request-size", "64K")
	eventually(t, "a written piece", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Count(string(text), "...Write ") > 2
	})
	server.Kill9()
	if _ = p.Wait(); p.ExitCode() != 1 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	oneLine(t, p.Output(), "bytes were copied: the destination holds a mixture)")
}

func TestFullDisk(t *testing.T) {
	src, _ := imageFile(t, t.TempDir(), "src.img", 32<<20)
	dir := tmpfs(t, "8M")
	oneLine(t, fails(t, 1, lab.Sluice(t), "copy", src, filepath.Join(dir, "dst.img")), "no space left on device (nothing was left behind)")
	oneLine(t, fails(t, 1, lab.Sluice(t), "create", filepath.Join(dir, "dst.img"), "--size", "32M", "--preallocation", "falloc"), "no space left")
	oneLine(t, fails(t, 1, lab.Sluice(t), "create", filepath.Join(dir, "dst.img"), "--size", "32M", "--preallocation", "full"), "no space left")
	if names := inFolder(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	small := filepath.Join(dir, "small.img")
	lab.Run(t, lab.Sluice(t), "create", small, "--size", "32M")
	oneLine(t, fails(t, 1, lab.Sluice(t), "copy", src, small, "--in-place"), "the destination holds a mixture)")
}

// TestCopyFlushesOnce counts the syncs of a file that is copied: one before it
// has its name or, where it had one, at the end.
func TestCopyFlushesOnce(t *testing.T) {
	lab.Need(t, "strace")
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 1<<20)
	dst, trace := filepath.Join(dir, "dst.img"), filepath.Join(dir, "trace")
	for flag, want := range map[string]string{"--json": "sync name", "--force": "sync name", "--in-place": "sync"} {
		if flag != "--json" {
			if err := os.WriteFile(dst, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lab.Run(t, "strace", "-f", "-qq", "-o", trace, "-e", "trace=fdatasync,linkat,renameat,renameat2", lab.Sluice(t), "copy", src, dst, flag)
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for line := range strings.Lines(string(text)) {
			switch {
			case strings.Contains(line, "resumed"):
			case strings.Contains(line, "fdatasync("):
				got = append(got, "sync")
			case strings.Contains(line, `"dst.img"`):
				got = append(got, "name")
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q\n%s", flag, got, want, text)
		}
		sameContent(t, dst, content)
		if err := os.Remove(dst); err != nil {
			t.Fatal(err)
		}
	}
}
