//go:build interop

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/lab"
)

// What programs that others wrote do with a file in FUSE, while NBD clients use
// the same export.

// fused starts sluice serve with a file in FUSE and at a unix socket.
func fused(t *testing.T, image string, flags ...string) (p *lab.Proc, file, uri string) {
	t.Helper()
	args := append([]string{"serve", image, "--fuse", t.TempDir(), "--nbd", "unix:" + lab.Socket(t)}, flags...)
	p = lab.Start(t, lab.Sluice(t), args...)
	for range 2 { // whichever comes first
		place := p.Ready()
		if path, ok := strings.CutPrefix(place, "fuse "); ok {
			file = path
		} else {
			uri = place
		}
	}
	return p, file, uri
}

// qemuIO runs commands of qemu-io on an image and fails the test unless all
// succeed: one that reads something else than it was told to expect only prints
// that.
func qemuIO(t *testing.T, image string, commands ...string) {
	t.Helper()
	lab.Need(t, "qemu-io")
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	text := lab.Run(t, "qemu-io", append(args, image)...)
	if strings.Contains(text, "Pattern verification failed") || strings.Contains(text, "rror") {
		t.Errorf("%s: %q:\n%s", image, commands, text)
	}
}

// TestFioVerifiesFUSEFile: for some seconds, as virtual machines open it.
func TestFioVerifiesFUSEFile(t *testing.T) {
	for _, engine := range []string{"libaio", "psync"} {
		t.Run(engine, func(t *testing.T) {
			image, _ := imageFile(t, t.TempDir(), "disk.img", 64<<20)
			p, file, _ := fused(t, image)
			report := lab.StartFio(t, lab.FioConfig{File: file, Engine: engine, Runtime: 3 * time.Second, Size: 16 << 20}).Finish()
			t.Logf("%+v", report)
			stopped(t, p)
		})
	}
}

// TestFUSEFileAttributes: they say where the file comes from and what it is.
func TestFUSEFileAttributes(t *testing.T) {
	for _, flags := range [][]string{nil, {"--format", "raw"}} {
		image, _ := imageFile(t, t.TempDir(), "disk.img", 16<<20)
		p, file, _ := fused(t, image, flags...)
		for name, want := range map[string]string{"user.sluice.format": "raw", "user.sluice.url": image} {
			value := make([]byte, 4096)
			n, err := unix.Getxattr(file, name, value)
			if err != nil || string(value[:max(n, 0)]) != want {
				t.Errorf("%v: %s is %q (%v), want %q", flags, name, value[:max(n, 0)], err, want)
			}
		}
		stopped(t, p)
	}
}

// TestFUSEAndNBDAreOneDisk: what one side writes, zeroes or gives up the other
// reads at once, and a flush by one makes the other's writes durable.
func TestFUSEAndNBDAreOneDisk(t *testing.T) {
	image, content := imageFile(t, t.TempDir(), "disk.img", 16<<20)
	p, file, uri := fused(t, image)
	qemuIO(t, file, "write -P 0x11 1M 64k", "write -P 0x22 5000 3000", "write -z 8M 1M", "flush")
	qemuIO(t, uri, "read -P 0x11 1M 64k", "read -P 0x22 5000 3000", "read -P 0 8M 1M")
	qemuIO(t, uri, "write -P 0x33 2M 64k", "write -z -u 12M 64k")
	qemuIO(t, file, "read -P 0x33 2M 64k", "read -P 0 12M 64k", "discard 13M 64k", "flush")
	qemuIO(t, uri, "read -P 0 13M 64k")
	for _, w := range []struct{ at, n, b int }{
		{1 << 20, 64 << 10, 0x11}, {5000, 3000, 0x22}, {8 << 20, 1 << 20, 0}, {2 << 20, 64 << 10, 0x33},
		{12 << 20, 64 << 10, 0}, {13 << 20, 64 << 10, 0},
	} {
		copy(content[w.at:], bytes.Repeat([]byte{byte(w.b)}, w.n))
	}
	lab.Run(t, "qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", file, uri)
	stopped(t, p)
	sameContent(t, image, content)
}

// TestFUSEFileIsLocked: QEMU's own locks work on the file, so that two machines
// do not write to it by mistake.
func TestFUSEFileIsLocked(t *testing.T) {
	lab.Need(t, "qemu-io", "qemu-system-x86_64")
	image, _ := imageFile(t, t.TempDir(), "disk.img", 16<<20)
	p, file, _ := fused(t, image)
	// A virtual machine with the file as its disk, which does not run.
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio",
		"-blockdev", "driver=file,node-name=disk0,filename="+file, "-device", "virtio-blk-pci,drive=disk0")
	console, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	machine := lab.StartCmd(t, cmd)
	tell := func(command string) {
		t.Helper()
		if _, err := io.WriteString(console, command+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	tell("info block")
	machine.Expect("disk0: ")
	text := fails(t, 1, "qemu-io", "-f", "raw", "-c", "write 0 4k", file)
	if !strings.Contains(text, `Failed to get "write" lock`) {
		t.Errorf("a second writer: %s", text)
	}
	tell("quit")
	if err := machine.Wait(); err != nil {
		t.Error(err)
	}
	qemuIO(t, file, "write -P 0x44 0 4k", "read -P 0x44 0 4k")
	stopped(t, p)
}

// TestImageInFUSEFile: QEMU keeps an image of its own format in the file, and
// finds it sound.
func TestImageInFUSEFile(t *testing.T) {
	lab.Need(t, "qemu-img", "qemu-io")
	image := filepath.Join(t.TempDir(), "disk.raw")
	// All clusters are there, since the file does not grow.
	lab.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", image, "16M")
	if err := os.Truncate(image, 24<<20); err != nil {
		t.Fatal(err)
	}
	p, file, _ := fused(t, image)
	var commands []string
	for i := range 16 {
		commands = append(commands, "-c", fmt.Sprintf("write -P %d %d 70000", i+1, i<<20))
	}
	lab.Run(t, "qemu-io", append(append([]string{"-f", "qcow2"}, commands...), file)...)
	lab.Run(t, "qemu-img", "check", "-f", "qcow2", file)
	stopped(t, p)
	lab.Run(t, "qemu-img", "check", "-f", "qcow2", image)
	copied := filepath.Join(t.TempDir(), "copy.raw")
	lab.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, copied)
	want := make([]byte, 16<<20)
	for i := range 16 {
		copy(want[i<<20:], bytes.Repeat([]byte{byte(i + 1)}, 70000))
	}
	sameContent(t, copied, want)
}

// TestHolesOfFUSEFile: others see the image's hole through the file.
func TestHolesOfFUSEFile(t *testing.T) {
	image, _ := imageFile(t, t.TempDir(), "disk.img", 16<<20)
	p, file, _ := fused(t, image)
	var extents []struct {
		Start, Length int64
		Zero, Data    bool
	}
	text := lab.Run(t, "qemu-img", "map", "-U", "-f", "raw", "--output=json", file)
	if err := json.Unmarshal([]byte(text), &extents); err != nil {
		t.Fatal(err)
	}
	if len(extents) != 3 || extents[1].Start != 4<<20 || extents[1].Length != 4<<20 || !extents[1].Zero || extents[1].Data {
		t.Errorf("map: %s", text)
	}
	stopped(t, p)
}
