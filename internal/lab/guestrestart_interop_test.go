//go:build interop

package lab

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// restartScript writes and reads back until it finds the mark on its disk, which
// comes there while no server runs, and then a little longer.
const restartScript = `
disk=/dev/vda
sum() { sha256sum | cut -d' ' -f1; }
slot() { dd if=$disk bs=1M skip=$1 count=1 2>/dev/null | sum; }
round=0 rest=4
while [ $rest -gt 0 ]; do
  round=$((round + 1))
  at=$((round % 16))
  head -c 1048576 /dev/urandom >/tmp/data
  sum </tmp/data >/tmp/sum$at
  dd if=/tmp/data of=$disk bs=1M seek=$at conv=fsync,notrunc 2>/tmp/err || { cat /tmp/err; exit 1; }
  echo "round $round written"
  echo 3 >/proc/sys/vm/drop_caches
  [ "$(slot $at)" = "$(cat /tmp/sum$at)" ] || { echo "round $round: read something else than was written"; exit 1; }
  mark=$(dd if=$disk bs=1M skip=32 count=1 2>/dev/null | head -c 9)
  [ "$mark" != "restarted" ] || rest=$((rest - 1))
done
for at in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
  [ ! -e /tmp/sum$at ] || [ "$(slot $at)" = "$(cat /tmp/sum$at)" ] || { echo "at $at MiB: not what was written"; exit 1; }
done
if dmesg | grep -i 'error.*vda'; then exit 1; fi
echo "disk $(dd if=$disk bs=1M count=16 2>/dev/null | sum)"
`

// TestGuestDoesNotSeeARestart: the server is killed under a guest that writes,
// and started again at the same socket. QEMU holds the guest's requests meanwhile.
func TestGuestDoesNotSeeARestart(t *testing.T) {
	file, sock := sparse(t, 64<<20), Socket(t)
	serve := func() (server *Proc, uri string) {
		server = Start(t, Sluice(t), "serve", file, "--nbd", "unix:"+sock)
		return server, server.Ready()
	}
	server, uri := serve()
	guest := StartGuest(t, GuestConfig{Disks: []string{uri}, Script: restartScript, Reconnect: 60})
	guest.Expect("round 3 written")
	server.Kill9()
	mark(t, file, 32<<20, "restarted")
	server, _ = serve()
	if err := guest.WaitFor(2 * time.Minute); err != nil {
		t.Fatalf("QEMU: %v", err)
	}
	CheckGuest(t, guest)
	if err := server.Stop(); err != nil {
		t.Errorf("the second server: %v", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("disk %x", sha256.Sum256(data[:16<<20])); !strings.Contains(guest.Output(), want) {
		t.Errorf("the image has %q, the guest says:\n%s", want, guest.Output())
	}
	if bytes.ContainsFunc(data[16<<20:32<<20], func(r rune) bool { return r != 0 }) {
		t.Error("something is in the image where the guest has not written")
	}
}

// mark writes into an image that nobody serves.
func mark(t *testing.T, file string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
