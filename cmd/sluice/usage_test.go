package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/block"
)

// TestWrongUsage: exit code 2, one line on stderr that points to the help,
// nothing on stdout, nothing done.
func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "create", "a.img", "--size", "1M")
	for _, line := range []string{
		"", "serv", "--nonsense", "create", "create x.img", "create x.img --size", "create x.img --size 1X", "create x.img --size -1",
		"create x.img y.img --size 1M", "create x.img --size 1M --preallocation some", "create x.img --size 1M --nonsense",
		"info", "info a.img b.img", "map", "check", "resize a.img", "resize a.img 1X", "resize a.img 1M 2M", "ls", "ls . .", "rm",
		"copy a.img", "copy a.img x.img y.img", "copy a.img x.img --progress=maybe", "copy a.img x.img --progress off",
		"create x.img --size 1M --format nonsense", "create x.img --size 1M --backing-format nonsense", "info a.img --format nonsense",
		"info x.img --format nonsense", "map a.img --format nonsense", "check a.img --format nonsense", "resize a.img 2M --format nonsense",
		"copy a.img x.img --format nonsense", "copy x.img y.img --format nonsense", "copy a.img x.img --src-format Raw",
		"serve a.img --format nonsense", "copy a.img x.img --request-size 5000",
		"copy a.img x.img --request-size 64M", "copy a.img x.img --parallel -1", "copy a.img x.img --connections 0",
		"copy a.img x.img --sparse 100", "copy a.img x.img --sparse x", "copy a.img x.img --force --in-place",
		"serve", "serve a.img b.img", "serve a.img --nbd nowhere", "serve a.img --nbd tcp:1", "serve a.img --tls maybe",
		"serve a.img --tls required", "serve a.img --tls-cert x", "serve a.img --tls off --tls-cert x --tls-key y",
		"serve a.img --tls-cert x --tls-key y --tls-allow z", "serve a.img --pprof", "serve a.img --max-connections -1",
		"serve a.img --shutdown-timeout -1s", "serve a.img --metrics 9808", "serve a.img --metrics :9808", "serve a.img --metrics 127.0.0.1:999999",
		"serve a.img --metrics 127.0.0.1:", "serve x.img --nbd nowhere", "serve a.img --name " + strings.Repeat("n", 4097),
		"serve a.img --fuse=", "serve a.img --fuse-passthrough", "serve a.img --fuse m --name a/b", "serve a.img --fuse m --fuse-passthrough --read-iops 5",
		"serve a.img --read-iops -1", "serve a.img --on-error maybe", "serve a.img --fault read", "serve a.img --write-bytes 1X",
		"daemon x", "daemon --state=", "daemon --nbd nowhere", "daemon --api tcp:127.0.0.1:1", "daemon --metrics 9808",
		"serve a.img --nbd unix:" + strings.Repeat("s", 200), "completion", "completion csh", "man", "info a.img --log-level loud", "info gopher://x/y",
	} {
		o := sluice(t, dir, strings.Fields(line)...)
		if o.code != exitUsage || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 ||
			!strings.HasPrefix(o.stderr, "sluice: ") || !strings.Contains(o.stderr, "--help)") {
			t.Errorf("sluice %s: exit code %d, stdout %q, stderr %q", line, o.code, o.stdout, o.stderr)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestWrongValues: the flag is named, what it was given, and what it takes; nothing of
// the parsers, nor of the configuration's names.
func TestWrongValues(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "create", "a.img", "--size", "1M")
	for line, want := range map[string]string{
		"serve a.img --burst x":                                   `--burst: "x" is not a time such as 500ms, 30s or 5m`,
		"serve a.img --read-iops 1.5":                             `--read-iops: "1.5" is not a whole number`,
		"serve a.img --direct=maybe":                              `--direct: "maybe" is not true or false`,
		"serve a.img --read-bytes 1X":                             `--read-bytes: "1X" is not a size: unknown suffix "X"`,
		"serve a.img --burst -1s":                                 "--burst is negative",
		"serve a.img --on-error maybe":                            `--on-error "maybe" is none of hold, error and read-only`,
		"serve a.img --fault x":                                   `--fault has a bad rule "x": it has no colon: OP:WHAT, such as write:error=io`,
		"serve a.img --fuse m --fuse-passthrough --write-bytes 1": "--fuse-passthrough lets the kernel read and write by itself: it cannot be throttled",
		"export events --after -1":                                `--after: "-1" is not a whole number, 0 or more`,
		"export set a --slow-request -1s":                         "--slow-request is negative",
		"export add a a.img --max-connections -1":                 "--max-connections is negative",
		"daemon --api here":                                       `--api: "here": neither unix:PATH nor tcp:HOST:PORT`,
		"daemon --state here":                                     `--state: "here": the path has to be absolute`,
	} {
		o := sluice(t, dir, strings.Fields(line)...)
		if o.code != exitUsage || o.stdout != "" || !strings.HasPrefix(o.stderr, "sluice: "+want+" (see sluice ") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("sluice %s: exit code %d, %q, want %s", line, o.code, o.stderr, want)
		}
	}
}

