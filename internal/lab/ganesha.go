package lab

import (
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed ganesha/noportmap.c
var noPortmap string

// NFSConfig shapes an NFS server. The zero value is nfs-ganesha with one export,
// /export, of a temporary folder, over NFSv3 and NFSv4.0 to 4.2, without a grace period.
type NFSConfig struct {
	// Dir is the folder that is exported; "" means a new one.
	Dir string
	// Grace is how long after a start clients may reclaim what they had and nothing
	// else, in seconds; 0 means that there is no such time.
	Grace int
	// Lease is the lease in seconds, 4 at least; 0 means 20.
	Lease int
	// Portmap registers the server with the machine's port mapper, which has to be
	// there, instead of pretending to.
	Portmap bool
	// Options are more lines of the export's block.
	Options string
}

// NFSServer is a running nfs-ganesha on loopback.
type NFSServer struct {
	// Dir is the exported folder on the local disk.
	Dir string
	// Port is where NFS is spoken, MountPort where the MOUNT protocol of NFSv3 is.
	Port, MountPort int

	t      TB
	cfg    NFSConfig
	folder string
	shim   string
	epoch  int64
	proc   *Proc
}

// NFS starts an NFS server that ends with the test.
func NFS(t TB, cfg NFSConfig) *NFSServer {
	t.Helper()
	Need(t, "ganesha.nfsd", "gcc")
	if cfg.Lease == 0 {
		cfg.Lease = 20
	}
	s := &NFSServer{t: t, cfg: cfg, Dir: cfg.Dir, folder: t.TempDir(), Port: freePort(t), MountPort: freePort(t)}
	if s.Dir == "" {
		s.Dir = filepath.Join(s.folder, "export")
	}
	for _, dir := range []string{s.Dir, filepath.Join(s.folder, "recovery")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatalf("folder for the NFS server: %v", err)
		}
	}
	if !cfg.Portmap {
		s.shim = compileShim(t, s.folder)
	}
	s.write("ganesha.conf", s.config())
	s.Start()
	return s
}

// freePort is a TCP port that nobody listened on just now.
func freePort(t TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func compileShim(t TB, folder string) string {
	t.Helper()
	shim := filepath.Join(folder, "noportmap.so")
	cmd := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-o", shim, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(noPortmap)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, text)
	}
	return shim
}

func (s *NFSServer) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600); err != nil {
		s.t.Fatalf("NFS server: %v", err)
	}
}

func (s *NFSServer) config() string {
	grace := "Graceless = true;"
	if s.cfg.Grace > 0 {
		grace = fmt.Sprintf("Graceless = false; Grace_Period = %d;", s.cfg.Grace)
	}
	return fmt.Sprintf(`
NFS_CORE_PARAM { Bind_addr = 127.0.0.1; NFS_Port = %d; MNT_Port = %d; NFS_Protocols = 3,4; Enable_UDP = false;
	Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = true; }
NFSv4 { %s Lease_Lifetime = %d; Minor_Versions = 0,1,2; RecoveryBackend = fs; RecoveryRoot = %q; Only_Numeric_Owners = true; }
EXPORT_DEFAULTS { SecType = sys; Squash = No_Root_Squash; Access_Type = RW; Protocols = 3,4; Transports = TCP; PrivilegedPort = false; }
EXPORT { Export_Id = 1; Path = %q; Pseudo = /export; FSAL { Name = VFS; } %s }
LOG { Default_Log_Level = EVENT; }
`, s.Port, s.MountPort, grace, s.cfg.Lease, filepath.Join(s.folder, "recovery"), s.Dir, s.cfg.Options)
}

// Start starts the server, on the same ports each time. Each start has an epoch of its
// own: two in one second would else have the same write verifier.
func (s *NFSServer) Start() {
	s.t.Helper()
	s.epoch = max(time.Now().Unix(), s.epoch+1)
	log := filepath.Join(s.folder, "ganesha.log")
	cmd := exec.Command("ganesha.nfsd", "-F", "-f", filepath.Join(s.folder, "ganesha.conf"), "-L", log,
		"-p", filepath.Join(s.folder, "ganesha.pid"), "-N", "NIV_EVENT", "-E", strconv.FormatInt(s.epoch, 10))
	cmd.Env = os.Environ()
	if s.shim != "" {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+s.shim)
	}
	before := logSize(log)
	s.proc = StartCmd(s.t, cmd)
	s.proc.Until("its NFS server is ready", func() bool { return strings.Contains(logFrom(log, before), "NFS SERVER INITIALIZED") })
}

func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func logFrom(path string, from int64) string {
	p, err := os.ReadFile(path)
	if err != nil || int64(len(p)) < from {
		return ""
	}
	return string(p[from:])
}

// Kill ends the server with SIGKILL.
func (s *NFSServer) Kill() { s.proc.Kill9() }

// Stop ends the server in order.
func (s *NFSServer) Stop() {
	s.t.Helper()
	if err := s.proc.Stop(); err != nil {
		s.t.Logf("nfs-ganesha: %v", err)
	}
}

// Restart is Kill and Start.
func (s *NFSServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Freeze stops the server's process where it is, so that it is silent but connected,
// until Thaw.
func (s *NFSServer) Freeze() {
	s.t.Helper()
	s.proc.Signal(sigStop)
}

// Thaw lets it go on.
func (s *NFSServer) Thaw() {
	s.t.Helper()
	s.proc.Signal(sigCont)
}

// Pid is the server's process.
func (s *NFSServer) Pid() int { return s.proc.Pid() }

// Addr is the server's address.
func (s *NFSServer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is that of a name in the export; params, if any, are added to it.
func (s *NFSServer) URL(name string, params ...string) string {
	return s.URLAt(s.Addr(), name, params...)
}

// URLAt is URL for a proxy's address in front of the server.
func (s *NFSServer) URLAt(addr, name string, params ...string) string {
	url := "nfs://" + addr + "/export"
	if name != "" {
		url += "/" + name
	}
	for i, p := range append(params, "mountport="+strconv.Itoa(s.MountPort)) {
		if i == 0 {
			url += "?" + p
		} else {
			url += "&" + p
		}
	}
	return url
}

// LibnfsURL is that of a name as libnfs wants it, for NFSv3.
func (s *NFSServer) LibnfsURL(name string) string {
	return fmt.Sprintf("nfs://127.0.0.1/export/%s?nfsport=%d&mountport=%d", name, s.Port, s.MountPort)
}

// Path is a name in the export on the local disk.
func (s *NFSServer) Path(name string) string { return filepath.Join(s.Dir, name) }
