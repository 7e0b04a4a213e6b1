//go:build interop

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/lab"
)

// TestImagesAsQEMUSeesThem makes and copies images and lets qemu-img look.
func TestImagesAsQEMUSeesThem(t *testing.T) {
	lab.Need(t, "qemu-img")
	dir, bin := t.TempDir(), lab.Sluice(t)
	made := filepath.Join(dir, "made.img")
	lab.Run(t, bin, "create", made, "--size", "3G")
	var info struct {
		Format      string
		VirtualSize int64 `json:"virtual-size"`
		ActualSize  int64 `json:"actual-size"`
	}
	text := lab.Run(t, "qemu-img", "info", "-f", "raw", "--output", "json", made)
	if err := json.Unmarshal([]byte(text), &info); err != nil || info.VirtualSize != 3<<30 || info.ActualSize > 64<<10 {
		t.Errorf("%+v, %v", info, err)
	}
	lab.Run(t, bin, "resize", made, "5G")
	if text := lab.Run(t, "qemu-img", "info", "-f", "raw", made); !strings.Contains(text, "5 GiB") {
		t.Error(text)
	}

	src, content := imageFile(t, dir, "src.img", 32<<20)
	dst := filepath.Join(dir, "dst.img")
	lab.Run(t, bin, "copy", src, dst)
	lab.Run(t, "qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", src, dst) // -s: holes where holes were
	sameContent(t, dst, content)
}

// run is what qemu-img map and ours have in common.
type extentRun struct {
	Start, Length int64
	Zero          bool
}

