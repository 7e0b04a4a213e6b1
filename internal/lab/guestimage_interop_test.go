//go:build interop

package lab

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestCompressedModule: a module may lie in its package as it is or compressed;
// the guest gets it as it is.
func TestCompressedModule(t *testing.T) {
	Need(t, "xz")
	module := bytes.Repeat([]byte("\x7fELF module "), 5000)
	cmd := exec.Command("xz", "--check=crc32", "--stdout") // as the kernel's own build does
	cmd.Stdin = bytes.NewReader(module)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	const folder = "./usr/lib/modules/6.12.0-cloud-amd64/kernel/drivers/virtio/"
	for name, data := range map[string][]byte{"virtio_ring.ko": module, "virtio_ring.ko.xz": packed} {
		parts := newGuestParts()
		for _, path := range []string{name, "virtio_ring.ko.sig", "virtio_gpu.ko"} {
			if err := parts.add(folder+path, data); err != nil {
				t.Fatal(err)
			}
		}
		archive := parts.initrd.bytes()
		if parts.found != 1 || !bytes.Contains(archive, []byte("mod/virtio_ring.ko\x00")) || !bytes.Contains(archive, module) {
			t.Errorf("%s: %d files found, %d bytes", name, parts.found, len(archive))
		}
	}
	err = newGuestParts().add(folder+"virtio.ko.xz", module)
	if err == nil || !strings.Contains(err.Error(), "virtio.ko.xz") {
		t.Errorf("a broken module: %v", err)
	}
}
