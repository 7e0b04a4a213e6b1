//go:build interop

package lab

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
)

func TestNFSServerServesOthers(t *testing.T) {
	Need(t, "nfs-cp", "nfs-ls")
	s := NFS(t, NFSConfig{})
	other := NFS(t, NFSConfig{}) // two at once, both with NFSv3
	want := bytes.Repeat([]byte("sluice"), 1000)
	local := t.TempDir() + "/in"
	if err := os.WriteFile(local, want, 0o644); err != nil {
		t.Fatal(err)
	}
	Run(t, "nfs-cp", local, s.LibnfsURL("copied"))
	if got, err := os.ReadFile(s.Path("copied")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the export holds %d bytes, %v", len(got), err)
	}
	if out := Run(t, "nfs-ls", other.LibnfsURL("")); strings.Contains(out, "copied") {
		t.Errorf("the other server lists %s", out)
	}
	s.Restart()
	if out := Run(t, "nfs-ls", s.LibnfsURL("")); !strings.Contains(out, "copied") {
		t.Errorf("after a restart it lists %s", out)
	}
	s.Stop()
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Error("somebody listens after Stop")
	}
	s.Start()
}

func TestCutter(t *testing.T) {
	s := NFS(t, NFSConfig{})
	c := Cut(t, s.Addr())
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", c.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := dial()
	for c.Connections() == 0 {
	}
	c.Reset()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a reset connection can be read")
	}
	c.Refuse()
	if conn, err := net.Dial("tcp", c.Addr()); err == nil {
		_ = conn.Close()
		t.Error("it does not refuse")
	}
	c.Accept()
	_ = dial().Close()
}
