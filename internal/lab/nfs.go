package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// NFSConfig says which NFS server to start. The zero value is one for versions 4.0
// to 4.2 that exports a new folder for reading and writing and has no grace period.
type NFSConfig struct {
	V3     bool  // NFSv3 as well, with an rpcbind on the server's address; needs root, for mounts
	Minors []int // minor versions of NFSv4; nil: 0, 1 and 2

	Port, MountPort int // TCP ports; 0: free ones

	Exports []NFSExport // nil: one, with defaults

	Lease time.Duration // how long the state of a silent client lives, whole seconds; 0: 20 s
	Grace time.Duration // in which only state of before a restart is given out, whole seconds, at least 5; 0: none

	// More settings in ganesha's own language, each ended by a semicolon: of its
	// blocks NFS_CORE_PARAM and NFSv4.
	Core, V4 string
}

// NFSExport is a folder that a server exports.
type NFSExport struct {
	Name     string // clients see it as /Name; "": export
	Dir      string // on the local disk; "": a new folder
	ReadOnly bool
	Squash   string // "": No_Root_Squash; others: Root_Squash, All_Squash
	More     string // more settings in ganesha's own language
}

// NFSServer is nfs-ganesha as a process on a loopback address of its own, on which
// it keeps its ports when it is started again. Its methods are for the test's
// goroutine.
type NFSServer struct {
	Host            string // a loopback address, not 127.0.0.1
	Port, MountPort int    // MountPort is 0 without v3
	Dir             string // the first export's folder on the local disk

	t       TB
	exports []NFSExport
	args    []string // of the command, without the epoch
	epoch   int64
	proc    *Proc
}

// NFS starts a server and returns when it answers. It ends with the test, and so
// does all that it has written outside a given folder.
func NFS(t TB, c NFSConfig) *NFSServer {
	t.Helper()
	Need(t, "ganesha.nfsd")
	s := &NFSServer{Host: Loopback(), t: t, exports: exportsOf(t, c)}
	s.Dir = s.exports[0].Dir
	if s.Port = c.Port; s.Port == 0 {
		s.Port = freePort(t, s.Host)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "ganesha.conf")
	s.args = []string{"ganesha.nfsd", "-F", "-f", config, "-L", "STDERR", "-p", filepath.Join(dir, "pid"), "-N", "NIV_EVENT"}
	if c.V3 {
		for s.MountPort = c.MountPort; s.MountPort == 0 || s.MountPort == s.Port; {
			s.MountPort = freePort(t, s.Host)
		}
		s.args = append([]string{"unshare", "--mount", "sh", "-c", withRun, rpcbind(t, s.Host)}, s.args...)
	}
	if err := os.WriteFile(config, []byte(s.config(c, dir)), 0o600); err != nil {
		t.Fatalf("configuration of ganesha: %v", err)
	}
	s.Start()
	return s
}

// exportsOf returns the exports with all defaults filled in. Folders are open to
// every user, whom the server knows by number only.
func exportsOf(t TB, c NFSConfig) []NFSExport {
	t.Helper()
	out := append([]NFSExport(nil), c.Exports...)
	if len(out) == 0 {
		out = []NFSExport{{}}
	}
	for i := range out {
		e := &out[i]
		if e.Name == "" {
			e.Name = "export"
		}
		if e.Squash == "" {
			e.Squash = "No_Root_Squash"
		}
		if e.Dir == "" {
			e.Dir = t.TempDir()
		}
		if err := os.Chmod(e.Dir, 0o777); err != nil {
			t.Fatalf("folder to export: %v", err)
		}
	}
	return out
}

// config returns ganesha's configuration. Names of exports are the same for v3,
// which would otherwise have to mount the local folder's path. NLM would need a
// statd, UDP an rpcbind.
func (s *NFSServer) config(c NFSConfig, dir string) string {
	protocols, mountPort := "4", ""
	if c.V3 {
		protocols, mountPort = "3, 4", fmt.Sprintf("MNT_Port = %d;", s.MountPort)
	}
	minors := "0, 1, 2"
	if c.Minors != nil {
		minors = strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Minors), " ", ", "), "[]")
	}
	grace := "Graceless = true;"
	if c.Grace != 0 {
		grace = fmt.Sprintf("Grace_Period = %d;", int(c.Grace.Seconds()))
	}
	lease := 20
	if c.Lease != 0 {
		lease = int(c.Lease.Seconds())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "NFS_CORE_PARAM { Bind_addr = %s; NFS_Port = %d; %s NFS_Protocols = %s; mount_path_pseudo = true;\n"+
		"  Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; %s }\n", s.Host, s.Port, mountPort, protocols, c.Core)
	fmt.Fprintf(&b, "NFSv4 { Minor_Versions = %s; Lease_Lifetime = %d; %s Only_Numeric_Owners = true;\n"+
		"  RecoveryBackend = fs; RecoveryRoot = %q; %s }\n", minors, lease, grace, dir, c.V4)
	for i, e := range s.exports {
		access := "RW"
		if e.ReadOnly {
			access = "RO"
		}
		fmt.Fprintf(&b, "EXPORT { Export_Id = %d; Path = %q; Pseudo = \"/%s\"; Access_Type = %s; Squash = %s;\n"+
			"  Protocols = %s; Transports = TCP; SecType = sys; PrivilegedPort = false; %s FSAL { Name = VFS; } }\n",
			i+1, e.Dir, e.Name, access, e.Squash, protocols, e.More)
	}
	b.WriteString("LOG { Default_Log_Level = EVENT; }\n")
	return b.String()
}

