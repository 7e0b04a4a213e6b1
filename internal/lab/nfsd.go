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

//go:embed guest/nfsd.sh
var nfsdScript string

// KernelNFSConfig says which kernel NFS server to start; the zero value does.
type KernelNFSConfig struct {
	Size  int64         // of the file system, 0: 512 MiB, which is about the least that xfs takes
	Lease time.Duration // whole seconds, at least 10, which 0 means
	Grace time.Duration // after a restart, likewise; 0: none
	MaxIO int           // of one READ or WRITE, 0: 1 MiB; 32 KiB is what so small a machine would take by itself
}

// KernelNFSServer is the kernel's own NFS server, v4.0 to v4.2, in a guest that runs
// under QEMU (TCG): on an xfs, so that it has what nfs-ganesha has not, CLONE and
// COPY. It is slow. Its port stays when it is started again.
type KernelNFSServer struct {
	Host string // a loopback address
	Port int

	t      TB
	disk   string
	script string
	proc   *Proc
}

// KernelNFS starts a guest with an empty file system and returns when its server
// answers. It ends with the test.
func KernelNFS(t TB, c KernelNFSConfig) *KernelNFSServer {
	t.Helper()
	Need(t, "mkfs.xfs")
	k := &KernelNFSServer{Host: Loopback(), t: t, disk: filepath.Join(t.TempDir(), "disk"), script: nfsdSettings(c) + nfsdScript}
	k.Port = freePort(t, k.Host)
	if c.Size == 0 {
		c.Size = 512 << 20
	}
	if err := os.WriteFile(k.disk, nil, 0o600); err != nil {
		t.Fatalf("disk of a guest: %v", err)
	}
	if err := os.Truncate(k.disk, c.Size); err != nil {
		t.Fatalf("disk of a guest: %v", err)
	}
	Run(t, "mkfs.xfs", "-q", "-m", "reflink=1", k.disk)
	k.Start()
	return k
}

// nfsdSettings are the variables that the guest's script takes.
func nfsdSettings(c KernelNFSConfig) string {
	var b strings.Builder
	if c.Lease != 0 {
		fmt.Fprintf(&b, "lease=%d\n", int(c.Lease.Seconds()))
	}
	if c.Grace != 0 {
		fmt.Fprintf(&b, "grace=%d keepgrace=1\n", int(c.Grace.Seconds()))
	}
	if c.MaxIO != 0 {
		fmt.Fprintf(&b, "block=%d\n", c.MaxIO)
	}
	return b.String()
}

// Start starts a guest that was killed or stopped, with its disk as that was left.
func (k *KernelNFSServer) Start() {
	k.t.Helper()
	cmd := guestCommand(k.t, GuestConfig{
		Disks: []string{k.disk}, Script: k.script, MiB: 256, nfsd: true,
		Args: []string{
			"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:%s:%d-:2049", k.Host, k.Port),
			"-device", "virtio-net-pci,netdev=net,romfile=",
		},
	})
	k.proc = startWithConsole(k.t, cmd)
	k.proc.Expect("nfsd is up")
	if err := nullCall(k.Addr(), 100003, 4); err != nil {
		k.t.Fatalf("nfsd of a guest at %s: %v", k.Addr(), err)
	}
}

// startWithConsole starts a guest whose console nobody types on, but which stays open:
// at its end a script would go on.
func startWithConsole(t TB, cmd *exec.Cmd) *Proc {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatalf("console of a guest: %v", err)
	}
	t.Cleanup(func() { _ = w.Close() })
	cmd.Stdin = r
	p := StartCmd(t, cmd)
	_ = r.Close()
	return p
}

// Kill is a power cut: what clients have not committed is lost.
func (k *KernelNFSServer) Kill() { k.proc.Kill9() }

// Restart kills the guest and starts it again.
func (k *KernelNFSServer) Restart() {
	k.t.Helper()
	k.Kill()
	k.Start()
}

// Proc returns the guest's QEMU, whose output is the guest's console.
func (k *KernelNFSServer) Proc() *Proc { return k.proc }

// Addr returns host and port of NFS.
func (k *KernelNFSServer) Addr() string { return net.JoinHostPort(k.Host, strconv.Itoa(k.Port)) }

// URL returns an NFS URL of a path below the folder /export, which anybody may write.
func (k *KernelNFSServer) URL(path string, params ...string) string {
	url := "nfs://" + k.Addr() + strings.TrimSuffix("/export/"+path, "/")
	if len(params) == 0 {
		return url
	}
	return url + "?" + strings.Join(params, "&")
}
