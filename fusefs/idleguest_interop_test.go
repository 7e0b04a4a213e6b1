//go:build interop

package fusefs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/lab"
)

// A client that has the file open and does nothing, such as a guest that idles. A
// server that was started after it has never seen it.

func init() {
	asProcess["idler"] = idlerProcess
	asProcess["reader"] = readerProcess
}

const idlerModeVar = "SLUICE_FUSEFS_MODE" // "r", or "m": mapped

func idlerProcess() error {
	flags := os.O_RDWR
	if os.Getenv(idlerModeVar) == "r" {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(os.Getenv(writerFileVar), flags, 0)
	if err != nil {
		return err
	}
	if os.Getenv(idlerModeVar) == "m" {
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(m) }()
		if err := f.Close(); err != nil { // the mapping has it open
			return err
		}
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is the sign
	_ = f.Close()                        // the mapped one is closed
	return nil
}

// readerProcess opens the file, reads its first bytes, and writes them there.
func readerProcess() error {
	f, err := os.OpenFile(os.Getenv(writerFileVar), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	p := make([]byte, 4096)
	if _, err := f.ReadAt(p, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0x5A}, len(p)), 0); err != nil {
		return err
	}
	return f.Close()
}

// idle starts an idle client; end ends it.
func idle(t *testing.T, path, mode string) (end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProcessVar+"=idler", writerFileVar+"="+path, idlerModeVar+"="+mode)
	cmd.Stderr = logged{t}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("open\n"))); err != nil {
		t.Fatalf("the idle client: %v", err)
	}
	return func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the idle client: %v", err)
		}
	}
}

// use opens the file anew, reads and writes.
func use(t *testing.T, s *servers) {
	t.Helper()
	t.Setenv(asProcessVar, "reader")
	t.Setenv(writerFileVar, filepath.Join(s.dir, "disk"))
	lab.Run(t, os.Args[0])
	got := make([]byte, 4096)
	disk, err := os.Open(s.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = disk.Close() }()
	if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0x5A}, len(got))) {
		t.Errorf("the image: %v, or other bytes than were written", err)
	}
}

// After a restart the file of an idle client is not taken away under it, and one
// that nobody has open is, without force.
func TestIdleClientKeepsItsFile(t *testing.T) {
	eachWay(t, func(t *testing.T, pass string) {
		for _, mode := range []string{"rw", "r", "m"} {
			if pass != "" && mode == "m" {
				continue // the kernel maps the local file then, and ours is closed
			}
			t.Run(mode, func(t *testing.T) { testIdle(t, pass, mode) })
		}
	})
}

func testIdle(t *testing.T, pass, mode string) {
	s := newServers(t, 8<<20, pass)
	end := idle(t, filepath.Join(s.dir, "disk"), mode)
	s.kill()
	s.restart()
	if line := s.ask("remove", "removed"); !strings.Contains(line, "remove file disk: a client has it open") {
		t.Errorf("after kill -9: %q", line)
	}
	s.detach()
	s.restart()
	if line := s.ask("remove", "removed"); !strings.Contains(line, "open") {
		t.Errorf("after a planned restart: %q", line)
	}
	if pass != "" {
		if line := s.ask("force", "removed"); !strings.Contains(line, "until its clients close it") {
			t.Errorf("by force, with passthrough: %q", line)
		}
	}
	end()
	if line := s.ask("remove", "removed"); line != "removed <nil>" {
		t.Errorf("nobody has it open any more: %q", line)
	}
}

// Where the kernel cannot be asked, such as when somebody has unmounted the folder
// under an idle client, the file counts as open.
func TestWhatCannotBeAskedIsOpen(t *testing.T) {
	s := newServers(t, 8<<20, "")
	end := idle(t, filepath.Join(s.dir, "disk"), "rw")
	s.kill()
	s.restart()
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	want := "remove file disk: a client may have it open, since before the server was started; that cannot be found out (open: no such file or directory)"
	if line := s.ask("remove", "removed"); line != "removed "+want {
		t.Errorf("%q, want %q", line, want)
	}
	if line := s.ask("force", "removed"); line != "removed <nil>" {
		t.Errorf("by force: %q", line)
	}
	end()
}

// By force, an ordinary file is taken away from an idle client of before.
func TestForceAfterARestart(t *testing.T) {
	s := newServers(t, 8<<20, "")
	end := idle(t, filepath.Join(s.dir, "disk"), "rw")
	s.kill()
	s.restart()
	if line := s.ask("force", "removed"); line != "removed <nil>" {
		t.Errorf("by force: %q", line)
	}
	end()
}

// A file that is put back does not get the kernel's number of its backing that
// ended with the one before, not even in the process after the next.
func TestPassthroughIsPutBack(t *testing.T) {
	s := newServers(t, 8<<20, "yes")
	s.kill()
	s.restart()
	for range 2 {
		if line := s.ask("remove", "removed"); line != "removed <nil>" {
			t.Fatalf("%q", line)
		}
		if line := s.ask("add", "added"); line != "added true <nil>" {
			t.Fatalf("%q", line)
		}
		use(t, s)
		s.kill()
		s.restart()
		use(t, s)
	}
}

// A new client of a file that an old one has open with passthrough, over restarts
// of either kind.
func TestPassthroughOpensOverRestarts(t *testing.T) {
	s := newServers(t, 8<<20, "yes")
	end := idle(t, filepath.Join(s.dir, "disk"), "rw")
	s.kill()
	s.restart()
	use(t, s)
	s.detach()
	s.restart()
	use(t, s)
	end()
}
