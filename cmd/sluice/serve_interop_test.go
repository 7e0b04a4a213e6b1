//go:build interop

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/lab"
	"sluice/nbd"
)

// TestServeToForeignClients: what nbdcopy and qemu-io write is in the image, and
// the reverse.
func TestServeToForeignClients(t *testing.T) {
	lab.Need(t, "nbdcopy", "nbdinfo", "qemu-io", "qemu-img")
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 16<<20)
	for name, flags := range map[string][]string{"cached": nil, "direct": {"--direct"}, "named": {"--name", "a/b c"}} {
		disk := filepath.Join(dir, name)
		lab.Run(t, lab.Sluice(t), "create", disk, "--size", "16M")
		p, uri, socket := served(t, disk, flags...)
		lab.Run(t, "nbdcopy", "--flush", src, uri)
		if text := lab.Run(t, "nbdinfo", "--size", uri); strings.TrimSpace(text) != "16777216" {
			t.Errorf("size %q", text)
		}
		lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1000 777", "-c", "flush", uri)
		want := bytes.Clone(content)
		copy(want[1000:], bytes.Repeat([]byte{0x5a}, 777))
		back := filepath.Join(dir, name+".back")
		lab.Run(t, "nbdcopy", uri, back)
		sameContent(t, back, want)
		stopped(t, p)
		sameContent(t, disk, want)
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
}

func TestReadOnlyIsReadOnly(t *testing.T) {
	lab.Need(t, "nbdinfo", "qemu-io")
	disk, content := imageFile(t, t.TempDir(), "disk.img", 1<<20)
	_, uri, _ := served(t, disk, "--read-only")
	lab.Run(t, "nbdinfo", "--is", "read-only", uri)
	fails(t, 1, "qemu-io", "-f", "raw", "-c", "write 0 512", uri)
	sameContent(t, disk, content)
	served(t, disk, "--read-only") // a second reader gets along
	oneLine(t, fails(t, 1, lab.Sluice(t), "serve", disk, "--nbd", "unix:"+lab.Socket(t)), "in use")
}

// TestSigtermLosesNothing stops the server under load: it exits 0, and every
// write that was answered is in the image.
func TestSigtermLosesNothing(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	lab.Run(t, lab.Sluice(t), "create", disk, "--size", "64M")
	p, uri, _ := served(t, disk)
	acked := load(t, uri, func() { p.Signal(syscall.SIGTERM) })
	if _ = p.Wait(); p.ExitCode() != 0 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	survived(t, disk, acked)
}

// TestKilledServer: what was answered is in the image, and the next server takes
// the socket over.
func TestKilledServer(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	lab.Run(t, lab.Sluice(t), "create", disk, "--size", "64M")
	p, uri, socket := served(t, disk)
	acked := load(t, uri, func() { p.Kill9() })
	survived(t, disk, acked)
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("no stale socket: %v", err)
	}
	again := lab.Start(t, lab.Sluice(t), "serve", disk, "--nbd", "unix:"+socket)
	if got := again.Ready(); got != uri {
		t.Errorf("ready at %s, was at %s", got, uri)
	}
	oneLine(t, fails(t, 1, lab.Sluice(t), "serve", "mem://1M", "--nbd", "unix:"+socket), "another process listens there")
	stopped(t, again)
}

const pieces = 64 << 20 / 4096

// load writes pieces with their number until the server is gone, and calls act
// when some hundred are answered. It gives the answered ones.
func load(t *testing.T, uri string, act func()) []bool {
	t.Helper()
	c, err := nbd.Dial(t.Context(), uri, nbd.ClientConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	acked := make([]bool, pieces)
	var mu sync.Mutex
	var count int
	enough := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := w; i < pieces; i += 8 {
				if c.WriteAt(context.Background(), pieceOf(i), int64(i)*4096, 0) != nil {
					return
				}
				mu.Lock()
				acked[i] = true
				if count++; count == 500 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	act()
	writers.Wait()
	return acked
}

func pieceOf(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8), 0x77, 0x11}, 1024) }

