package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/nbd"
)

const evil = "a\x1b]0;title\x07\u009b2J\u202e\r\tb"

func TestEscaped(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "two  blanks": "two  blanks", "größe 漢": "größe 漢", `C:\x`: `C:\x`, "it's": "it's",
		"\x1b[1m": `\x1b[1m`, "a\tb": `a\tb`, "\xff": `\xff`, "\u009b": `\u009b`, "\u202e": `\u202e`, "": "",
	} {
		if got := escaped(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
		if quoted := printable(text); (quoted != text) != (want != text) {
			t.Errorf("%q is shown as %s", text, quoted)
		}
	}
	if got := printable(`"a"`); got != `"\"a\""` {
		t.Errorf("a name in quotes is shown as %s", got)
	}
}

// shown checks what goes to a terminal.
func shown(t *testing.T, text, want string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q has %q in it", text, r)
		}
	}
	if !strings.Contains(text, want) {
		t.Errorf("%q, want %q in it", text, want)
	}
}

// TestNamesAreShownNotObeyed: names of files, exports and URLs.
func TestNamesAreShownNotObeyed(t *testing.T) {
	dir := t.TempDir()
	const safe = `a\x1b]0;title\a\u009b2J\u202e\r\tb`
	must(t, dir, "create", evil, "--size", "1M")
	shown(t, must(t, dir, "ls", "."), `"`+safe+`"`)
	shown(t, must(t, dir, "info", evil), `"`+safe+`"`)
	shown(t, sluice(t, dir, "create", evil, "--size", "1M").stderr, "create "+safe+": file already exists")
	shown(t, sluice(t, dir, evil).stderr, "unknown command")
	shown(t, sluice(t, dir, "create", "x", "--size", evil).stderr, "--size")

	disk, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	socket := exporting(t, disk, evil)
	shown(t, must(t, dir, "ls", "nbd+unix:///?socket="+socket), `"`+safe+`"`)
	shown(t, sluice(t, dir, "info", "nbd+unix:///%1b%07?socket="+socket).stderr, "connect")
}

// exporting serves a device and gives the socket's path.
func exporting(t *testing.T, dev block.Device, name string) string {
	t.Helper()
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Name: name, Device: dev}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
		_ = dev.Close()
	})
	return socket
}

func TestBlanksAreKept(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "create", "a  b", "--size", "1M")
	if o := sluice(t, dir, "create", "a  b", "--size", "1M"); !strings.Contains(o.stderr, "create a  b: file already exists") {
		t.Errorf("%q", o.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "a  b")); err != nil {
		t.Error(err)
	}
	if got := describe(errors.New("x\x1b: a\n b  c")); got != `x\x1b: a; b  c` {
		t.Errorf("%q", got)
	}
}
