package endpoint

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sluice/block"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("ENDPOINT_TEST_SERVICE"); dir != "" {
		service(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Address{
		"unix:/run/x.sock":    {Network: "unix", Path: "/run/x.sock"},
		"unix:/run/../a":      {Network: "unix", Path: "/a"},
		"tcp:127.0.0.1:10809": {Network: "tcp", Host: "127.0.0.1", Port: "10809"},
		"tcp:[::1]:0":         {Network: "tcp", Host: "::1", Port: "0"},
		"tcp:localhost:1":     {Network: "tcp", Host: "localhost", Port: "1"},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", s, got, err, want)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, which reads %+v, %v", s, got, again, err)
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Parse("unix:x.sock"); err != nil || a.Path != filepath.Join(wd, "x.sock") {
		t.Errorf("%+v, %v", a, err)
	}
	for _, s := range []string{
		"", "unix", "unix:", "tcp", "tcp:", "tcp:host", "tcp::1", "tcp:h:65536", "tcp:h:-1", "tcp:h:+1", "tcp:h:01", "tcp:h:http",
		"udp:h:1", "/run/x.sock", "unix:" + strings.Repeat("x", 108), "unix:a\x00b",
	} {
		if a, err := Parse(s); block.KindOf(err) != block.Invalid {
			t.Errorf("%q: %+v, %v", s, a, err)
		}
	}
}

// socket gives the address of a socket that is not there, in a folder whose path
// is short enough.
func socket(t *testing.T) Address {
	t.Helper()
	dir, err := os.MkdirTemp("", "ep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a, err := Unix(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func listen(t *testing.T, a Address) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func reach(t *testing.T, a Address) {
	t.Helper()
	conn, err := net.Dial("unix", a.Path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestSocketFile(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	a := socket(t)
	l := listen(t, a)
	st, err := os.Stat(a.Path)
	if err != nil || st.Mode().Perm() != 0o660 || st.Mode().Type() != os.ModeSocket {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	reach(t, a)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(a.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	a := socket(t)
	stale(t, a)
	listen(t, a)
	reach(t, a)
}

// stale leaves a socket behind that nobody listens on.
func stale(t *testing.T, a Address) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.Path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	a := socket(t)
	listen(t, a)
	l, err := Listen(t.Context(), a)
	if block.KindOf(err) != block.Busy || l != nil {
		t.Errorf("%v, %v", l, err)
	}
	if want := "listen on " + a.String() + ": another process listens there"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	reach(t, a)
}

// TestFullSocketIsRefused: a server that does not keep up with its clients is
// there all the same.
func TestFullSocketIsRefused(t *testing.T) {
	a := socket(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: a.Path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unix", a.Path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	if _, err := Listen(t.Context(), a); block.KindOf(err) != block.Busy {
		t.Error(err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	a := socket(t)
	if err := os.WriteFile(a.Path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), a); block.KindOf(err) != block.Exists {
		t.Error(err)
	}
	if text, err := os.ReadFile(a.Path); string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	a.Path = filepath.Join(a.Path, "below")
	if _, err := Listen(t.Context(), a); block.KindOf(err) != block.Invalid {
		t.Error(err)
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	a := socket(t)
	first := listen(t, a)
	if err := os.Remove(a.Path); err != nil {
		t.Fatal(err)
	}
	listen(t, a)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	reach(t, a)
}

// TestManyServersReplaceOneSocket: of many that find a stale socket at the same
// time, one gets the address, and keeps it.
func TestManyServersReplaceOneSocket(t *testing.T) {
	for range 20 {
		a := socket(t)
		stale(t, a)
		var wg sync.WaitGroup
		won := make(chan net.Listener, 8)
		for range cap(won) {
			wg.Go(func() {
				l, err := Listen(t.Context(), a)
				switch block.KindOf(err) {
				case block.OK:
					won <- l
				case block.Busy:
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d servers have the address", len(won))
		}
		reach(t, a)
		if err := (<-won).Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLockedFolder(t *testing.T) {
	a := socket(t)
	stale(t, a)
	unlock, err := lockFolder(t.Context(), filepath.Dir(a.Path), lockWait)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Listen(ctx, a); err == nil {
		t.Error("the socket was replaced without the folder's lock")
	}
}

// TestSomebodyKeepsTheFolderLocked: anybody may lock /tmp. That keeps nobody from
// serving at a new socket, only from replacing one.
func TestSomebodyKeepsTheFolderLocked(t *testing.T) {
	a := socket(t)
	unlock, err := lockFolder(t.Context(), filepath.Dir(a.Path), lockWait)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	l, err := listenUnix(t.Context(), a, 0)
	if err != nil {
		t.Fatal(err)
	}
	reach(t, a)
	refused := func(kind block.Kind, why string) {
		t.Helper()
		_, err := listenUnix(t.Context(), a, 0)
		if block.KindOf(err) != kind || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
	}
	refused(block.Busy, "another process listens there")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	stale(t, a)
	refused(block.Busy, "a lock on its folder")
	if err := os.WriteFile(a.Path+"f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.Path += "f"
	refused(block.Exists, "is not a socket")
}

func TestTCP(t *testing.T) {
	l := listen(t, Address{Network: "tcp", Host: "127.0.0.1", Port: "0"})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Listen(t.Context(), Address{Network: "tcp", Host: "127.0.0.1", Port: port})
	if block.KindOf(err) != block.Busy || strings.Count(err.Error(), port) != 1 {
		t.Error(err)
	}
}

func TestURI(t *testing.T) {
	unixAddr := &net.UnixAddr{Name: "/run/a b.sock", Net: "unix"}
	for _, c := range []struct {
		addr net.Addr
		name string
		tls  bool
		want string
	}{
		{unixAddr, "", false, "nbd+unix:///?socket=/run/a%20b.sock"},
		{unixAddr, "d/ü?", true, "nbds+unix:///d/%C3%BC%3F?socket=/run/a%20b.sock"},
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 10809}, "x", false, "nbd://10.0.0.1:10809/x"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 1}, "", true, "nbds://127.0.0.1:1/"},
		{&net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, "", false, "nbd://[::1]:1/"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1}, "", false, "nbd://[fe80::1%25eth0]:1/"},
	} {
		if got := URI(c.addr, c.name, c.tls); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestRuntimeFolder(t *testing.T) {
	if dir, mode, err := runtimeFolder(0, "/elsewhere"); dir != "/run/sluice" || mode != 0o755 || err != nil {
		t.Errorf("%s, %v, %v", dir, mode, err)
	}
	if dir, mode, err := runtimeFolder(1000, "/run/user/1000"); dir != "/run/user/1000/sluice" || mode != 0o700 || err != nil {
		t.Errorf("%s, %v, %v", dir, mode, err)
	}
	for _, base := range []string{"", "relative"} {
		if _, _, err := runtimeFolder(1000, base); err == nil || !strings.Contains(err.Error(), "--nbd unix:PATH") {
			t.Error(err)
		}
	}
}