func survived(t *testing.T, disk string, acked []bool) {
	t.Helper()
	content, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, ok := range acked {
		if !ok {
			continue
		}
		n++
		if !bytes.Equal(content[i*4096:(i+1)*4096], pieceOf(i)) {
			t.Fatalf("piece %d was answered and is not in the image", i)
		}
	}
	t.Logf("%d of %d pieces were answered", n, len(acked))
}

// TestTwoWritersAreRefused, by QEMU and by us, whoever comes first.
func TestTwoWritersAreRefused(t *testing.T) {
	lab.Need(t, "qemu-io", "qemu-nbd")
	disk, _ := imageFile(t, t.TempDir(), "disk.img", 1<<20)
	p, _, _ := served(t, disk)
	if out := fails(t, 1, "qemu-io", "-f", "raw", "-c", "write 0 512", disk); !strings.Contains(out, "lock") {
		t.Error(out)
	}
	oneLine(t, fails(t, 1, lab.Sluice(t), "resize", disk, "2M"), "in use")
	stopped(t, p)
	socket := lab.Socket(t)
	qemu := lab.Start(t, "qemu-nbd", "-f", "raw", "-t", "-k", socket, disk)
	eventually(t, "qemu-nbd's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	for _, args := range [][]string{
		{"serve", disk, "--nbd", "unix:" + lab.Socket(t)}, {"rm", disk}, {"resize", disk, "2M"}, {"copy", disk, disk + ".copy"},
	} {
		oneLine(t, fails(t, 1, lab.Sluice(t), args...), "in use")
	}
	lab.Run(t, lab.Sluice(t), "info", disk)
	_ = qemu.Stop()
	lab.Run(t, lab.Sluice(t), "rm", disk)
}

// TestSocketActivation: libnbd starts us, QEMU is a client of what it gave us.
func TestSocketActivation(t *testing.T) {
	lab.Need(t, "nbdinfo", "nbdcopy")
	dir := t.TempDir()
	disk, content := imageFile(t, dir, "disk.img", 1<<20)
	if text := lab.Run(t, "nbdinfo", "--size", "[", lab.Sluice(t), "serve", disk, "]"); strings.TrimSpace(text) != "1048576" {
		t.Errorf("size %q", text)
	}
	back := filepath.Join(dir, "back.img")
	lab.Run(t, "nbdcopy", "--", "[", lab.Sluice(t), "serve", disk, "]", back)
	sameContent(t, back, content)
}

// TestServiceManager is told when clients can connect and when they cannot.
func TestServiceManager(t *testing.T) {
	path := lab.Socket(t)
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = told.Close() }()
	next := func() string {
		var b [256]byte
		n, err := told.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	pid := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(lab.Sluice(t), "serve", "mem://1M", "--nbd", "unix:"+lab.Socket(t), "--pid-file", pid)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	p := lab.StartCmd(t, cmd)
	if got := next(); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	if text, err := os.ReadFile(pid); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(p.Pid()) {
		t.Errorf("pid file: %q, %v", text, err)
	}
	p.Signal(syscall.SIGINT)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
	if _ = p.Wait(); p.ExitCode() != 0 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	if _, err := os.Lstat(pid); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there: %v", err)
	}
}

// TestServeTLS with keys of either kind: RSA is what most people have.
func TestServeTLS(t *testing.T) {
	t.Run("ECDSA", func(t *testing.T) { testServeTLS(t, lab.Certs(t)) })
	t.Run("RSA", func(t *testing.T) { testServeTLS(t, lab.RSACerts(t)) })
}

