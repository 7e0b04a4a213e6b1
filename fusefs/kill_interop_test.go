//go:build interop

package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/internal/lab"
)

// hanging is a device in RAM; calls of one kind hang until they are released, and
// do not give up when they are told to.
type hanging struct {
	block.Device
	mu    sync.Mutex
	what  string
	hold  chan struct{}
	calls chan string // told of each call that hangs
	meet  func()      // called by each call, if not nil
}

func newHanging(t *testing.T) *hanging {
	return &hanging{Device: memDevice(t, "4M"), calls: make(chan string, 4096)}
}

func (d *hanging) Info() block.Info {
	i := d.Device.Info()
	i.Caps = 0 // what it can beyond the base is hidden
	return i
}

func (d *hanging) hang(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.what, d.hold = what, make(chan struct{})
}

func (d *hanging) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.what != "" {
		close(d.hold)
	}
	d.what = ""
}

func (d *hanging) wait(what string) {
	d.mu.Lock()
	hangs, hold := d.what == what, d.hold
	d.mu.Unlock()
	if hangs {
		d.calls <- what
		<-hold
	}
	if d.meet != nil {
		d.meet()
	}
}

func (d *hanging) ReadAt(ctx context.Context, p []byte, off int64) error {
	d.wait("read")
	return d.Device.ReadAt(ctx, p, off)
}

func (d *hanging) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	d.wait("write")
	return d.Device.WriteAt(ctx, p, off, flags)
}

func (d *hanging) Flush(ctx context.Context) error {
	d.wait("flush")
	return d.Device.Flush(ctx)
}

// killed ends a client and checks that it is gone before the device answers.
func killed(t *testing.T, client *lab.Proc, sig syscall.Signal) {
	t.Helper()
	start := time.Now()
	client.Signal(sig)
	select {
	case <-client.Done():
		t.Logf("gone after %v", time.Since(start))
	case <-time.After(15 * time.Second):
		t.Fatal("the client is still there")
	}
}

// until waits for something that nobody tells of.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came: " + what)
		}
	}
}

// idle waits for the end of what clients asked of a file.
func untilIdle(t *testing.T, fs *FS, name string) {
	t.Helper()
	until(t, "the end of "+name+"'s requests", func() bool { return fs.tree.named(name).gate.Inside() == 0 })
	until(t, "the last close of "+name, func() bool { n, err := fs.OpenCount(name); return err == nil && n == 0 })
}

// readAll reads the front of a file by way of the mount.
func readAll(t *testing.T, path string, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Error(err)
	}
	return p
}

