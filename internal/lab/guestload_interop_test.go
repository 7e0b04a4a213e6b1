//go:build interop

package lab

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"
)

// keptSocket is a listening socket that outlives the servers at it, as one of a
// service manager does. Clients that come while no server runs wait in its queue.
type keptSocket struct {
	file *os.File
	path string
}

func keepSocket(t *testing.T) keptSocket {
	t.Helper()
	path := Socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	l.SetUnlinkOnClose(false) // the descriptor is a copy of its own
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return keptSocket{file, path}
}

// serve starts a server that gets the socket. It prints no line when it is
// ready, since clients need not wait for that.
func (k keptSocket) serve(t *testing.T, image string) *Proc {
	t.Helper()
	// The variable has to hold the pid of the server itself, which the shell becomes.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", Sluice(t), "serve", image)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{k.file}
	return StartCmd(t, cmd)
}

// TestGuestBearsRestartsAtAKeptSocket: three times killed and started again, and
// three times asked to end, while the listening socket stays open.
func TestGuestBearsRestartsAtAKeptSocket(t *testing.T) {
	image, sock := sparse(t, 64<<20), keepSocket(t)
	server := sock.serve(t, image)
	guest := StartGuestLoad(t, GuestConfig{Disks: []string{"nbd+unix:///?socket=" + sock.path}, Reconnect: 30})
	guest.BearRestarts(func() {
		server.Kill9()
		server = sock.serve(t, image)
	}, func() {
		if err := server.Stop(); err != nil {
			t.Errorf("the server's end: %v", err)
		}
		server = sock.serve(t, image)
	})
}

// TestGuestBearsRestartsOfItsServer is the same without anybody who keeps the
// socket. QEMU's first attempt to connect finds nobody, and it tries again after
// one second, then after two more, four more: so a server that is away for 20 ms
// costs a second, and one that is away for 1.2 s three.
func TestGuestBearsRestartsOfItsServer(t *testing.T) {
	image, sock := sparse(t, 64<<20), Socket(t)
	serve := func() *Proc {
		p := Start(t, Sluice(t), "serve", image, "--nbd", "unix:"+sock)
		p.Ready()
		return p
	}
	server := serve()
	guest := StartGuestLoad(t, GuestConfig{Disks: []string{"nbd+unix:///?socket=" + sock}, Reconnect: 30})
	guest.Cycles(10)
	var stalls []time.Duration
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM} {
		stalls = append(stalls, guest.Across(func() {
			server.Signal(signal)
			<-server.Done()
			server = serve()
		}))
	}
	t.Logf("longest cycle after each restart %v; %+v", stalls, guest.Finish())
	// One attempt fails before the server is there again, or at most two; the fifth would be after 31 seconds.
	Goal(t, "the guest's longest cycle", slices.Max(stalls), 4*time.Second, 20*time.Second)
}

// TestGuestOnAFile: a FUSE file is a guest's disk, opened with O_DIRECT and with
// QEMU's locks.
func TestGuestOnAFile(t *testing.T) {
	Need(t, "qemu-storage-daemon")
	image := sparse(t, 64<<20)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := Start(t, "qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename="+image,
		"--export", "type=fuse,id=export,node-name=disk,writable=on,mountpoint="+file)
	daemon.Until("the file is there", func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() == 64<<20
	})
	guest := StartGuestLoad(t, GuestConfig{Disks: []string{file}})
	guest.Cycles(5)
	t.Logf("%+v", guest.Finish())
	if err := daemon.Stop(); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(image)
	if err != nil || !bytes.HasPrefix(data[64<<10:], fmt.Appendf(nil, "%-512d", 1)) {
		t.Errorf("the first thing that the guest wrote is not in the image: %v", err)
	}
}

// A guest whose disk fails says so, and the test fails.
func TestGuestLoadFails(t *testing.T) {
	image, sock := sparse(t, 64<<20), keepSocket(t)
	server := sock.serve(t, image)
	failure, _ := failing(t, func(t TB) {
		guest := StartGuestLoad(t, GuestConfig{Disks: []string{"nbd+unix:///?socket=" + sock.path}})
		guest.Cycles(1)
		server.Kill9()
		_ = sock.file.Close()
		guest.Cycles(100)
	})
	// Whichever request it was that found no server.
	if !regexp.MustCompile(`guest: cycle \d+: (.*Input/output error|read |slot )`).MatchString(failure) {
		t.Errorf("failure: %s", failure)
	}
}
