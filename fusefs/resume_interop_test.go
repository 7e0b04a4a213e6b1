//go:build interop

package fusefs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	localfile "sluice/backends/file"
	"sluice/block"
)

// A server in a process of its own, which the tests kill. The test holds the
// descriptor of /dev/fuse in the meantime, as the service manager would.

func init() { asProcess["server"] = serverProcess }

const (
	serverDirVar   = "SLUICE_FUSEFS_DIR"
	serverDiskVar  = "SLUICE_FUSEFS_DISK"
	serverStateVar = "SLUICE_FUSEFS_STATE" // path of the state; the first server makes it
	serverPassVar  = "SLUICE_FUSEFS_PASS"
	storeFD        = 3 // a socket at first, then the descriptor
	resumedID      = 4242
)

func serverProcess() error {
	dir, disk, statePath := os.Getenv(serverDirVar), os.Getenv(serverDiskVar), os.Getenv(serverStateVar)
	dev, err := localfile.Open(ctx, disk, block.OpenOptions{})
	if err != nil {
		return err
	}
	state, err := os.ReadFile(statePath)
	first := err != nil
	var fs *FS
	if first {
		fs, err = Mount(Config{Dir: dir})
	} else {
		fs, err = Resume(Config{Dir: dir}, storeFD, state)
	}
	if err != nil {
		return err
	}
	file := File{Name: "disk", Device: dev, ID: resumedID, Passthrough: os.Getenv(serverPassVar) != ""}
	if err := fs.Add(file); err != nil {
		return err
	}
	if state, err = fs.State(); err == nil {
		err = os.WriteFile(statePath, state, 0o600)
	}
	if err == nil && first {
		err = unix.Sendmsg(storeFD, []byte("fd"), unix.UnixRights(fs.FD()), nil, 0)
	} else if err == nil {
		err = fs.Serve()
	}
	if err != nil {
		return err
	}
	fmt.Println("serving", fs.Passthrough("disk"))
	command := bufio.NewScanner(os.Stdin)
	for command.Scan() {
		switch command.Text() {
		case "open":
			n, err := fs.OpenCount("disk")
			fmt.Println("open", n, err)
		case "remove":
			fmt.Println("removed", fs.Remove(ctx, "disk", false))
		case "force":
			fmt.Println("removed", fs.Remove(ctx, "disk", true))
		case "add":
			err := fs.Add(file)
			if state, err2 := fs.State(); err2 == nil {
				err = errors.Join(err, os.WriteFile(statePath, state, 0o600))
			}
			fmt.Println("added", fs.Passthrough("disk"), err)
		case "detach":
			err := fs.Detach(ctx)
			fmt.Println("detached", err)
			return dev.Close()
		}
	}
	return fs.Close()
}

// servers starts one server after the other on the same mount.
type servers struct {
	t         *testing.T
	dir, disk string
	state     string
	fd        *os.File // the store's
	pass      string
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
}

func newServers(t *testing.T, size int64, pass string) *servers {
	t.Helper()
	s := &servers{t: t, dir: t.TempDir(), disk: filepath.Join(t.TempDir(), "disk"), state: filepath.Join(t.TempDir(), "state"), pass: pass}
	if err := os.WriteFile(s.disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.disk, size); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(pair[1]), "far")
	s.start(far)
	_ = far.Close()
	fd, err := receiveFD(pair[0])
	_ = unix.Close(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	s.fd = os.NewFile(uintptr(fd), "fuse")
	if line := s.wait("serving"); line != fmt.Sprint("serving ", pass != "") {
		t.Errorf("%q, want passthrough %v", line, pass != "")
	}
	t.Cleanup(func() {
		_ = unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH)
		_ = s.fd.Close()
		s.kill()
	})
	return s
}

func (s *servers) start(extra *os.File) {
	s.t.Helper()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), asProcessVar+"=server", serverDirVar+"="+s.dir, serverDiskVar+"="+s.disk,
		serverStateVar+"="+s.state, serverPassVar+"="+s.pass)
	s.cmd.ExtraFiles = []*os.File{extra}
	s.cmd.Stderr = logged{s.t}
	s.in, _ = s.cmd.StdinPipe()
	out, _ := s.cmd.StdoutPipe()
	s.out = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits for a line that begins with a word, and gives it.
func (s *servers) wait(word string) string {
	s.t.Helper()
	for s.out.Scan() {
		if line := s.out.Text(); len(line) >= len(word) && line[:len(word)] == word {
			return line
		}
	}
	s.t.Fatalf("the server ended without %q: %v", word, s.cmd.Wait())
	return ""
}

func (s *servers) ask(command, answer string) string {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		s.t.Fatal(err)
	}
	return s.wait(answer)
}

// awaitOpen waits until the file counts as open so many times.
func (s *servers) awaitOpen(n int) {
	s.t.Helper()
	line, want := "", fmt.Sprintf("open %d <nil>", n)
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		if line = s.ask("open", "open"); line == want {
			return
		}
	}
	s.t.Errorf("%q, want %q", line, want)
}

func (s *servers) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
}

// detach ends a server in order.
func (s *servers) detach() {
	s.t.Helper()
	if line := s.ask("detach", "detached"); line != "detached <nil>" {
		s.t.Errorf("detach: %q", line)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server: %v", err)
	}
}

func (s *servers) restart() {
	s.t.Helper()
	s.start(s.fd)
	if line := s.wait("serving"); line != fmt.Sprint("serving ", s.pass != "") {
		s.t.Errorf("%q, want passthrough %v", line, s.pass != "")
	}
}

