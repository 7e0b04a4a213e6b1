//go:build interop

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/lab"
	"sluice/nbd"
)

// What a lost terminal and a shell do to us: SIGHUP, pid files, completion.

// hearHangups makes programs that the test starts hear of SIGHUP, also when the
// tests themselves run under nohup: a signal that is caught here is at its default
// there, one that is ignored here is ignored there.
func hearHangups(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(heard) })
}

// TestHangupEndsServing: SIGHUP is as good as SIGTERM, and a second one changes
// nothing.
func TestHangupEndsServing(t *testing.T) {
	hearHangups(t)
	dir := t.TempDir()
	disk, pid := filepath.Join(dir, "disk.img"), filepath.Join(dir, "pid")
	lab.Run(t, lab.Sluice(t), "create", disk, "--size", "64M")
	p, uri, socket := served(t, disk, "--pid-file", pid)
	acked := load(t, uri, func() {
		p.Signal(syscall.SIGHUP)
		_ = syscall.Kill(p.Pid(), syscall.SIGHUP) // the shell's; it may be gone already
	})
	if _ = p.Wait(); p.ExitCode() != 0 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	survived(t, disk, acked)
	for _, path := range []string{socket, pid} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// TestHangupIsNoSecondSignal: a request in the device is waited for, however
// often the terminal is lost.
func TestHangupIsNoSecondSignal(t *testing.T) {
	hearHangups(t)
	log := filepath.Join(t.TempDir(), "requests")
	behind := nbdkit(t, "--filter=log", "--filter=delay", "memory", "1M", "rdelay=1", "logfile="+log)
	p, uri, _ := served(t, behind, "--shutdown-timeout", "0", "--log-level", "debug")
	c, err := nbd.Dial(t.Context(), uri, nbd.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	answered := make(chan error, 1)
	go func() { answered <- c.ReadAt(t.Context(), make([]byte, 512), 0) }()
	awaitText(t, log, " Read ")
	p.Signal(syscall.SIGHUP)
	p.Expect("stopping")
	for range 3 {
		p.Signal(syscall.SIGHUP)
	}
	if err := <-answered; err != nil {
		t.Errorf("the read was cut off: %v", err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestHangupUnderNohup: who starts us with SIGHUP ignored wants us to stay.
func TestHangupUnderNohup(t *testing.T) {
	socket := lab.Socket(t)
	cmd := exec.Command("/bin/sh", "-c", `trap '' HUP; exec "$0" "$@"`, lab.Sluice(t), "serve", "mem://1M", "--nbd", "unix:"+socket)
	p := lab.StartCmd(t, cmd)
	uri := p.Ready()
	p.Signal(syscall.SIGHUP)
	c, err := nbd.Dial(t.Context(), uri, nbd.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.ReadAt(t.Context(), make([]byte, 512), 0), c.Close()); err != nil {
		t.Error(err)
	}
	// The signal has been dealt with: the process says which ones it ignores.
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(status), "SigIgn:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	if bits, err := strconv.ParseUint(mask, 16, 64); err != nil || bits&(1<<(syscall.SIGHUP-1)) == 0 {
		t.Errorf("SIGHUP is not ignored: %s, %v", mask, err)
	}
	stopped(t, p)
}

// TestPIDFileIsHeld: a second server ends, and leaves everything to the first.
func TestPIDFileIsHeld(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	first, _, _ := served(t, "mem://1M", "--pid-file", pid)
	text := strconv.Itoa(first.Pid())
	socket := lab.Socket(t)
	out := fails(t, 1, lab.Sluice(t), "serve", "mem://1M", "--nbd", "unix:"+socket, "--pid-file", pid)
	oneLine(t, out, "write pid file "+pid+": it is in use by process "+text)
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second one's socket is still there: %v", err)
	}
	if got, err := os.ReadFile(pid); err != nil || string(got) != text+"\n" {
		t.Errorf("pid file: %q, %v", got, err)
	}
	first.Kill9()
	again, _, _ := served(t, "mem://1M", "--pid-file", pid)
	if got, err := os.ReadFile(pid); err != nil || string(got) != strconv.Itoa(again.Pid())+"\n" {
		t.Errorf("pid file of the next one: %q, %v", got, err)
	}
	stopped(t, again)
}

// TestBashCompletion: the script completes in a bash that knows nothing else.
func TestBashCompletion(t *testing.T) {
	lab.Need(t, "bash")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(lab.Run(t, lab.Sluice(t), "completion", "bash")), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		" cre":                        "create",
		" create disk.img --prealloc": "--preallocation",
		" copy --progress=":           "auto on off",
		" serve --tls=opt":            "optional",
		" serve --nbd tcp:h:1 --tls ": "off optional required",
	} {
		cmd := exec.Command("bash", "--norc", "--noprofile", "-c", `. "$1"; COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
			__start_sluice; printf '%s\n' "${COMPREPLY[@]%% *}"`, "bash", script, lab.Sluice(t)+line)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v: %s", line, err, &stderr)
		}
		if got := strings.Join(strings.Fields(stdout.String()), " "); got != want || strings.Contains(stderr.String(), "not found") {
			t.Errorf("%q: %q, want %q\n%s", line, got, want, &stderr)
		}
	}
}
