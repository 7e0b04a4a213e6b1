package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/backends"
	"sluice/block"
)

// disk makes a sparse image of 4 MiB with 1 MiB of data in it.
func disk(t *testing.T, dir, name string) []byte {
	t.Helper()
	must(t, dir, "create", name, "--size", "4M")
	content := make([]byte, 4<<20)
	copy(content[1<<20:], bytes.Repeat([]byte{7}, 1<<20))
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content[1<<20:2<<20], 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return content
}

func holds(t *testing.T, dir, name string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v", name, len(got), err)
	}
}

func TestGolden(t *testing.T) {
	dir := t.TempDir()
	golden(t, "create.json", must(t, dir, "create", "new.img", "--size", "1.5G", "--json"))
	golden(t, "resize.json", must(t, dir, "resize", "new.img", "+512M", "--json"))
	golden(t, "rm.json", must(t, dir, "rm", "new.img", "--json"))
	disk(t, dir, "disk.img")
	golden(t, "map.json", must(t, dir, "map", "disk.img", "--json"))
	golden(t, "map.txt", must(t, dir, "map", "disk.img"))
	golden(t, "ls.json", must(t, dir, "ls", ".", "--json"))
	golden(t, "copy.json", must(t, dir, "copy", "disk.img", "copy.img", "--json"))
	golden(t, "info.json", must(t, dir, "info", "mem://64M", "--json"))
	golden(t, "info.txt", must(t, dir, "info", "mem://64M"))
	golden(t, "chain.json", must(t, dir, "info", "mem://64M", "--json", "--chain"))
}

// TestWithoutJSONOnlyAnswersArePrinted: commands that do something say nothing.
func TestWithoutJSONOnlyAnswersArePrinted(t *testing.T) {
	dir := t.TempDir()
	for _, line := range []string{
		"create a.img --size 1M", "create f.img --size 1M --preallocation falloc", "create full.img --size 1M --preallocation full",
		"create m.img --size 1M --preallocation metadata", "resize a.img 2M", "resize a.img 1M --shrink", "resize a.img +1M",
		"copy a.img b.img", "copy a.img b.img --force", "copy a.img b.img --in-place", "rm a.img b.img f.img full.img m.img",
	} {
		if out := must(t, dir, strings.Fields(line)...); out != "" {
			t.Errorf("sluice %s: %q", line, out)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestPreallocation(t *testing.T) {
	dir := t.TempDir()
	for mode, most := range map[string]int64{"off": 64 << 10, "metadata": 64 << 10, "falloc": 0, "full": 0} {
		must(t, dir, "create", mode+".img", "--size", "8M", "--preallocation", mode)
		var info struct{ Allocated int64 }
		if err := json.Unmarshal([]byte(must(t, dir, "info", mode+".img", "--json")), &info); err != nil {
			t.Fatal(err)
		}
		if most > 0 && info.Allocated > most || most == 0 && info.Allocated < 8<<20 {
			t.Errorf("%s: %d bytes allocated", mode, info.Allocated)
		}
		holds(t, dir, mode+".img", make([]byte, 8<<20))
	}
}

func TestCopyModes(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	old := bytes.Repeat([]byte{0xEE}, 5<<20)
	for name, c := range map[string]struct {
		args []string
		want []byte
	}{
		"plain":     {nil, content},
		"direct":    {[]string{"--direct"}, content},
		"allocated": {[]string{"--allocated"}, content},
		"serial":    {[]string{"--parallel", "1", "--request-size", "4K", "--sparse", "0"}, content},
		"blind":     {[]string{"--no-extents", "--sparse", "64K"}, content},
		"force":     {[]string{"--force"}, content},
		"in-place":  {[]string{"--in-place"}, append(bytes.Clone(content), old[4<<20:]...)},
	} {
		if len(c.args) == 1 && (name == "force" || name == "in-place") {
			if err := os.WriteFile(filepath.Join(dir, name), old, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		must(t, dir, append([]string{"copy", "disk.img", name}, c.args...)...)
		holds(t, dir, name, c.want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 8 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestOddSizes(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte{1, 2, 3}, 12345)
	if err := os.WriteFile(filepath.Join(dir, "odd"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--direct"}} {
		must(t, dir, append([]string{"copy", "odd", "copy", "--force"}, args...)...)
		holds(t, dir, "copy", content)
	}
}

// TestInUse: an image that is locked is not written, removed, resized or
// replaced, and can be looked at.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	content := disk(t, dir, "disk.img")
	must(t, dir, "create", "other.img", "--size", "4M")
	dev, err := backends.Open(t.Context(), filepath.Join(dir, "disk.img"), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	for _, line := range []string{
		"rm disk.img", "resize disk.img 8M", "copy other.img disk.img --force", "copy other.img disk.img --in-place", "map disk.img",
		"copy disk.img x.img", "serve disk.img --nbd unix:s", "serve disk.img --read-only --nbd unix:s",
	} {
		if o := sluice(t, dir, strings.Fields(line)...); o.code != exitFailure || !strings.Contains(o.stderr, "in use") {
			t.Errorf("sluice %s: exit code %d, %q", line, o.code, o.stderr)
		}
	}
	holds(t, dir, "disk.img", content)
	must(t, dir, "info", "disk.img")
	must(t, dir, "map", "disk.img", "--unlocked")
	must(t, dir, "copy", "disk.img", "copy.img", "--unlocked")
	holds(t, dir, "copy.img", content)
	must(t, dir, "rm", "disk.img", "--force")
}

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	disk(t, dir, "disk.img")
	if o := sluice(t, dir, "copy", "disk.img", "a.img"); o.stderr != "" {
		t.Errorf("a bar without a terminal: %q", o.stderr)
	}
	for flag, want := range map[string]bool{"--progress": true, "--progress=on": true, "--progress=off": false, "--progress=auto": false} {
		o := sluice(t, dir, "copy", flag, "disk.img", "b.img", "--force")
		bar := strings.Contains(o.stderr, "100%") && strings.HasSuffix(o.stderr, "\n")
		if o.code != 0 || bar != want || !want && o.stderr != "" {
			t.Errorf("%s: exit code %d, %q", flag, o.code, o.stderr)
		}
	}
}
