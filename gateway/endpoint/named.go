package endpoint

import (
	"errors"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"sluice/block"
)

// StoredSocket begins the names under which a process stores its own sockets.
const StoredSocket = "listen-"

// Handed is what a service manager handed to this process, by the names that it
// gave (LISTEN_FDNAMES).
type Handed struct {
	API     []net.Listener
	NBD     []net.Listener // also sockets of names that mean nothing to us
	Metrics []net.Listener

	// Stored are listening sockets that an earlier life of this process stored
	// with StoreFD.
	Stored []Stored

	// Files are what is no socket: descriptors that an earlier life of this
	// process stored with StoreFD, by name and in the order in which they were
	// stored. Descriptors may be dead by now: who takes one has to try it.
	Files map[string][]*os.File
}

// Stored is a listening socket and the name that it was stored under, which begins
// with StoredSocket.
type Stored struct {
	net.Listener
	Name string
}

// Close closes everything that is still there. Whoever takes something takes it
// out.
func (h *Handed) Close() error {
	var errs []error
	for _, list := range [][]net.Listener{h.API, h.NBD, h.Metrics} {
		for _, l := range list {
			errs = append(errs, l.Close())
		}
	}
	for _, l := range h.Stored {
		errs = append(errs, l.Close())
	}
	for _, files := range h.Files {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
	}
	*h = Handed{}
	return errors.Join(errs...)
}

// ActivatedNamed gives what a service manager handed to this process, nothing
// when it did not. It can be called once, and not after Activated: all is the
// caller's then. A socket that does not listen is an error of kind Invalid.
func ActivatedNamed() (*Handed, error) {
	h := &Handed{Files: map[string][]*os.File{}}
	files := activation.Files(true)
	for i, f := range files {
		if err := h.take(f); err != nil {
			for _, rest := range files[i:] {
				err = errors.Join(err, rest.Close())
			}
			return nil, errors.Join(err, h.Close())
		}
	}
	return h, nil
}

// take puts one descriptor where it belongs.
func (h *Handed) take(f *os.File) error {
	kind, err := kindOf(f)
	if err != nil {
		return block.Wrap(err, "take the socket in", "LISTEN_FDS", -1)
	}
	if kind == noSocket {
		h.Files[f.Name()] = append(h.Files[f.Name()], f)
		return nil
	}
	if kind != listening {
		return block.Errorf(block.Invalid, "take the socket in", "LISTEN_FDS", -1,
			"descriptor %d (%s) is not a listening socket", f.Fd(), f.Name())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return block.Wrap(err, "take the socket in", "LISTEN_FDS", -1)
	}
	switch name := f.Name(); {
	case name == "api":
		h.API = append(h.API, l)
	case name == "metrics":
		h.Metrics = append(h.Metrics, l)
	case strings.HasPrefix(name, StoredSocket):
		h.Stored = append(h.Stored, Stored{l, name})
	default:
		h.NBD = append(h.NBD, l)
	}
	return f.Close() // l has a copy
}

// handedKind is what a descriptor is.
type handedKind uint8

const (
	noSocket handedKind = iota
	listening
	otherSocket
)

func kindOf(f *os.File) (handedKind, error) {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return noSocket, nil
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || accepts == 0 {
		return otherSocket, nil
	}
	return listening, nil
}