// patterned makes a local file of one byte, repeated.
func patterned(t *testing.T, b byte, n int) (path string) {
	t.Helper()
	path = t.TempDir() + "/bytes"
	if err := os.WriteFile(path, bytes.Repeat([]byte{b}, n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Clients of a device that hangs can be killed, however they wait for it; the
// device, when it comes back, is used as before.
func TestClientOfHangingDeviceCanBeKilled(t *testing.T) {
	lab.Need(t, "dd")
	const n = 256 << 10
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil { // none is to be left here
		t.Fatal(err)
	}
	ones := patterned(t, 1, n)
	fs := mounted(t)
	quick := add(t, fs, File{Name: "quick", Device: memDevice(t, "1M")})
	d := newHanging(t)
	path := add(t, fs, File{Name: "slow", Device: d})
	t.Cleanup(d.release) // before the mount is closed
	for _, c := range []struct {
		hangs string
		sig   syscall.Signal
		args  []string
	}{
		{"read", syscall.SIGKILL, []string{"if=" + path, "of=/dev/null", "iflag=direct"}},
		{"read", syscall.SIGTERM, []string{"if=" + path, "of=/dev/null"}},
		{"write", syscall.SIGKILL, []string{"if=" + ones, "of=" + path, "oflag=direct", "conv=notrunc"}},
		{"write", syscall.SIGTERM, []string{"if=" + ones, "of=" + path, "conv=notrunc,fsync"}},
		{"read", syscall.SIGQUIT, []string{"if=" + path, "of=/dev/null"}},
		{"write", syscall.SIGABRT, []string{"if=" + ones, "of=" + path, "conv=notrunc,fsync"}},
		{"flush", syscall.SIGKILL, []string{"if=" + ones, "of=" + path, "conv=notrunc,fsync"}},
		{"flush", syscall.SIGKILL, []string{"if=" + ones, "of=" + path, "conv=notrunc"}}, // waits in close
	} {
		t.Log(c.hangs, c.sig, c.args)
		d.hang(c.hangs)
		client := lab.Start(t, "dd", append(c.args, "bs=64k", "status=none")...)
		<-d.calls
		killed(t, client, c.sig)
		readAll(t, quick, 1<<20)
		d.release()
		untilIdle(t, fs, "slow")
		for i, got := range bytes.Split(readAll(t, path, n), bytes.Repeat([]byte{1}, 64<<10)) {
			if len(bytes.Trim(got, "\x00")) > 0 {
				t.Errorf("piece %d holds half of a write", i)
			}
		}
	}
	lab.Run(t, "dd", "if="+ones, "of="+path, "bs=64k", "conv=notrunc,fsync", "status=none")
	if !bytes.Equal(readAll(t, path, n), bytes.Repeat([]byte{1}, n)) {
		t.Error("other bytes than were written last")
	}
}

// The end of a client closes its files, with no signal that the kernel would tell of.
func TestClientThatEndsIsLetGo(t *testing.T) {
	lab.Need(t, "python3")
	fs, d := mounted(t), newHanging(t)
	path := add(t, fs, File{Name: "disk", Device: d})
	t.Cleanup(d.release)
	d.hang("flush")
	client := lab.Start(t, "python3", "-c", "import os, sys; os.write(os.open(sys.argv[1], os.O_RDWR), b'x'); os._exit(0)", path)
	<-d.calls
	if err := client.WaitFor(20 * time.Second); err != nil {
		t.Error(err)
	}
	d.release()
	untilIdle(t, fs, "disk")
	if got := readAll(t, path, 1); got[0] != 'x' {
		t.Errorf("the file begins with %q", got)
	}
}

// A client with many threads, each with a request in the device or in line.
func TestClientWithThreadsCanBeKilled(t *testing.T) {
	fs := mounted(t, func(c *Config) { c.Workers = 2 })
	d := newHanging(t)
	path := add(t, fs, File{Name: "disk", Device: d})
	t.Cleanup(d.release)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProcessVar+"=writers", writerFileVar+"="+path)
	in, err := cmd.StdinPipe() // its end would end the client
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	client := lab.StartCmd(t, cmd)
	for range writerCount {
		client.Expect("open")
	}
	d.hang("write")
	until(t, "requests of all its threads", func() bool { return len(d.calls) == 2 && waitingInLine(fs, "disk") == writerCount-2 })
	killed(t, client, syscall.SIGKILL)
	if n := waitingInLine(fs, "disk"); n != 0 {
		t.Errorf("%d requests are left in line", n)
	}
	d.release()
	untilIdle(t, fs, "disk")
	readAll(t, path, 1<<20)
}

// Who uses a file after a client that was killed never meets that one's writes
// later.
func TestWriteOfKilledClientIsNotLate(t *testing.T) {
	lab.Need(t, "dd")
	const n = 64 << 10
	ones, twos := patterned(t, 1, n), patterned(t, 2, n)
	fs := mounted(t, func(c *Config) { c.Workers = 2 })
	d := newHanging(t)
	path := add(t, fs, File{Name: "disk", Device: d})
	t.Cleanup(d.release)
	d.hang("write")
	args := func(from string) []string {
		return []string{"if=" + from, "of=" + path, "bs=64k", "oflag=direct", "conv=notrunc,fsync", "status=none"}
	}
	first := lab.Start(t, "dd", args(ones)...)
	<-d.calls
	killed(t, first, syscall.SIGKILL)
	second := lab.Start(t, "dd", args(twos)...)
	inLine := func() bool { return waitingInLine(fs, "disk") > 0 }
	until(t, "the second write", inLine)
	killed(t, second, syscall.SIGKILL) // it had not begun
	if inLine() || len(d.calls) > 0 {
		t.Error("a write of a client that was killed is still in line, or has begun")
	}
	third := lab.Start(t, "dd", args(twos)...)
	until(t, "the third write", inLine)
	d.release()
	if err := third.Wait(); err != nil {
		t.Errorf("after the release: %v", err)
	}
	untilIdle(t, fs, "disk")
	if !bytes.Equal(readAll(t, path, n), bytes.Repeat([]byte{2}, n)) {
		t.Error("the killed client's write came last")
	}
}

// A client that gets signals all the time, and is not killed, notices nothing.

func init() { asProcess["signalled"] = signalledProcess }

func signalledProcess() error {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1)
	runtime.LockOSThread()
	tid, end := unix.Gettid(), make(chan struct{})
	defer close(end)
	go func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(200 * time.Microsecond):
				_ = unix.Tgkill(os.Getpid(), tid, syscall.SIGUSR1)
			}
		}
	}()
	fd, err := unix.Open(os.Getenv(writerFileVar), unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	want, got := random(1<<20), make([]byte, 1<<20)
	for i := range 10 {
		want[i]++
		if n, err := unix.Pwrite(fd, want, int64(i)); n != len(want) || err != nil {
			return fmt.Errorf("write %d: %d, %w", i, n, err)
		}
		if n, err := unix.Preadv(fd, [][]byte{got[:4097], got[4097:]}, int64(i)); n != len(got) || err != nil {
			return fmt.Errorf("read %d: %d, %w", i, n, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("read %d: other bytes than were written", i)
		}
		if err := unix.Fsync(fd); err != nil {
			return fmt.Errorf("sync %d: %w", i, err)
		}
	}
	return unix.Close(fd)
}

func TestSignalsThatDoNotKillChangeNothing(t *testing.T) {
	fs := mounted(t)
	d := newHanging(t)
	var met atomic.Int32
	d.meet = func() { // each request is found to have a signal, and looked at
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			waiting, _ := fs.signalledClients()
			if fs.lookAtClients(); len(waiting) > 0 {
				met.Add(1)
				return
			}
		}
	}
	t.Setenv(asProcessVar, "signalled")
	t.Setenv(writerFileVar, add(t, fs, File{Name: "disk", Device: d}))
	lab.Run(t, os.Args[0])
	if n := met.Load(); n < 30 {
		t.Errorf("only %d requests had a signal", n)
	}
	until(t, "the end of the looking", func() bool {
		fs.interrupts.mu.Lock()
		defer fs.interrupts.mu.Unlock()
		return !fs.interrupts.on
	})
}