// The clients are a process of their own as well: one that has files of the mount
// open cannot start the server, since to start a program closes them in a copy of
// the process, which the server is asked about.

func init() { asProcess["writers"] = writersProcess }

const (
	writerFileVar = "SLUICE_FUSEFS_FILE"
	writerPart    = 1 << 20
	writerCount   = 4
)

// writersProcess writes and verifies until its input ends, each writer in its own
// part of the file. For each line of its input it says when there has been traffic
// since then.
func writersProcess() error {
	stop, rounds := make(chan struct{}), make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			for range 200 {
				<-rounds
			}
			fmt.Println("traffic")
		}
		close(stop)
	}()
	var ended sync.WaitGroup
	var errs [writerCount]error
	for i := range writerCount {
		ended.Go(func() { errs[i] = writer(i, os.Getenv(writerFileVar), stop, rounds) })
	}
	ended.Wait()
	return errors.Join(errs[:]...)
}

func writer(i int, path string, stop, rounds chan struct{}) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fmt.Println("open")
	length := 4096 << (2 * i) // 4 KiB … 256 KiB
	p, q := make([]byte, length), make([]byte, length)
	var longest time.Duration
	for round := uint64(1); ; round++ {
		select {
		case <-stop:
			fmt.Printf("writer %d: %d rounds, the longest took %v\n", i, round, longest)
			return nil
		case rounds <- struct{}{}:
		default:
		}
		for j := 0; j < length; j += 8 {
			binary.LittleEndian.PutUint64(p[j:], round<<20|uint64(j))
		}
		off := int64(i)*writerPart + int64(round%4)*int64(length)
		start := time.Now()
		if _, err := f.WriteAt(p, off); err != nil {
			return fmt.Errorf("writer %d, round %d: %w", i, round, err)
		}
		if _, err := f.ReadAt(q, off); err != nil {
			return fmt.Errorf("writer %d, round %d: %w", i, round, err)
		}
		if round%16 == 0 {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("writer %d, round %d: sync: %w", i, round, err)
			}
		}
		longest = max(longest, time.Since(start))
		if !bytes.Equal(p, q) {
			return fmt.Errorf("writer %d, round %d: other bytes than were written", i, round)
		}
	}
}

// writers is the process of the clients.
type writers struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startWriters(t *testing.T, path string) *writers {
	t.Helper()
	w := &writers{cmd: exec.Command(os.Args[0])}
	w.cmd.Env = append(os.Environ(), asProcessVar+"=writers", writerFileVar+"="+path)
	w.cmd.Stderr = logged{t}
	w.in, _ = w.cmd.StdinPipe()
	out, _ := w.cmd.StdoutPipe()
	w.out = bufio.NewScanner(out)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range writerCount {
		if !w.out.Scan() {
			t.Fatal("the writers ended at once")
		}
	}
	return w
}

// traffic waits until the writers have done more.
func (w *writers) traffic(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(w.in, "more"); err != nil || !w.out.Scan() {
		t.Fatalf("the writers have ended: %v", err)
	}
}

func (w *writers) end(t *testing.T) {
	t.Helper()
	_ = w.in.Close()
	for w.out.Scan() {
		t.Log(w.out.Text())
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("the writers: %v", err)
	}
}

// eachWay runs a test with an ordinary file and with passthrough.
func eachWay(t *testing.T, test func(t *testing.T, pass string)) {
	t.Run("ordinary", func(t *testing.T) { test(t, "") })
	t.Run("passthrough", func(t *testing.T) { test(t, "yes") })
}

func TestClientsSurviveKill9(t *testing.T) {
	eachWay(t, func(t *testing.T, pass string) {
		s := newServers(t, 8<<20, pass)
		w := startWriters(t, filepath.Join(s.dir, "disk"))
		for range 5 {
			w.traffic(t)
			start := time.Now()
			s.kill()
			s.restart()
			t.Logf("killed and served again within %v", time.Since(start))
		}
		w.traffic(t)
		if pass == "" { // each writer is seen when it writes next
			s.awaitOpen(writerCount)
		}
		w.end(t)
		s.awaitOpen(0) // the kernel tells of a close without waiting for us
	})
}

func TestPlannedRestart(t *testing.T) {
	eachWay(t, func(t *testing.T, pass string) {
		s := newServers(t, 8<<20, pass)
		w := startWriters(t, filepath.Join(s.dir, "disk"))
		for range 5 {
			w.traffic(t)
			start := time.Now()
			s.detach()
			took := time.Since(start)
			s.restart()
			t.Logf("detached within %v, served again within %v", took, time.Since(start))
		}
		w.traffic(t)
		w.end(t)
	})
}

// An image that was replaced while nobody served it is the one that the kernel writes.
func TestPassthroughOfAReplacedImage(t *testing.T) {
	s := newServers(t, 1<<20, "yes")
	s.kill()
	fresh := filepath.Join(filepath.Dir(s.disk), "fresh")
	if err := errors.Join(os.WriteFile(fresh, make([]byte, 1<<20), 0o600), os.Rename(fresh, s.disk)); err != nil {
		t.Fatal(err)
	}
	s.restart()
	f := opened(t, filepath.Join(s.dir, "disk"), os.O_RDWR)
	want := random(100_000)
	_, err := f.WriteAt(want, 5000)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(s.disk)
	if err != nil || !bytes.Equal(got[5000:][:len(want)], want) {
		t.Errorf("the image does not hold what was written: %v", err)
	}
}
