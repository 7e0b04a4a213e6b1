//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// TestKilledServerKeepsWhatItPromised kills the server in the middle of writes
// that carry FUA or are followed by a flush. Whatever the client was told is
// durable is in the image.
func TestKilledServerKeepsWhatItPromised(t *testing.T) {
	lab.Need(t, "nbdsh")
	for _, how := range []string{"fua", "flush"} {
		t.Run(how, func(t *testing.T) {
			image := emptyImage(t, 64*mib)
			server, socket := startServer(t, image)
			cmd := exec.Command("/usr/bin/python3", "testdata/writer.py", socket, how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }()
			promised, killed := make(map[int64]byte), false
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); n++ {
				var off int64
				var fill byte
				if _, err := fmt.Sscan(lines.Text(), &off, &fill); err != nil {
					t.Fatalf("%q: %v", lines.Text(), err)
				}
				promised[off] = fill
				if n == 500 {
					server.Kill9()
					killed = true
				}
			}
			if !killed {
				t.Fatalf("the writer ended by itself after %d blocks", len(promised))
			}
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			p := make([]byte, 8*kib)
			for off, fill := range promised {
				if _, err := f.ReadAt(p, off); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p, bytes.Repeat([]byte{fill}, len(p))) {
					t.Errorf("block at %d is not what was promised", off)
				}
			}
			t.Logf("%d blocks promised", len(promised))
		})
	}
}

// TestKilledServerIsRestarted: a new server over the same image serves what the
// old one had, to a client that connects again.
func TestKilledServerIsRestarted(t *testing.T) {
	lab.Need(t, "qemu-io")
	image := emptyImage(t, 8*mib)
	server, socket := startServer(t, image)
	qemuIO(t, []string{"-f", "raw", uri(socket)}, "write -f -P 0x5a 1M 1M")
	server.Kill9()
	if out := fails(t, "qemu-io", "-f", "raw", "-c", "read 0 4k", uri(socket)); !strings.Contains(out, "onnect") {
		t.Errorf("qemu-io says %s", out)
	}
	_, socket = startServer(t, image)
	qemuIO(t, []string{"-f", "raw", uri(socket)}, "read -P 0x5a 1M 1M", "read -P 0 0 1M")
}
