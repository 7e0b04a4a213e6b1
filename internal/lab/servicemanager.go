package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ServiceManager does for one service what systemd does: it holds its listening
// sockets and the descriptors that it stores, gives both to each process that it
// starts (LISTEN_FDS, LISTEN_FDNAMES), and hears what the process reports
// (NOTIFY_SOCKET). Sockets and stored descriptors outlive the process.
//
// Its methods are for the test's own goroutine. It owns a goroutine that reads
// what is reported, which ends with the test.
type ServiceManager struct {
	t    TB
	conn *net.UnixConn
	env  []string
	read chan struct{} // closed when the reader has ended

	path string // of the last Start
	args []string
	proc *Proc
	last int // the notice after the last one that Await returned

	mu      sync.Mutex
	pid     int // whose notices count
	sockets []heldFile
	stored  []heldFile
	notices []Notice
	changed chan struct{} // closed and replaced when a notice comes
}

// heldFile is an open file and the name that the process finds it by.
type heldFile struct {
	name string
	file *os.File
}

// Notice is one message of a process.
type Notice struct {
	Pid  int
	Text string // lines of NAME=VALUE
	At   time.Time
	FDs  int // that came with it
}

// Value gives the value of a line, and whether it is there.
func (n Notice) Value(name string) (string, bool) {
	for line := range strings.SplitSeq(n.Text, "\n") {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// NewServiceManager makes one without sockets.
func NewServiceManager(t TB) *ServiceManager {
	t.Helper()
	path := filepath.Join(filepath.Dir(Socket(t)), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatalf("notification socket: %v", err)
	}
	if err := passCredentials(conn); err != nil {
		t.Fatalf("notification socket: %v", err)
	}
	m := &ServiceManager{t: t, conn: conn, read: make(chan struct{}), changed: make(chan struct{})}
	m.env = []string{"NOTIFY_SOCKET=" + path}
	go m.listen()
	t.Cleanup(func() {
		_ = conn.Close()
		<-m.read
		for _, h := range append(m.sockets, m.stored...) {
			_ = h.file.Close()
		}
	})
	return m
}

// passCredentials has the kernel tell who sent each message.
func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	}); e != nil {
		return e
	}
	return err
}

// Setenv adds NAME=VALUE to the environment of the processes to come.
// WATCHDOG_USEC=N has them feed a watchdog.
func (m *ServiceManager) Setenv(name, value string) { m.env = append(m.env, name+"="+value) }

// Listen opens a socket ("unix" or "tcp") for the processes to come, and returns
// its address.
func (m *ServiceManager) Listen(name, network, address string) net.Addr {
	m.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		m.t.Fatalf("%v", err)
	}
	addr := l.Addr()
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		m.t.Fatalf("%v", err)
	}
	_ = l.Close() // file is a copy
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, heldFile{name, file})
	return addr
}

// Start starts the service's process; the one before it must have ended.
func (m *ServiceManager) Start(path string, args ...string) *Proc {
	m.t.Helper()
	if m.proc != nil && !m.proc.exited() {
		m.t.Fatalf("the service is running")
	}
	m.path, m.args = path, args
	// Only the process itself can know its id before it begins.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, path}, args...)...)
	m.mu.Lock()
	held := append(append([]heldFile(nil), m.sockets...), m.stored...)
	m.mu.Unlock()
	var names []string
	for _, h := range held {
		names = append(names, h.name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, h.file)
	}
	cmd.Env = append(os.Environ(), m.env...)
	cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(held)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	m.mu.Lock() // a notice of the new process waits until its id is known
	m.proc = StartCmd(m.t, cmd)
	m.pid = m.proc.Pid()
	m.last = len(m.notices)
	m.mu.Unlock()
	return m.proc
}

// Ready waits until the process reports that it is ready.
func (m *ServiceManager) Ready() { m.t.Helper(); m.Await("READY=1") }

// Kill9 ends the process as a crash does: sockets and stored descriptors stay.
func (m *ServiceManager) Kill9() { m.proc.Kill9() }

// Restart starts the process again, after it has ended, and waits until it is
// ready. It returns the time that this took.
func (m *ServiceManager) Restart() time.Duration {
	m.t.Helper()
	start := time.Now()
	m.Start(m.path, m.args...)
	m.Ready()
	return time.Since(start)
}