// nfsEpoch is the epoch of the last server that was started.
var nfsEpoch atomic.Int64

// nextEpoch returns a new epoch. Ganesha makes write verifiers and client ids of it,
// and by itself takes the time in seconds, so that a server which is started twice
// within a second would not look like one that has lost what was not committed.
func nextEpoch() int64 {
	for {
		last := nfsEpoch.Load()
		if next := max(last+1, time.Now().Unix()); nfsEpoch.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Start starts a server that was stopped or killed, on the same ports, with what it
// has kept of its clients' state, and returns when it answers.
func (s *NFSServer) Start() {
	s.t.Helper()
	s.epoch = nextEpoch()
	args := append(s.args[1:len(s.args):len(s.args)], "-E", strconv.FormatInt(s.epoch, 10))
	s.proc = StartCmd(s.t, exec.Command(s.args[0], args...))
	s.t.Cleanup(s.proc.Kill9) // to end in order takes it a second
	s.proc.Expect("NFS SERVER INITIALIZED")
	s.null(s.Port, 100003, 4) // NFS
	if s.MountPort != 0 {
		s.null(s.Port, 100003, 3)
		s.null(s.MountPort, 100005, 3) // MOUNT
	}
}

// Stop ends the server in order.
func (s *NFSServer) Stop() {
	s.t.Helper()
	if err := s.proc.Stop(); err != nil {
		s.t.Fatalf("ganesha.nfsd: %v", err)
	}
}

// Kill ends the server with SIGKILL: what clients have not committed counts as lost,
// although it is still in the machine's page cache.
func (s *NFSServer) Kill() { s.proc.Kill9() }

// Restart kills the server and starts it again.
func (s *NFSServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Proc returns the running process, whose output is ganesha's log. SIGSTOP and
// SIGCONT make it a server that hangs for a while.
func (s *NFSServer) Proc() *Proc { return s.proc }

// Epoch returns the first four bytes of the client ids that the server gives out
// since it was last started; in its write verifiers it changes likewise.
func (s *NFSServer) Epoch() int64 { return s.epoch }

// Addr returns host and port of NFS.
func (s *NFSServer) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// MountAddr returns host and port of v3's MOUNT.
func (s *NFSServer) MountAddr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.MountPort)) }

// Path returns a name of the first export on the local disk.
func (s *NFSServer) Path(name string) string { return filepath.Join(s.Dir, name) }

// URL returns an NFS URL with the server's address and port. The path is one below
// the first export, or with a slash in front one that begins with an export's name. A
// parameter is written as name=value.
func (s *NFSServer) URL(path string, params ...string) string {
	return s.URLAt(s.Addr(), path, params...)
}

// LibURL is URL for libnfs and QEMU, which take no port there: they ask rpcbind (v3)
// or are told by a parameter (nfs-ls, nfs-cp: nfsport).
func (s *NFSServer) LibURL(path string, params ...string) string {
	return s.URLAt(s.Host, path, params...)
}

// URLAt is URL with another address, for instance that of a Cutter.
func (s *NFSServer) URLAt(addr, path string, params ...string) string {
	if !strings.HasPrefix(path, "/") {
		path = strings.TrimSuffix("/"+s.exports[0].Name+"/"+path, "/")
	}
	if len(params) == 0 {
		return "nfs://" + addr + path
	}
	return "nfs://" + addr + path + "?" + strings.Join(params, "&")
}

// null makes the call that does nothing: the server answers when it serves the
// program in that version.
func (s *NFSServer) null(port int, program, version uint32) {
	s.t.Helper()
	addr := net.JoinHostPort(s.Host, strconv.Itoa(port))
	if err := nullCall(addr, program, version); err != nil {
		s.t.Fatalf("ganesha.nfsd: program %d version %d at %s: %v", program, version, addr, err)
	}
}

// nullCall makes one call over a connection of its own (RFC 5531, sections 9 and
// 11): a record of ten words, answered by one of six.
func nullCall(addr string, program, version uint32) (err error) {
	const (
		last = 1 << 31 // fragment of a record
		xid  = 1
	)
	conn, err := net.DialTimeout("tcp", addr, lineTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(lineTimeout)); err != nil {
		return err
	}
	// Call, RPC 2, program, version, procedure 0, no credentials, no verifier.
	call := []uint32{last | 40, xid, 0, 2, program, version, 0, 0, 0, 0, 0}
	if err := binary.Write(conn, binary.BigEndian, call); err != nil {
		return err
	}
	got := make([]byte, 28)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	want := new(bytes.Buffer) // reply, accepted, no verifier, success
	_ = binary.Write(want, binary.BigEndian, []uint32{last | 24, xid, 1, 0, 0, 0, 0})
	if !bytes.Equal(got, want.Bytes()) {
		return fmt.Errorf("answer % x", got)
	}
	return nil
}
