package lab

import (
	"os"
	"path/filepath"
)

// Socket returns a path for a unix socket, which does not exist yet. It is
// short whatever the test's name: the kernel takes 107 bytes at most.
func Socket(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sl")
	if err != nil {
		t.Fatalf("folder for a socket: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}