func testServeTLS(t *testing.T, pki *lab.PKI) {
	lab.Need(t, "nbdinfo")
	port := freePort(t)
	start := func(flags ...string) (*lab.Proc, string) {
		p := lab.Start(t, lab.Sluice(t), append([]string{
			"serve", "mem://1M", "--nbd", "tcp:127.0.0.1:" + port,
			"--tls-cert", pki.Path("server-cert.pem"), "--tls-key", pki.Path("server-key.pem"),
		}, flags...)...)
		return p, p.Ready()
	}
	plain, certs := "nbd://127.0.0.1:"+port+"/", "?tls-certificates="+pki.Dir
	p, uri := start("--tls-ca", pki.Path("ca-cert.pem"), "--tls-allow", "client")
	if uri != "nbds://127.0.0.1:"+port+"/" {
		t.Errorf("ready at %s", uri)
	}
	lab.Run(t, "nbdinfo", "--size", uri+certs)
	lab.Run(t, lab.Sluice(t), "info", uri+certs)
	fails(t, 1, "nbdinfo", "--size", plain)
	stopped(t, p)
	p, uri = start("--tls-ca", pki.Path("ca-cert.pem"), "--tls-allow", "somebody")
	fails(t, 1, "nbdinfo", "--size", uri+certs)
	stopped(t, p)
	p, _ = start("--tls", "optional", "--tls-ca", pki.Path("ca-cert.pem"))
	lab.Run(t, "nbdinfo", "--size", plain) // who does not start TLS needs no certificate
	stopped(t, p)
	p, _ = start("--tls", "optional", "--tls-ca", pki.Path("ca-cert.pem"), "--tls-allow", "client")
	fails(t, 1, "nbdinfo", "--size", plain)
	stopped(t, p)
	p, uri = start("--tls", "optional")
	lab.Run(t, "nbdinfo", "--size", uri)
	lab.Run(t, "nbdinfo", "--size", strings.Replace(uri, "nbd:", "nbds:", 1)+certs)
	stopped(t, p)
}

// freePort gives a TCP port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestServeMetricsAndPorts(t *testing.T) {
	lab.Need(t, "qemu-io")
	metrics, port := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	_, uri, _ := served(t, "mem://1M", "--metrics", metrics, "--nbd", "tcp:"+port, "--name", "ram", "--pprof")
	lab.Run(t, "qemu-io", "-f", "raw", "-c", "write 0 64k", uri)
	for page, want := range map[string]string{
		"/metrics": `sluice_requests_total{export="ram",op="write",protocol="nbd"} 1`, "/healthz": "ok", "/debug/pprof/": "goroutine",
	} {
		res, err := http.Get("http://" + metrics + page)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %q (%v)", page, want, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	oneLine(t, fails(t, 1, lab.Sluice(t), "serve", "mem://1M", "--nbd", "tcp:"+port), "listen on tcp:"+port+": another process listens there")
	oneLine(t, fails(t, 1, lab.Sluice(t), "serve", "mem://1M", "--metrics", metrics, "--nbd", "unix:"+lab.Socket(t)), metrics)
}

// TestSecondSignalCuts: requests that hang in the storage do not keep the server
// from ending when it is told twice.
func TestSecondSignalCuts(t *testing.T) {
	log := filepath.Join(t.TempDir(), "requests")
	behind := nbdkit(t, "--filter=log", "--filter=delay", "memory", "1M", "rdelay=4", "logfile="+log)
	p, uri, _ := served(t, behind, "--shutdown-timeout", "0", "--log-level", "debug")
	c, err := nbd.Dial(t.Context(), uri, nbd.ClientConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- c.ReadAt(context.Background(), make([]byte, 512), 0) }()
	awaitText(t, log, " Read ") // it is in the device
	p.Signal(syscall.SIGTERM)
	p.Expect("stopping")
	p.Signal(syscall.SIGTERM)
	p.Expect("stopping")
	if err := <-answered; err == nil {
		t.Error("the read was answered")
	}
	_ = c.Close()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// awaitText waits until a file that somebody writes contains a text.
func awaitText(t *testing.T, path, text string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p, _ := os.ReadFile(path); strings.Contains(string(p), text) {
			return
		}
	}
	t.Fatalf("%s never contained %q", path, text)
}