// End ends the process with SIGTERM as a restart does: sockets and stored
// descriptors stay. It returns what the process' Stop returns.
func (m *ServiceManager) End() error {
	m.t.Helper()
	return m.proc.Stop()
}

// Stop ends the service with SIGTERM and forgets what it stored. It returns what
// the process' Stop returns.
func (m *ServiceManager) Stop() error {
	m.t.Helper()
	err := m.proc.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(func(heldFile) bool { return true })
	return err
}

// Stored gives the names of the stored descriptors, in their order.
func (m *ServiceManager) Stored() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := []string{}
	for _, h := range m.stored {
		names = append(names, h.name)
	}
	return names
}

// Notices gives all that was reported so far, by all processes.
func (m *ServiceManager) Notices() []Notice {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Notice(nil), m.notices...)
}

// Await waits for the next notice with this line (NAME=VALUE), or, without "=",
// with a line of this name. Those before it are passed over. It fails the test
// when the process ends without it, or after a minute.
func (m *ServiceManager) Await(line string) Notice {
	m.t.Helper()
	deadline := time.NewTimer(lineTimeout)
	defer deadline.Stop()
	for ended := false; ; {
		n, more := m.find(line)
		if more == nil {
			return n
		}
		if ended {
			m.t.Fatalf("%s ended without the notice %s (%s)", m.path, line, m.proc.state())
		}
		select {
		case <-more:
		case <-m.proc.Done():
			m.settle()
			ended = true
		case <-deadline.C:
			m.t.Fatalf("%s sent no notice %s in %v", m.path, line, lineTimeout)
		}
	}
}

// find looks for a notice from last on. Without one it returns a channel that is
// closed when the next one comes.
func (m *ServiceManager) find(line string) (Notice, <-chan struct{}) {
	name, value, whole := strings.Cut(line, "=")
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := m.last; i < len(m.notices); i++ {
		got, ok := m.notices[i].Value(name)
		if ok && m.notices[i].Pid == m.pid && (!whole || got == value) {
			m.last = i + 1
			return m.notices[i], nil
		}
	}
	return Notice{}, m.changed
}

// settle returns when everything that was sent before has been read: messages
// come in the order in which they were sent.
func (m *ServiceManager) settle() {
	m.t.Helper()
	mark := fmt.Sprintf("LAB_MARK=%d", time.Now().UnixNano())
	conn, err := net.DialUnix("unixgram", nil, m.conn.LocalAddr().(*net.UnixAddr))
	if err != nil {
		m.t.Fatalf("notification socket: %v", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(mark)); err != nil {
		m.t.Fatalf("notification socket: %v", err)
	}
	for {
		m.mu.Lock()
		seen, more := false, m.changed
		for _, n := range m.notices {
			seen = seen || n.Text == mark
		}
		m.mu.Unlock()
		if seen {
			return
		}
		<-more
	}
}

// listen reads notices until the socket is closed.
func (m *ServiceManager) listen() {
	defer close(m.read)
	text, control := make([]byte, 64<<10), make([]byte, 4096)
	for {
		n, oob, _, _, err := m.conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		pid, fds := unpack(control[:oob])
		m.take(Notice{Pid: pid, Text: strings.TrimSuffix(string(text[:n]), "\n"), At: time.Now(), FDs: len(fds)}, fds)
	}
}

// unpack gives the sender of a message and the descriptors that came with it.
func unpack(control []byte) (pid int, fds []int) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if c, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(c.Pid)
		}
		if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return pid, fds
}

// take does what a notice asks for. Only the service's process is obeyed.
func (m *ServiceManager) take(n Notice, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notices = append(m.notices, n)
	name, named := n.Value("FDNAME")
	if !named {
		name = "stored"
	}
	store, _ := n.Value("FDSTORE")
	remove, _ := n.Value("FDSTOREREMOVE")
	for _, fd := range fds {
		if store == "1" && n.Pid == m.pid {
			m.stored = append(m.stored, heldFile{name, os.NewFile(uintptr(fd), name)})
		} else {
			_ = syscall.Close(fd)
		}
	}
	if remove == "1" && n.Pid == m.pid {
		m.forget(func(h heldFile) bool { return h.name == name })
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// forget closes stored descriptors; mu is held.
func (m *ServiceManager) forget(which func(heldFile) bool) {
	var left []heldFile
	for _, h := range m.stored {
		if which(h) {
			_ = h.file.Close()
		} else {
			left = append(left, h)
		}
	}
	m.stored = left
}
