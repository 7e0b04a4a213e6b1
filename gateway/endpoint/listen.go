package endpoint

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// socketMode lets the owner and the group connect.
const socketMode = 0o660

// Listen opens the address. An address that is in use is an error of kind Busy.
func Listen(ctx context.Context, a Address) (net.Listener, error) {
	if a.Network == "unix" {
		return listenUnix(ctx, a, lockWait)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(a.Host, a.Port))
	if err == nil {
		return l, nil
	}
	return nil, failed(a, err)
}

// failed takes the address, which the error names anyway, out of its cause.
func failed(a Address, err error) error {
	kind := block.KindOf(err)
	var errno syscall.Errno
	var name *net.DNSError
	if errors.As(err, &name) {
		return block.Errorf(block.NotFound, "listen on", a.String(), -1, "look up the host %s: %s", name.Name, name.Err)
	}
	if errors.As(err, &errno) {
		err = errno
		if errno == syscall.EADDRINUSE {
			return block.Errorf(block.Busy, "listen on", a.String(), -1, "another process listens there")
		}
	}
	return &block.Error{Kind: kind, Op: "listen on", Object: a.String(), Off: -1, Err: err}
}

// listenUnix makes the socket, in the place of a stale one if there is one. The
// lock is held for the making too: a socket has its name before somebody listens
// on it, and looks stale in between.
func listenUnix(ctx context.Context, a Address, wait time.Duration) (net.Listener, error) {
	unlock, err := lockFolder(ctx, filepath.Dir(a.Path), wait)
	switch {
	case errors.Is(err, syscall.EACCES): // not to be read, but perhaps to be written: nothing is replaced there
		l, err := bind(ctx, a)
		return named(a, l, err)
	case errors.Is(err, syscall.EWOULDBLOCK):
		return listenUnlocked(ctx, a)
	case err != nil:
		return nil, failed(a, err)
	}
	defer unlock()
	l, err := bind(ctx, a)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return named(a, l, err)
	}
	if err := removeStale(ctx, a); err != nil {
		return nil, err
	}
	l, err = bind(ctx, a)
	return named(a, l, err)
}

// listenUnlocked makes the socket where somebody else keeps the folder's lock,
// as anybody can who may read the folder. A new socket needs no lock but against
// servers, and those are quick; replacing one does.
func listenUnlocked(ctx context.Context, a Address) (net.Listener, error) {
	l, err := bind(ctx, a)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return named(a, l, err)
	}
	if err := checkStale(ctx, a); err != nil {
		return nil, err
	}
	return nil, block.Errorf(block.Busy, "listen on", a.String(), -1,
		"a stale socket is there, which cannot be replaced while another process holds a lock on its folder")
}

func named(a Address, l *unixListener, err error) (net.Listener, error) {
	if err != nil {
		return nil, failed(a, err)
	}
	return l, nil
}

// bind makes the socket. It has at most socketMode from the beginning: the mode
// of the unbound socket is what the kernel gives the file, less the umask, and
// what the umask took is given back afterwards.
func bind(ctx context.Context, a Address) (*unixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(ctx, "unix", a.Path)
	if err != nil {
		return nil, err
	}
	ul := &unixListener{UnixListener: l.(*net.UnixListener), path: a.Path}
	ul.SetUnlinkOnClose(false)
	if err = os.Chmod(a.Path, socketMode); err == nil {
		ul.file, err = os.Lstat(a.Path)
	}
	if err != nil {
		_ = os.Remove(a.Path)
		return nil, errors.Join(err, l.Close())
	}
	return ul, nil
}

// removeStale removes a socket that nobody listens on, and nothing else.
func removeStale(ctx context.Context, a Address) error {
	if err := checkStale(ctx, a); err != nil {
		return err
	}
	if err := os.Remove(a.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return failed(a, err)
	}
	return nil
}

// checkStale fails unless a socket is there that nobody listens on, or nothing.
func checkStale(ctx context.Context, a Address) error {
	st, err := os.Lstat(a.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // its server has just removed it
	case err != nil:
		return failed(a, err)
	case st.Mode().Type() != os.ModeSocket:
		return block.Errorf(block.Exists, "listen on", a.String(), -1, "the file is there and is not a socket")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", a.Path)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return block.Errorf(block.Busy, "listen on", a.String(), -1, "another process listens there")
	}
	return nil
}

// lockWait is how long another server may take to replace a socket in the same
// folder.
const lockWait = 3 * time.Second

// lockFolder locks a folder against other servers that replace sockets in it. It
// fails with EWOULDBLOCK when another process has kept the lock for that long.
func lockFolder(ctx context.Context, dir string, wait time.Duration) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// A lock's end is no event that one could wait for with a limit.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			_ = f.Close()
			return nil, os.NewSyscallError("lock "+dir, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}

// unixListener removes its socket when it is closed, unless another file has
// taken the place since.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo
	once sync.Once
}

// Leave stops listening here and leaves the socket, for another process that has
// it too.
func (l *unixListener) Leave() error { return l.UnixListener.Close() }

// Close removes the socket and stops listening.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if st, err := os.Lstat(l.path); err == nil && os.SameFile(st, l.file) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