// TestFailures: exit code 1 and one line that names the object and the cause.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "create", "a.img", "--size", "1M")
	must(t, dir, "create", "b.img", "--size", "2M")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"create a.img --size 1M":                      "create a.img: file already exists; remove it first (sluice rm)",
		"create no/x.img --size 1M":                   "open no/: no such file or directory",
		"create x.qcow2 --size 1M":                    "create x.qcow2: format qcow2 is not supported (known: raw); --format raw takes the bytes as they are",
		"create x.img --size 1M --format vhd":         "create x.img: format vhd is not supported (known: raw)",
		"create x.img --size 1M --format parallels":   "create x.img: format parallels is not supported (known: raw)",
		"create x.img --size 1M --backing a.img":      "create x.img: format raw has no backing images",
		"create mem://1M --size 1M":                   "open mem://1M: mem:// holds no images by name",
		"info x.img":                                  "open x.img: no such file or directory",
		"info folder":                                 "open folder: is a directory",
		"map x.img":                                   "open x.img: no such file or directory",
		"check a.img":                                 "check a.img: format raw has no metadata that could be checked",
		"check x.img":                                 "open x.img: no such file or directory",
		"resize a.img 4K":                             "resize a.img: 4096 bytes are less than the 1048576 it has; --shrink permits to lose the rest",
		"resize x.img 4K":                             "open x.img: no such file or directory",
		"ls x":                                        "open x: no such file or directory",
		"ls mem://1M":                                 "open mem://1M: mem:// holds no images by name",
		"rm x.img":                                    "stat x.img: no such file or directory",
		"rm folder":                                   "remove folder: is not an image (kind: dir)",
		"copy x.img y.img":                            "open x.img: no such file or directory",
		"copy a.img b.img":                            "create b.img: the file exists; --force replaces it, --in-place writes into it",
		"copy a.img folder":                           "open folder: is a directory",
		"copy a.img no/x.img":                         "open no/: no such file or directory",
		"copy b.img a.img --in-place":                 "copy to a.img: it has 1048576 bytes, the source 2097152",
		"copy a.img x.qcow2":                          "create x.qcow2: format qcow2 is not supported (known: raw); --format raw takes the bytes as they are",
		"copy a.qcow2 x.img":                          "open a.qcow2: format qcow2 is not supported (known: raw); --src-format raw takes the bytes as they are",
		"serve x.img --nbd unix:s":                    "open x.img: no such file or directory",
		"serve a.img --nbd unix:no/s":                 "listen on unix:",
		"info nbd://127.0.0.1:1/x":                    "connect nbd://127.0.0.1:1/x: no server listens there: connection refused",
		"info nbd+unix:///x?socket=none":              "connect nbd+unix:///x?socket=none: there is no such socket",
		"serve a.img --tls-cert x --tls-key y":        "read certificate x: no such file or directory",
		"serve a.img --metrics 192.0.2.1:9808":        "serve metrics on 192.0.2.1:9808: cannot assign requested address",
		"serve a.img --nbd unix:s --pid-file no/file": "write pid file no/file: no such file or directory",
	} {
		o := sluice(t, dir, strings.Fields(line)...)
		if o.code != exitFailure || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "sluice: "+want) {
			t.Errorf("sluice %s: exit code %d, stdout %q, stderr\n%s, want\n%s", line, o.code, o.stdout, o.stderr, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestSeveral: what fails does not keep the rest from being done, and has a line
// of its own.
func TestSeveral(t *testing.T) {
	dir := t.TempDir()
	disk(t, dir, "a.img")
	disk(t, dir, "b.img")
	link(t, dir, "link", "a.img")
	o := sluice(t, dir, "rm", "x.img", "a.img", "--json", "link", "b.img")
	want := "sluice: stat x.img: no such file or directory\nsluice: remove link: is a symbolic link to a.img, not an image; name the image itself, or remove the link with rm\n"
	if o.code != exitFailure || o.stderr != want || o.stdout != "{\n  \"removed\": [\n    \"a.img\",\n    \"b.img\"\n  ]\n}\n" {
		t.Errorf("%d, %q, %q", o.code, o.stderr, o.stdout)
	}
	if o := sluice(t, dir, "rm", "http://x/y", "none"); o.code != exitFailure || strings.Count(o.stderr, "\n") != 2 || strings.Count(o.stderr, "(see sluice rm --help)") != 1 {
		t.Errorf("one is wrong usage: %d, %q", o.code, o.stderr)
	}
	if o := sluice(t, dir, "rm", "http://x/y", "http://x/z"); o.code != exitUsage || strings.Count(o.stderr, "\n") != 2 {
		t.Errorf("both are: %d, %q", o.code, o.stderr)
	}
}

func TestDescribeIsOneLine(t *testing.T) {
	err := errors.Join(errors.New("a:\n\tb"), fmt.Errorf("c"))
	if got := describe(err); got != "a:; b; c" {
		t.Errorf("%q", got)
	}
	err = advise(block.Errorf(block.Busy, "open", "x", -1, ""), block.Busy, "wait")
	if got := describe(fmt.Errorf("serve: %w", err)); got != "serve: open x: in use; wait" {
		t.Errorf("%q", got)
	}
}

func TestVersionAndHelp(t *testing.T) {
	dir := t.TempDir()
	if out := must(t, dir, "--version"); !strings.HasPrefix(out, "sluice ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%q", out)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "serve"}, {"copy", "-h"}} {
		if out := must(t, dir, args...); !strings.Contains(out, "Usage:") {
			t.Errorf("%v: %q", args, out)
		}
	}
}
