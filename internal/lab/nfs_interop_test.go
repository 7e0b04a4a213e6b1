//go:build interop

package lab

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestNFSThroughOthersClients: libnfs's programs and QEMU, over v3 as they find it at
// rpcbind, at the ports that the server names, and over v4.
func TestNFSThroughOthersClients(t *testing.T) {
	Need(t, "nfs-ls", "nfs-cp", "qemu-img", "qemu-io")
	s := NFS(t, NFSConfig{V3: true})
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte("what was copied\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	Run(t, "nfs-cp", from, s.LibURL("copy"))
	if got, err := os.ReadFile(filepath.Join(s.Dir, "copy")); err != nil || string(got) != "what was copied\n" {
		t.Errorf("%q, %v", got, err)
	}
	port := "nfsport=" + strconv.Itoa(s.Port)
	for _, url := range []string{
		s.LibURL(""), s.LibURL("/export"),
		s.LibURL("", port, "mountport="+strconv.Itoa(s.MountPort)),
		s.LibURL("", port, "version=4"),
	} {
		if got := Run(t, "nfs-ls", url); !strings.Contains(got, "copy") {
			t.Errorf("nfs-ls %s: %s", url, got)
		}
	}
	disk := s.LibURL("disk.raw")
	Run(t, "qemu-img", "create", "-q", "-f", "raw", disk, "8M")
	Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "flush", "-c", "read -P 7 1M 64k", disk)
	if info, err := os.Stat(filepath.Join(s.Dir, "disk.raw")); err != nil || info.Size() != 8<<20 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestNFSThroughCutters: both ports of v3 behind proxies on one address.
func TestNFSThroughCutters(t *testing.T) {
	Need(t, "nfs-ls")
	s := NFS(t, NFSConfig{V3: true})
	nfs := Cut(t, s.Addr())
	host, port, err := net.SplitHostPort(nfs.Addr())
	if err != nil {
		t.Fatal(err)
	}
	mount := CutAt(t, host, s.MountAddr())
	_, mountPort, err := net.SplitHostPort(mount.Addr())
	if err != nil {
		t.Fatal(err)
	}
	url := s.URLAt(host, "", "nfsport="+port, "mountport="+mountPort)
	Run(t, "nfs-ls", url)
	if nfs.Accepted() == 0 || mount.Accepted() == 0 {
		t.Errorf("%d connections to NFS, %d to MOUNT", nfs.Accepted(), mount.Accepted())
	}
	nfs.Refuse()
	if p := Start(t, "nfs-ls", url); p.Wait() == nil {
		t.Errorf("nfs-ls without a server: %s", p.Output())
	}
}

// TestNFSRestart: killed, stopped and hanging, each time on the same ports with the same
// files and another epoch, and found by clients that ask rpcbind.
func TestNFSRestart(t *testing.T) {
	Need(t, "nfs-ls")
	s := NFS(t, NFSConfig{V3: true})
	if err := os.WriteFile(filepath.Join(s.Dir, "here"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(){
		s.Restart,
		func() { s.Stop(); s.Start() },
		func() { s.Proc().Signal(syscall.SIGSTOP); s.Proc().Signal(syscall.SIGCONT) },
	} {
		addr, epoch, pid := s.Addr(), s.Epoch(), s.Proc().Pid()
		again()
		if (s.Epoch() > epoch) != (s.Proc().Pid() != pid) || s.Addr() != addr {
			t.Errorf("epoch %d after %d at %s", s.Epoch(), epoch, s.Addr())
		}
		if got := Run(t, "nfs-ls", s.LibURL("")); !strings.Contains(got, "here") {
			t.Errorf("nfs-ls: %s", got)
		}
	}
	s.Kill()
	if err := nullCall(s.Addr(), 100003, 4); err == nil {
		t.Error("it answers after it was killed")
	}
}

// TestNFSTogether: two servers with v3 and one without, at once, of which each has its
// own rpcbind and its own files.
func TestNFSTogether(t *testing.T) {
	Need(t, "nfs-ls")
	servers := []*NFSServer{
		NFS(t, NFSConfig{V3: true}),
		NFS(t, NFSConfig{V3: true, Port: 2049, MountPort: 20048}),
		NFS(t, NFSConfig{Minors: []int{1, 2}}),
	}
	for i, s := range servers {
		if err := os.WriteFile(filepath.Join(s.Dir, "of-"+strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range servers[:2] {
		got := Run(t, "nfs-ls", s.LibURL(""))
		if !strings.Contains(got, "of-"+strconv.Itoa(i)) || strings.Count(got, "\n") != 1 {
			t.Errorf("nfs-ls of %d: %s", i, got)
		}
	}
	if servers[1].Port != 2049 || servers[1].MountPort != 20048 || servers[2].MountPort != 0 {
		t.Errorf("ports %d %d %d", servers[1].Port, servers[1].MountPort, servers[2].MountPort)
	}
}

// TestNFSExports: what an export may be told to do.
func TestNFSExports(t *testing.T) {
	Need(t, "nfs-ls", "nfs-cp")
	small := SmallDisk(t, 8<<20)
	s := NFS(t, NFSConfig{V3: true, Exports: []NFSExport{
		{Dir: small}, {Name: "locked", ReadOnly: true}, {Name: "squashed", Squash: "All_Squash", More: "Anonymous_Uid = 36; Anonymous_Gid = 36;"},
	}})
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, make([]byte, 16<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for url, good := range map[string]bool{s.LibURL("x"): false, s.LibURL("/locked/x"): false, s.LibURL("/squashed/x"): true} {
		p := Start(t, "nfs-cp", from, url)
		if err := p.Wait(); (err == nil) != good {
			t.Errorf("nfs-cp %s: %v\n%s", url, err, p.Output())
		}
	}
	info, err := os.Stat(filepath.Join(s.exports[2].Dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 36 {
		t.Errorf("the owner is %d", uid)
	}
}

// TestNFSGrace: after a restart with a grace period the server answers at once.
func TestNFSGrace(t *testing.T) {
	s := NFS(t, NFSConfig{Grace: 5e9, Lease: 5e9})
	s.Restart()
	if !strings.Contains(s.Proc().Output(), "IN GRACE") {
		t.Errorf("no grace period:\n%s", s.Proc().Output())
	}
}

// TestNFSLeavesNothing: when the test is over there is no process, no rpcbind and no folder.
func TestNFSLeavesNothing(t *testing.T) {
	var server, binder string
	var pid int
	var folders []string
	t.Run("servers", func(t *testing.T) {
		s := NFS(t, NFSConfig{V3: true})
		server, binder, pid = s.Addr(), net.JoinHostPort(s.Host, "111"), s.Proc().Pid()
		folders = append(folders, s.Dir, s.args[5])
		if err := nullCall(binder, 100000, 2); err != nil {
			t.Errorf("rpcbind: %v", err)
		}
	})
	for _, addr := range []string{server, binder} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("somebody listens at %s", addr)
		}
	}
	for _, dir := range append(folders, filepath.Join("/proc", strconv.Itoa(pid))) {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is there", dir)
		}
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(mounts), folders[1]) {
		t.Errorf("mounted: %v\n%s", err, mounts)
	}
}

// TestNFSInParallel: servers of tests that run at once.
func TestNFSInParallel(t *testing.T) {
	for range 3 {
		t.Run("one", func(t *testing.T) {
			t.Parallel()
			NFS(t, NFSConfig{V3: true}).Restart()
		})
	}
}