// A file whose device hangs takes no more than its share of memory, and no other
// file waits for that.
func TestFullQueueRefusesAndDelaysNobody(t *testing.T) {
	fs := mounted(t, func(c *Config) { c.Workers, c.MaxHeld = 1, 2<<20 })
	d := newHanging(t)
	d.hang("write")
	stuck := opened(t, add(t, fs, File{Name: "slow", Device: d}), os.O_RDWR)
	quick := opened(t, add(t, fs, File{Name: "quick", Device: memDevice(t, "2M")}), os.O_RDWR)
	t.Cleanup(d.release)
	errs := make(chan error, 12)
	want := random(1 << 20)
	for i := range cap(errs) {
		go func() { errs <- second(unix.Pwrite(int(stuck.Fd()), want, int64(i%4)<<20)) }()
	}
	for range cap(errs) - 3 { // one in the device, two in line
		if err := <-errs; err != unix.ENOMEM {
			t.Errorf("beyond the share: %v", err)
		}
	}
	got := make([]byte, len(want))
	if _, err := quick.WriteAt(want, 0); err != nil {
		t.Error(err)
	}
	if _, err := quick.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the other file: %v, or other bytes", err)
	}
	d.release()
	for range 3 {
		if err := <-errs; err != nil {
			t.Errorf("in line: %v", err)
		}
	}
}

// The end of a mount is noticed although a request is in a device that hangs, and that
// request's client is let go by the kernel.
func TestEndIsNoticedWhileADeviceHangs(t *testing.T) {
	lab.Need(t, "dd")
	fs, d := mounted(t), newHanging(t)
	path := add(t, fs, File{Name: "disk", Device: d})
	t.Cleanup(d.release)
	d.hang("read")
	client := lab.Start(t, "dd", "if="+path, "of=/dev/null", "iflag=direct", "bs=64k", "count=1", "status=none")
	<-d.calls
	if err := unix.Unmount(fs.Dir(), unix.MNT_FORCE); err != unix.EBUSY && err != nil {
		t.Fatal(err)
	}
	select {
	case <-fs.Done():
	case <-time.After(15 * time.Second):
		t.Error("nobody noticed that the connection was aborted")
	}
	if client.WaitFor(15*time.Second) == nil {
		t.Error("dd has read from a mount that is gone")
	}
}
