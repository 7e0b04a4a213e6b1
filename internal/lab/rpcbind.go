package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Loopback returns an address in 127.0.0.0/8 that is nobody else's: a server there
// can be ended and started again on the same port without another program taking
// the port meanwhile, and many of them can use one port.
func Loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
}

// freePort returns a TCP port of the address on which nobody listens.
func freePort(t TB, host string) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatalf("a free port of %s: %v", host, err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// withRun runs a program with a folder of its own in the place of /run.
const withRun = `mount --bind "$0" /run && exec "$@"`

// rpcbindScript runs rpcbind with such a /run, for the two transports whose sockets
// it inherits. LISTEN_PID has to be its own. The outer shell stays, as the first
// process of its pid namespace: rpcbind becomes another user, so the kernel would not
// kill it should the test binary die, but it kills the shell, and the rest with it.
const rpcbindScript = `mount --bind "$0" /run && mount --bind "$0/netconfig" /etc/netconfig || exit
sh -c 'LISTEN_FDS=2 LISTEN_PID=$$ exec rpcbind -f'
exit $?`

// transports is what rpcbind serves instead of all that the machine has.
const transports = "tcp tpi_cots_ord v inet tcp - -\nlocal tpi_cots_ord - loopback - - -\n"

// rpcbind starts an rpcbind on port 111 of a loopback address and returns a folder:
// programs that have it as /run register there, and not at the machine's rpcbind.
// The sockets are handed to it as systemd would do: by itself it listens on all
// addresses, and the version of Debian 12 dies when it is given one.
func rpcbind(t TB, host string) (run string) {
	t.Helper()
	Need(t, "rpcbind", "unshare", "mount")
	run = filepath.Dir(Socket(t))
	// rpcbind's own name for the socket, as seen in its /run.
	local, err := net.Listen("unix", filepath.Join(run, "rpcbind.sock"))
	if err != nil {
		t.Fatalf("socket of rpcbind: %v", err)
	}
	local.(*net.UnixListener).SetUnlinkOnClose(false)
	defer func() { _ = local.Close() }()
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(rpcbindPort)))
	if err != nil {
		t.Fatalf("port of rpcbind: %v (it needs root)", err)
	}
	defer func() { _ = tcp.Close() }()
	if err := os.WriteFile(filepath.Join(run, "netconfig"), []byte(transports), 0o644); err != nil {
		t.Fatalf("transports of rpcbind: %v", err)
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", rpcbindScript, run)
	for _, l := range []interface{ File() (*os.File, error) }{local.(*net.UnixListener), tcp.(*net.TCPListener)} {
		f, err := l.File()
		if err != nil {
			t.Fatalf("socket for rpcbind: %v", err)
		}
		defer func() { _ = f.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	t.Cleanup(StartCmd(t, cmd).Kill9) // unshare does not listen to SIGTERM
	return run
}

const rpcbindPort = 111