func TestMapAgreesWithQEMU(t *testing.T) {
	lab.Need(t, "qemu-img")
	path, _ := imageFile(t, t.TempDir(), "src.img", 32<<20)
	var ours, theirs []extentRun
	for program, args := range map[string][]string{
		lab.Sluice(t): {"map", "--json", path},
		"qemu-img":    {"map", "-f", "raw", "--output", "json", path},
	} {
		into := &ours
		if program == "qemu-img" {
			into = &theirs
		}
		if err := json.Unmarshal([]byte(lab.Run(t, program, args...)), into); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(ours, theirs) || len(ours) != 3 {
		t.Errorf("ours %v, QEMU's %v", ours, theirs)
	}
}

// TestCopyToBlockDevice: in place, the rest of the device untouched, too small a
// device refused, a source that ends inside a sector.
func TestCopyToBlockDevice(t *testing.T) {
	dir, bin := t.TempDir(), lab.Sluice(t)
	src, content := imageFile(t, dir, "src.img", 1<<20+512)
	content = content[:1<<20+100]
	if err := os.Truncate(src, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	for _, sector := range []int{512, 4096} {
		behind, old := imageFile(t, dir, "behind.img", 4<<20)
		dev := lab.Loop(t, behind, sector)
		for _, flags := range [][]string{nil, {"--direct"}} {
			lab.Run(t, bin, append([]string{"copy", src, dev}, flags...)...)
			got, err := os.ReadFile(dev)
			if err != nil || string(got) != string(content)+string(old[len(content):]) {
				t.Errorf("sectors of %d, %v: the device does not hold the copy and its own rest (%v)", sector, flags, err)
			}
		}
		lab.Run(t, bin, "copy", dev, filepath.Join(dir, "back.img"), "--force")
		sameContent(t, filepath.Join(dir, "back.img"), []byte(string(content)+string(old[len(content):])))
		big, _ := imageFile(t, dir, "big.img", 8<<20)
		oneLine(t, fails(t, 1, bin, "copy", big, dev), "it has 4194304 bytes, the source 8388608")
		oneLine(t, fails(t, 1, bin, "rm", dev), "is not an image (kind: block-device)")
		oneLine(t, fails(t, 1, bin, "resize", dev, "8M"), "it has a fixed size")
		oneLine(t, fails(t, 1, bin, "create", dev, "--size", "1M"), "create "+dev+": is a block device, which needs no creating\n")
		oneLine(t, fails(t, 1, bin, "copy", dev, dev), "source and destination are the same image")
	}
	// A name of a device elsewhere, as device-mapper and udev make them.
	behind, _ := imageFile(t, dir, "linked.img", 4<<20)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(lab.Loop(t, behind, 512), link); err != nil {
		t.Fatal(err)
	}
	lab.Run(t, bin, "copy", src, link)
	if st, err := os.Lstat(link); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link was replaced: %v, %v", st, err)
	}
}

// TestCopyWithNBDServers copies from and to servers of others, and between ours.
func TestCopyWithNBDServers(t *testing.T) {
	lab.Need(t, "nbdkit", "qemu-nbd", "nbdcopy")
	dir, bin := t.TempDir(), lab.Sluice(t)
	src, content := imageFile(t, dir, "src.img", 16<<20)
	from, to := nbdkit(t, "-r", "file", src), nbdkit(t, "memory", "16M")
	for _, connections := range []string{"1", "4"} {
		out := filepath.Join(dir, "out"+connections)
		lab.Run(t, bin, "copy", from, to, "--connections", connections)
		lab.Run(t, bin, "copy", to, out, "--connections", connections)
		sameContent(t, out, content)
	}
	made := filepath.Join(dir, "made.img")
	lab.Run(t, bin, "create", made, "--size", "17M")
	_, uri, _ := served(t, made)
	lab.Run(t, bin, "copy", from, uri)
	back := filepath.Join(dir, "back.img")
	lab.Run(t, "nbdcopy", uri, back)
	sameContent(t, back, append(content, make([]byte, 1<<20)...))
	text := lab.Run(t, bin, "ls", "--json", uri)
	if !strings.Contains(text, `"kind": "export"`) {
		t.Error(text)
	}
}

// nbdkit starts an nbdkit at a unix socket and gives its URI.
func nbdkit(t *testing.T, args ...string) string {
	t.Helper()
	_, uri := nbdkitProc(t, args...)
	return uri
}

func nbdkitProc(t *testing.T, args ...string) (*lab.Proc, string) {
	t.Helper()
	lab.Need(t, "nbdkit")
	socket := lab.Socket(t)
	p := lab.Start(t, "nbdkit", append([]string{"-f", "-U", socket}, args...)...)
	eventually(t, "nbdkit's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	return p, "nbd+unix:///?socket=" + socket
}

func TestProgressOnATerminal(t *testing.T) {
	lab.Need(t, "script")
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 16<<20)
	dst := filepath.Join(dir, "dst.img")
	out := lab.Run(t, "script", "-qec", lab.Sluice(t)+" copy "+src+" "+dst, "/dev/null")
	if !strings.Contains(out, "100%") || !strings.Contains(out, "16/16 MiB") {
		t.Errorf("no bar: %q", out)
	}
	sameContent(t, dst, content)
	if out := lab.Run(t, lab.Sluice(t), "copy", src, dst, "--force"); out != "" {
		t.Errorf("a bar without a terminal: %q", out)
	}
}

func TestManPagesRender(t *testing.T) {
	lab.Need(t, "man")
	dir := t.TempDir()
	lab.Run(t, lab.Sluice(t), "man", dir)
	for _, name := range inFolder(t, dir) {
		p := lab.Start(t, "man", "--warnings=w", "-l", filepath.Join(dir, name))
		if err := p.Wait(); err != nil || strings.Contains(p.Output(), "warning") {
			t.Errorf("%s: %v\n%s", name, err, p.Output())
		}
	}
}

func TestCompletionInBash(t *testing.T) {
	lab.Need(t, "bash")
	bin := lab.Sluice(t)
	script := `source <(` + bin + ` completion bash)
COMP_WORDS=(` + bin + ` create --prealloc); COMP_CWORD=2; COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
compopt() { :; }
__start_sluice; echo "${COMPREPLY[@]}"`
	if out := lab.Run(t, "bash", "-c", script); !strings.Contains(out, "--preallocation") {
		t.Errorf("completed: %q", out)
	}
}
