package lab

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// GuestCheck is the script of a guest that writes, reads back and discards its
// first disk, /dev/vda (of 64 MiB at least), and prints how fast that went in
// lines that begin with "guest:".
//
//go:embed guest/check.sh
var GuestCheck string

// GuestConfig shapes a guest.
type GuestConfig struct {
	// Disks are /dev/vda, /dev/vdb and so on: NBD URIs, absolute paths of raw
	// files, which are opened past the page cache (O_DIRECT) and locked as QEMU
	// always does, or objects in JSON as QEMU's -blockdev takes them.
	Disks []string

	// Script runs under busybox's sh with -e; "" means GuestCheck. Its exit
	// code decides whether the guest is content.
	Script string

	// Reconnect is for how many seconds QEMU holds requests while the NBD
	// server is away; 0 fails them at once.
	Reconnect int

	// CPUs and MiB size the machine; 0 means 1 and 192.
	CPUs, MiB int

	// Args are more arguments for QEMU.
	Args []string

	// Timeout bounds the run; 0 means two minutes.
	Timeout time.Duration

	nfsd bool // with the modules of the kernel's NFS server
}

// Guest boots a small Linux under QEMU (TCG, no KVM), runs the script in it and
// returns what came on its console. The test fails unless the script ended with
// 0.
func Guest(t TB, cfg GuestConfig) string {
	t.Helper()
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	p := StartGuest(t, cfg)
	if err := p.WaitFor(timeout); err != nil {
		t.Fatalf("QEMU: %v", err)
	}
	CheckGuest(t, p)
	return p.Output()
}

// CheckGuest fails the test unless the guest, which has ended, was content.
func CheckGuest(t TB, p *Proc) {
	t.Helper()
	<-p.Done()
	if text := p.Output(); !strings.Contains(text, "GUEST-OK") || strings.Contains(text, "GUEST-FAIL") {
		t.Fatalf("the guest is not content:\n%s", text)
	}
}

// StartGuest is Guest for tests that do something while the guest runs. The
// console is the process' output; the guest powers itself off in the end.
func StartGuest(t TB, cfg GuestConfig) *Proc {
	t.Helper()
	return StartCmd(t, guestCommand(t, cfg))
}

// guestCommand returns the command that runs a guest, and makes what it needs.
func guestCommand(t TB, cfg GuestConfig) *exec.Cmd {
	t.Helper()
	Need(t, "qemu-system-x86_64")
	image, err := guestImage()
	if err != nil {
		t.Fatalf("guest: %v", err)
	}
	initrd, err := guestInitrd(image, t.TempDir(), cfg)
	if err != nil {
		t.Fatalf("guest: %v", err)
	}
	args := []string{
		"-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none",
		"-smp", strconv.Itoa(max(cfg.CPUs, 1)), "-m", strconv.Itoa(withDefault(cfg.MiB, 192)),
		"-kernel", filepath.Join(image, "vmlinuz"), "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1",
	}
	for i, disk := range cfg.Disks {
		dev, err := blockdev(disk, cfg.Reconnect)
		if err != nil {
			t.Fatalf("guest: disk %q: %v", disk, err)
		}
		node := fmt.Sprintf("disk%d", i)
		dev["node-name"] = node
		text, err := json.Marshal(dev)
		if err != nil {
			t.Fatalf("guest: disk %q: %v", disk, err)
		}
		args = append(args, "-blockdev", string(text), "-device", "virtio-blk-pci,drive="+node)
	}
	return exec.Command("qemu-system-x86_64", append(args, cfg.Args...)...)
}

func withDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// guestInitrd writes the guest's first file system: what all guests have, and
// the script of this one in an archive behind it.
func guestInitrd(image, dir string, cfg GuestConfig) (string, error) {
	script := cfg.Script
	if script == "" {
		script = GuestCheck
	}
	text, err := os.ReadFile(filepath.Join(image, "initrd"))
	if err != nil {
		return "", err
	}
	if cfg.nfsd {
		modules, err := os.ReadFile(filepath.Join(image, "nfsd"))
		if err != nil {
			return "", err
		}
		text = append(text, modules...)
	}
	var own cpioArchive
	own.add("lab", cpioDir, nil)
	own.add("lab/script", cpioFile, []byte(script))
	path := filepath.Join(dir, "initrd")
	return path, os.WriteFile(path, append(text, own.bytes()...), 0o644)
}

// blockdev turns a disk of GuestConfig into QEMU's description of it.
func blockdev(disk string, reconnect int) (map[string]any, error) {
	if strings.HasPrefix(disk, "{") {
		var dev map[string]any
		err := json.Unmarshal([]byte(disk), &dev)
		return dev, err
	}
	if filepath.IsAbs(disk) {
		file := map[string]any{"driver": "file", "filename": disk, "discard": "unmap", "cache": map[string]any{"direct": true}}
		return map[string]any{"driver": "raw", "discard": "unmap", "cache": map[string]any{"direct": true}, "file": file}, nil
	}
	u, err := url.Parse(disk)
	if err != nil {
		return nil, err
	}
	server := map[string]any{"type": "unix", "path": u.Query().Get("socket")}
	switch u.Scheme {
	case "nbd+unix":
	case "nbd":
		host, port, err := net.SplitHostPort(u.Host)
		if err != nil {
			host, port = u.Host, "10809"
		}
		server = map[string]any{"type": "inet", "host": host, "port": port}
	default:
		return nil, fmt.Errorf("neither nbd nor nbd+unix nor an absolute path nor JSON")
	}
	return map[string]any{
		"driver": "raw", "discard": "unmap",
		"file": map[string]any{
			"driver": "nbd", "export": strings.TrimPrefix(u.Path, "/"), "server": server,
			"discard": "unmap", "reconnect-delay": reconnect,
		},
	}, nil
}
