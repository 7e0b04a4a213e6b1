//go:build interop && !race

package fusefs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Reads and writes through the kernel, with client and server in one process:
// neither allocates. A collection that happens to run may add a little.
func TestRequestsAllocateNothing(t *testing.T) {
	local, _ := localDevice(t, 1<<20)
	fs := mounted(t)
	for name, f := range map[string]*os.File{
		"local": opened(t, add(t, fs, File{Name: "local", Device: local}), os.O_RDWR),
		"mem":   opened(t, add(t, fs, File{Name: "mem", Device: memDevice(t, "1M")}), os.O_RDWR),
	} {
		fd, p := int(f.Fd()), make([]byte, 64<<10)
		for what, call := range map[string]func() (int, error){
			"small read": func() (int, error) { return unix.Pread(fd, p[:4096], 8192) }, "large read": func() (int, error) { return unix.Pread(fd, p, 0) },
			"small write": func() (int, error) { return unix.Pwrite(fd, p[:4096], 8192) }, "large write": func() (int, error) { return unix.Pwrite(fd, p, 0) },
		} {
			var err error
			n := testing.AllocsPerRun(500, func() { _, err = call() })
			if n >= 0.5 || err != nil {
				t.Errorf("%s: %s: %v allocations, %v", name, what, n, err)
			}
		}
	}
}
