package endpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/block"
	"sluice/internal/lab"
)

// service is a process that a service manager started. On each socket it answers
// a connection with what it takes the socket for. It stores a file once, as
// "kept", and finds it again in its next lives; SIGHUP is a reload. It is wedged
// when there is a file of that name in the folder. USR1 removes the stored file.
func service(dir string) {
	h, err := ActivatedNamed()
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	for kind, list := range map[string][]net.Listener{"api": h.API, "nbd": h.NBD, "metrics": h.Metrics} {
		for _, l := range list {
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, kind+"\n")
					_ = conn.Close()
				}
			}()
		}
	}
	n := NewNotifier()
	check(n.Status("life " + keep(n, h, dir)))
	interval, err := WatchdogInterval()
	check(err)
	w := StartWatchdog(WatchdogConfig{Notifier: n, Interval: interval, Logger: slog.New(slog.DiscardHandler), Alive: func(ctx context.Context) error {
		if _, err := os.Stat(filepath.Join(dir, "wedged")); err == nil {
			<-ctx.Done()
		}
		return nil
	}})
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1)
	check(n.Ready())
	for s := range signals {
		switch s {
		case syscall.SIGHUP:
			check(n.Reloading())
			check(n.Ready())
		case syscall.SIGUSR1:
			check(n.RemoveFD("kept"))
			check(n.Status("removed"))
		default:
			check(n.Stopping())
			w.Close()
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// keep appends to the stored file, which has no name any more, and gives the
// number of its lines.
func keep(n *Notifier, h *Handed, dir string) string {
	var f *os.File
	if kept := h.Files["kept"]; len(kept) > 0 {
		f = kept[0]
	} else {
		var err error
		f, err = os.CreateTemp(dir, "kept")
		check(err)
		check(os.Remove(f.Name()))
		check(n.StoreFD("kept", int(f.Fd())))
	}
	_, err := f.WriteString("x\n")
	check(err)
	end, err := f.Seek(0, io.SeekEnd)
	check(err)
	return strconv.FormatInt(end/2, 10)
}

// managed starts the service under a manager with four sockets, and gives their
// addresses by name.
func managed(t *testing.T, m *lab.ServiceManager) (dir string, addrs map[string]net.Addr) {
	t.Helper()
	dir = t.TempDir()
	addrs = map[string]net.Addr{
		"api":     m.Listen("api", "unix", lab.Socket(t)),
		"nbd":     m.Listen("nbd", "unix", lab.Socket(t)),
		"metrics": m.Listen("metrics", "tcp", "127.0.0.1:0"),
		"other":   m.Listen("other.socket", "tcp", "127.0.0.1:0"),
	}
	m.Setenv("ENDPOINT_TEST_SERVICE", dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.Start(exe)
	return dir, addrs
}

// answer connects and gives the line that comes.
func answer(t *testing.T, a net.Addr) string {
	t.Helper()
	conn, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// TestLivesOfAService takes a process through start, reload, crashes and the end.
func TestLivesOfAService(t *testing.T) {
	m := lab.NewServiceManager(t)
	_, addrs := managed(t, m)
	stored := m.Await("FDSTORE=1")
	if stored.Text != "FDSTORE=1\nFDNAME=kept\nFDPOLL=0" || stored.FDs != 1 {
		t.Errorf("%+v", stored)
	}
	m.Await("STATUS=life 1")
	m.Ready()
	sockets := func() {
		t.Helper()
		for name, want := range map[string]string{"api": "api", "nbd": "nbd", "metrics": "metrics", "other": "nbd"} {
			if got := answer(t, addrs[name]); got != want {
				t.Errorf("the socket %s is served as %s", name, got)
			}
		}
	}
	sockets()
	for life := 2; life <= 4; life++ {
		m.Kill9()
		late, err := net.Dial(addrs["nbd"].Network(), addrs["nbd"].String()) // nobody refuses it
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Stored(); len(got) != 1 || got[0] != "kept" {
			t.Errorf("stored: %q", got)
		}
		m.Restart()
		if line, err := bufio.NewReader(late).ReadString('\n'); err != nil || line != "nbd\n" {
			t.Errorf("who came meanwhile: %q, %v", line, err)
		}
		if err := late.Close(); err != nil {
			t.Error(err)
		}
		sockets()
		if status := lastStatus(m); status != fmt.Sprintf("life %d", life) {
			t.Errorf("life %d says %q", life, status)
		}
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
	m.Await("STOPPING=1")
}

func lastStatus(m *lab.ServiceManager) (status string) {
	for _, n := range m.Notices() {
		if s, ok := n.Value("STATUS"); ok {
			status = s
		}
	}
	return status
}

func TestReloadTellsWhenItBegan(t *testing.T) {
	m := lab.NewServiceManager(t)
	dir := t.TempDir()
	m.Setenv("ENDPOINT_TEST_SERVICE", dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := m.Start(exe)
	m.Ready()
	before := monotonic(t)
	p.Signal(syscall.SIGHUP)
	n := m.Await("RELOADING=1")
	text, _ := n.Value("MONOTONIC_USEC")
	at, err := strconv.ParseInt(text, 10, 64)
	if after := monotonic(t) + 10_000; err != nil || at < before || at > after { // it counts hundredths of a second
		t.Errorf("%q, not between %d and %d", text, before, after)
	}
	m.Ready()
	p.Signal(syscall.SIGUSR1)
	m.Await("STATUS=removed")
	if got := m.Stored(); len(got) != 0 {
		t.Errorf("stored: %q", got)
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
}

// monotonic gives the machine's clock as the kernel tells it, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime") // the same clock, plus the time asleep
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(seconds * 1e6)
}

// TestWedgedProcessIsNotFed: news come while the process is alive, and stop when
// it hangs.
func TestWedgedProcessIsNotFed(t *testing.T) {
	m := lab.NewServiceManager(t)
	m.Setenv("WATCHDOG_USEC", "40000")
	dir, _ := managed(t, m)
	m.Ready()
	// They may pile up before they are taken, but not every time.
	var longest time.Duration
	for try := 0; try < 10 && longest < 50*time.Millisecond; try++ {
		first := m.Await("WATCHDOG=1")
		for range 5 {
			m.Await("WATCHDOG=1")
		}
		longest = time.Since(first.At)
	}
	if longest < 50*time.Millisecond {
		t.Errorf("five more after %v, with 20 ms between them", longest)
	}
	if err := os.WriteFile(filepath.Join(dir, "wedged"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fed := func() (n int) {
		for _, notice := range m.Notices() {
			if _, ok := notice.Value("WATCHDOG"); ok {
				n++
			}
		}
		return n
	}
	// One may be under way; from then on it stays silent for ten intervals.
	quiet := 0
	for last := fed(); quiet < 20; quiet++ {
		time.Sleep(20 * time.Millisecond)
		if now := fed(); now != last {
			last, quiet = now, 0
		}
	}
	if err := m.Stop(); err != nil { // Close ends the answer that hangs
		t.Error(err)
	}
}

func TestWatchdogTellsOnceWhatIsWrong(t *testing.T) {
	var log strings.Builder
	asked := make(chan struct{}, 100)
	w := StartWatchdog(WatchdogConfig{
		Notifier: &Notifier{}, Interval: 2 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Alive: func(context.Context) error {
			asked <- struct{}{}
			return errors.New("the table is locked")
		},
	})
	for range 5 {
		<-asked
	}
	w.Close()
	if got := log.String(); strings.Count(got, "the table is locked") != 1 {
		t.Errorf("%q", got)
	}
	StartWatchdog(WatchdogConfig{}).Close()
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 30 * time.Second}, {"5", strconv.Itoa(os.Getpid()), 5 * time.Microsecond}, {"5", "1", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got, err := WatchdogInterval(); got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := WatchdogInterval(); err == nil {
		t.Error("no error")
	}
}

// TestNotifier sends to a socket in the abstract namespace, to none, and to one
// that is gone.
func TestNotifier(t *testing.T) {
	name := fmt.Sprintf("@sluice-test-%d", os.Getpid())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", name)
	n := NewNotifier()
	if !n.Managed() {
		t.Error("not managed")
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	for want, send := range map[string]func() error{
		"READY=1": n.Ready, "STOPPING=1": n.Stopping, "STATUS=two lines ": func() error { return n.Status("two\nlines\x00") },
	} {
		if err := send(); err != nil {
			t.Error(err)
		}
		if got, _, err := conn.ReadFromUnix(buf); err != nil || string(buf[:got]) != want {
			t.Errorf("%q, %v; want %q", buf[:got], err, want)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); err == nil || !strings.HasPrefix(err.Error(), "notify the service manager: ") {
		t.Error(err)
	}
	for _, socket := range []string{"", "vsock:2:1234", "relative"} {
		n := notifierTo(socket)
		if err := errors.Join(n.Ready(), n.StoreFD("x", 0), n.RemoveFD("x")); err != nil || n.Managed() {
			t.Errorf("%q: %v", socket, err)
		}
	}
}

func TestNamesOfDescriptors(t *testing.T) {
	n := &Notifier{}
	for _, name := range []string{"", "a:b", "a\nREADY=1", "ü", "\x7f", strings.Repeat("x", 256)} {
		if err := n.StoreFD(name, 0); block.KindOf(err) != block.Invalid {
			t.Errorf("%q: %v", name, err)
		}
		if err := n.RemoveFD(name); block.KindOf(err) != block.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"fuse", "fuse mount", strings.Repeat("x", 255)} {
		if err := n.StoreFD(name, 0); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestSocketThatDoesNotListenIsRefused hands a connected socket over.
func TestSocketThatDoesNotListenIsRefused(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(pair[1]) }()
	h := &Handed{Files: map[string][]*os.File{}}
	f := os.NewFile(uintptr(pair[0]), "connection")
	defer func() { _ = f.Close() }()
	if err := h.take(f); block.KindOf(err) != block.Invalid || !strings.HasSuffix(err.Error(), "(connection) is not a listening socket") {
		t.Error(err)
	}
	if h, err := ActivatedNamed(); err != nil || len(h.NBD)+len(h.Files) != 0 {
		t.Errorf("nothing was handed over: %+v, %v", h, err)
	}
}
