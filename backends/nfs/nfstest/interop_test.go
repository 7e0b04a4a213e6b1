//go:build interop

package nfstest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/lab"
)

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestLibnfs: the tools of libnfs list, read and write over NFSv3.
func TestLibnfs(t *testing.T) {
	lab.Need(t, "nfs-ls", "nfs-cp")
	s := Start(t, Options{Limits: Limits{ReadSize: 64 << 10, WriteSize: 32 << 10}})
	content := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	s.Create("/export/dir/disk.img", content)
	if out := run(t, "nfs-ls", s.LibnfsURL("/export/dir")); !strings.Contains(out, "disk.img") || !strings.Contains(out, "320000") {
		t.Errorf("nfs-ls: %s", out)
	}
	local := filepath.Join(t.TempDir(), "disk.img")
	run(t, "nfs-cp", s.LibnfsURL("/export/dir/disk.img"), local)
	if got, err := os.ReadFile(local); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes were read, %v", len(got), err)
	}
	run(t, "nfs-cp", local, s.LibnfsURL("/export/dir/copy.img"))
	if got := s.File("/export/dir/copy.img").Bytes(); !bytes.Equal(got, content) {
		t.Errorf("%d bytes were written", len(got))
	}
}

// portMapped says that the test runs in a network of its own.
const portMapped = "NFSTEST_PORT_MAPPED"

// TestQEMU: its NFS driver asks the port mapper, writes, flushes and reads. Port 111 is
// only ours in a network namespace, where the test runs itself again.
func TestQEMU(t *testing.T) {
	lab.Need(t, "qemu-io", "unshare", "ip")
	if os.Getenv(portMapped) == "" {
		cmd := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c",
			`ip link set lo up && exec "$0" -test.run '^TestQEMU$' -test.v`, os.Args[0])
		cmd.Env = append(os.Environ(), portMapped+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestQEMU") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	s := Start(t, Options{Listen: []string{"127.0.0.1:111"}})
	f := s.Create("/export/disk.img", nil).Truncate(1 << 20)
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 17 4096 65536", "-c", "flush", "-c", "write -P 34 8192 4096",
		"-c", "read -P 17 4096 4096", "-c", "read -P 34 8192 4096", "-c", "read -P 0 0 4096", "nfs://127.0.0.1/export/disk.img")
	if now, durable := f.Read(8192, 1); now[0] != 34 || durable[0] == 0 {
		t.Errorf("%d was written, %d is durable", now[0], durable[0])
	}
	if s.Count("v3.COMMIT") == 0 || s.Count("portmap.GETPORT") == 0 {
		t.Errorf("counts %v", s.Counts())
	}
}
