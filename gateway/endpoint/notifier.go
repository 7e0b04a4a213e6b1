package endpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Notifier reports to the service manager that started this process, in
// systemd's protocol (sd_notify(3)). Without one, as after a start by hand,
// everything succeeds and does nothing. Its methods may be called by several
// goroutines.
type Notifier struct {
	socket string // a path, or "@" and a name in the abstract namespace; empty: nobody listens
}

// NewNotifier looks for the service manager in the environment (NOTIFY_SOCKET).
func NewNotifier() *Notifier { return notifierTo(os.Getenv("NOTIFY_SOCKET")) }

// notifierTo knows paths and abstract names. Other sockets, such as those from a
// virtual machine to its host, are of another manager than this machine's.
func notifierTo(socket string) *Notifier {
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		socket = ""
	}
	return &Notifier{socket: socket}
}

// Managed reports whether there is a service manager.
func (n *Notifier) Managed() bool { return n.socket != "" }

// Ready says that the start, or a reload, is over.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Reloading says that a reload has begun. It carries the time, by which the
// manager tells it from one that it has not asked for yet (Type=notify-reload).
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return block.Wrap(os.NewSyscallError("clock_gettime", err), "notify", "the service manager", -1)
	}
	return n.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

// Stopping says that the end has begun.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status sets the line that describes the service to the administrator.
func (n *Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.Map(func(r rune) rune {
		if r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, text))
}

// alive feeds the watchdog.
func (n *Notifier) alive() error { return n.send("WATCHDOG=1") }

// StoreFD gives the manager a copy of a descriptor, which the next process of
// this service finds by name in Handed.Files, however this one ends. It returns
// when the manager has it. The manager keeps it until RemoveFD, or until the
// service is stopped; it does not look whether it is dead (FDPOLL=0). It keeps no
// more than FileDescriptorStoreMax= says, without a word about those beyond.
func (n *Notifier) StoreFD(name string, fd int) error {
	if err := checkFDName(name); err != nil {
		return err
	}
	if err := n.send("FDSTORE=1\nFDNAME="+name+"\nFDPOLL=0", fd); err != nil {
		return err
	}
	return n.barrier()
}

// RemoveFD has the manager close all that is stored under the name, and returns
// when it has.
func (n *Notifier) RemoveFD(name string) error {
	if err := checkFDName(name); err != nil {
		return err
	}
	if err := n.send("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
		return err
	}
	return n.barrier()
}

// barrier returns when the manager has read all that was sent. It drops messages
// of a process that is gone by the time that it reads them. It closes what comes
// with a barrier after all that was sent before.
func (n *Notifier) barrier() error {
	if n.socket == "" {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return notifyFailed(err)
	}
	defer func() { _ = r.Close() }()
	err = n.send("BARRIER=1", int(w.Fd()))
	_ = w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(sendWait)); err != nil {
		return notifyFailed(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return block.Errorf(block.Transient, "notify", "the service manager", -1, "it did not answer in %v", sendWait)
	}
	return nil
}

// maxFDName is the longest name that systemd takes.
const maxFDName = 255

// checkFDName keeps to what systemd takes: otherwise it would keep the descriptor
// under another name.
func checkFDName(name string) error {
	bad := func(r rune) bool { return r < ' ' || r >= 0x7F || r == ':' }
	if name == "" || len(name) > maxFDName || strings.ContainsFunc(name, bad) {
		return block.Errorf(block.Invalid, "store a descriptor", fmt.Sprintf("%.64q", name), -1,
			"a name has 1 to %d printable ASCII characters other than a colon", maxFDName)
	}
	return nil
}

// sendWait bounds the wait for a manager that does not read.
const sendWait = 5 * time.Second

// send sends one message. There are few of them, so each has a socket of its own
// and finds the manager again after it has been restarted.
func (n *Notifier) send(state string, fds ...int) error {
	if n.socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return notifyFailed(os.NewSyscallError("socket", err))
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(int64(sendWait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return notifyFailed(os.NewSyscallError("setsockopt", err))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: n.socket}, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return notifyFailed(os.NewSyscallError("sendmsg", err))
		}
	}
}

func notifyFailed(err error) error {
	return block.Wrap(err, "notify", "the service manager", -1)
}
