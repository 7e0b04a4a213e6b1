//go:build interop

package interop

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/block"
	"sluice/internal/lab"
	"sluice/nbd"
)

// qemuIO runs commands in one session of qemu-io; a pattern that is not found
// fails the test.
func qemuIO(t *testing.T, args []string, commands ...string) string {
	t.Helper()
	lab.Need(t, "qemu-io", "qemu-img")
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := lab.Run(t, "qemu-io", args...)
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Fatalf("qemu-io %v:\n%s", commands, out)
	}
	return out
}

func TestQemuIO(t *testing.T) {
	for name, dev := range map[string]block.Device{
		"file": openFile(t, emptyImage(t, 64*mib), block.OpenOptions{}), "mem": newMem(t, 64*mib),
	} {
		t.Run(name, func(t *testing.T) {
			socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: dev})
			qemuIO(t, []string{"-f", "raw", uri(socket)},
				"read -P 0 0 64M",
				"write -P 0x11 0 1M", "read -P 0x11 0 1M",
				"write -P 0x22 512k 4k", "read -P 0x11 0 512k", "read -P 0x22 512k 4k",
				"write -f -P 0x33 2M 64k", "read -P 0x33 2M 64k",
				"write -z 0 64k", "read -P 0 0 64k", "read -P 0x11 64k 64k",
				"write -z -u 64k 64k", "read -P 0 64k 64k",
				"write -z -f 128k 512", "read -P 0 128k 512",
				"discard 1M 1M", "flush",
				"aio_write -P 0x44 4M 4M", "aio_write -P 0x55 8M 4M", "aio_flush",
				"aio_read -P 0x44 4M 4M", "aio_read -P 0x55 8M 4M", "aio_flush",
				"writev -P 0x66 16M 4k 8k 16k", "readv -P 0x66 16M 16k 8k 4k",
				"write -P 0x77 20M 32M", "read -P 0x77 20M 32M", "map")
			// Another session, another cache mode, copy-on-read.
			qemuIO(t, []string{"-f", "raw", "-n", uri(socket)}, "read -P 0x77 20M 32M", "write -P 0x12 3M 1M", "flush")
			qemuIO(t, []string{"-f", "raw", "-C", uri(socket)}, "read -P 0x12 3M 1M", "read -P 0x66 16M 28k")
			qemuIO(t, []string{"-r", "-f", "raw", uri(socket)}, "read -P 0x12 3M 1M")
		})
	}
}

func TestQemuIOReadOnly(t *testing.T) {
	lab.Need(t, "qemu-io")
	socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: newMem(t, mib), ReadOnly: true})
	fails(t, "qemu-io", "-f", "raw", "-c", "write 0 4k", uri(socket))
	qemuIO(t, []string{"-r", "-f", "raw", uri(socket)}, "read -P 0 0 1M")
}

// TestQemuIODirtyBitmap reads what a bitmap tells as QEMU's own clients do.
func TestQemuIODirtyBitmap(t *testing.T) {
	socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: &dirtyDevice{Device: newMem(t, mib)}})
	got := lab.Run(t, "qemu-img", "map", "--output=json", "--image-opts",
		qemuOpts(socket, "")+",x-dirty-bitmap=qemu:dirty-bitmap:backup")
	// QEMU shows what is dirty as data=false.
	var runs []qemuExtent
	if err := json.Unmarshal([]byte(got), &runs); err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if len(runs) < 3 || runs[1].Start != 128*kib || runs[1].Length != 64*kib || runs[1].Data == runs[0].Data {
		t.Errorf("map %+v", runs)
	}
}

type qemuExtent struct {
	Start, Length int64
	Zero, Data    bool
}

func qemuMap(t *testing.T, target ...string) []qemuExtent {
	t.Helper()
	var runs []qemuExtent
	text := lab.Run(t, "qemu-img", append([]string{"map", "--output=json"}, target...)...)
	if err := json.Unmarshal([]byte(text), &runs); err != nil {
		t.Fatalf("qemu-img map: %v\n%s", err, text)
	}
	return runs
}

func TestQemuImg(t *testing.T) {
	lab.Need(t, "qemu-img")
	dir := t.TempDir()
	raw, qcow2 := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	odd := newImage(t)
	lab.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri(serveImage(t, odd)), raw)
	// QEMU counts in sectors of 512: it rounds the size up, with zeroes.
	if err := truncate(raw, imageSize); err != nil {
		t.Fatal(err)
	}
	sameContent(t, odd, raw)
	const imageSize = 64*mib + 24*512
	image := newImageOf(t, imageSize)
	socket := serveImage(t, image)
	lab.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "16", uri(socket), qcow2)
	lab.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri(socket), qcow2)
	to := emptyImage(t, imageSize)
	toSocket := serveImage(t, to)
	lab.Run(t, "qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "qcow2", "-O", "raw", qcow2, uri(toSocket))
	sameContent(t, image, to)
	lab.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri(socket), uri(toSocket))
	lab.Run(t, "qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", "raw", uri(socket), uri(serveImage(t, emptyImage(t, imageSize))))
	if info := lab.Run(t, "qemu-img", "info", "-f", "raw", uri(socket)); !strings.Contains(info, "virtual size: 64 MiB") {
		t.Errorf("info: %s", info)
	}
	fails(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri(socket), uri(serveImage(t, emptyImage(t, imageSize))))
}

func TestQemuImgMap(t *testing.T) {
	image := newImage(t)
	got, want := qemuMap(t, "-f", "raw", uri(serveImage(t, image))), qemuMap(t, "-f", "raw", image)
	same := func(a, b qemuExtent) bool { return a.Start == b.Start && a.Zero == b.Zero && a.Data == b.Data }
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("map over NBD %+v, of the file %+v", got, want)
	}
}
