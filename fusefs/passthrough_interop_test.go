//go:build interop

package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	localfile "sluice/backends/file"
	"sluice/block"
	"sluice/internal/lab"
)

// The image of a passthrough file may lie on a server. When that does not answer,
// nobody waits for it who only asks what a file looks like.
func TestStatOfAPassthroughFileWhoseServerHangs(t *testing.T) {
	lab.Need(t, "qemu-storage-daemon")
	image, far := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "far")
	err := errors.Join(os.WriteFile(image, make([]byte, 1<<20), 0o600), os.WriteFile(far, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	server := lab.Start(t, "qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename="+image,
		"--export", "type=fuse,id=fuse,node-name=disk,writable=on,mountpoint="+far)
	server.Until("the file", func() bool { st, err := os.Stat(far); return err == nil && st.Size() == 1<<20 })
	d, err := localfile.Open(ctx, far, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fs := mounted(t)
	path := add(t, fs, File{Name: "disk", Device: d, Passthrough: true})
	other := add(t, fs, File{Name: "other", Device: memDevice(t, "1M")})
	if !fs.Passthrough("disk") {
		t.Fatal("no passthrough")
	}
	server.Signal(syscall.SIGSTOP)
	goOn := func() { server.Signal(syscall.SIGCONT) }
	// As long as the kernel may take the server's word for what it said before.
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		err := within(t, 10*time.Second, goOn, func() error {
			var st unix.Statx_t
			return errors.Join(unix.Statx(0, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st),
				unix.Statx(0, other, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st))
		})
		if err != nil {
			t.Error(err)
		}
	}
	goOn()
	if err := errors.Join(fs.Remove(ctx, "disk", false), d.Close()); err != nil {
		t.Error(err)
	}
}
