//go:build interop

package lab

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestKernelNFS: the guest's server answers, has the versions that it is there for, and comes
// back after a power cut on the same port with the same disk.
func TestKernelNFS(t *testing.T) {
	k := KernelNFS(t, KernelNFSConfig{Lease: 15e9, MaxIO: 64 << 10})
	t.Log(k.Proc().Output())
	if text := k.Proc().Output(); !strings.Contains(text, "+4.2") {
		t.Errorf("versions:\n%s", text)
	}
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte("what was copied\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(path string) string {
		return "nfs://" + k.Host + "/export/" + path + "?version=4&nfsport=" + strconv.Itoa(k.Port)
	}
	Run(t, "nfs-cp", from, at("copy"))
	addr := k.Addr()
	k.Restart()
	if k.Addr() != addr {
		t.Errorf("at %s, was at %s", k.Addr(), addr)
	}
	if text := Run(t, "nfs-ls", at("")); !strings.Contains(text, "copy") {
		t.Errorf("nfs-ls: %s", text)
	}
	if err := nullCall(k.Addr(), 100003, 3); err == nil {
		t.Error("v3 is there")
	}
}
