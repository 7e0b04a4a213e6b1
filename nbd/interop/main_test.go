//go:build interop

package interop

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sluice/backends/file"
	"sluice/backends/mem"
	"sluice/block"
	"sluice/internal/lab"
	"sluice/nbd"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// imageSize is no multiple of 512: the last bytes are served too.
	imageSize = 64*mib + 12345
)

// serverEnv holds "SOCKET IMAGE" in the environment of a test binary that is to
// be a server, which the parent kills.
const serverEnv = "NBD_INTEROP_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) != "" {
		if err := serveForParent(os.Getenv(serverEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveForParent serves an image until the process is killed.
func serveForParent(where string) error {
	var socket, image string
	if _, err := fmt.Sscan(where, &socket, &image); err != nil {
		return err
	}
	dev, err := file.Open(context.Background(), image, block.OpenOptions{})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	exports := new(nbd.Exports)
	if err := exports.Add(&nbd.Export{Device: dev}); err != nil {
		return err
	}
	fmt.Println("ready nbd+unix:///?socket=" + socket)
	return nbd.NewServer(nbd.ServerConfig{Catalog: exports}).Serve(l)
}

// startServer runs such a server.
func startServer(t *testing.T, image string) (server *lab.Proc, socket string) {
	t.Helper()
	socket = lab.Socket(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+socket+" "+image)
	server = lab.StartCmd(t, cmd)
	server.Ready()
	return server, socket
}

// serve serves exports on a unix socket in this process and returns its path.
func serve(t *testing.T, cfg nbd.ServerConfig, exports ...*nbd.Export) string {
	t.Helper()
	socket := lab.Socket(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, cfg, exports...)
	return socket
}

// serveTCP does so on a port of its own on loopback.
func serveTCP(t *testing.T, cfg nbd.ServerConfig, exports ...*nbd.Export) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, cfg, exports...)
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func serveOn(t *testing.T, l net.Listener, cfg nbd.ServerConfig, exports ...*nbd.Export) {
	t.Helper()
	table := new(nbd.Exports)
	for _, x := range exports {
		if err := table.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.Catalog == nil {
		cfg.Catalog = table
	}
	s := nbd.NewServer(cfg)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-ended
	})
}

func uri(socket string) string         { return "nbd+unix:///?socket=" + socket }
func uriOf(name, socket string) string { return "nbd+unix:///" + name + "?socket=" + socket }
func qemuOpts(socket, export string) string {
	return "driver=nbd,server.type=unix,server.path=" + socket + ",export=" + export
}

// newImage makes a sparse image: data, a hole from 16 to 48 MiB with a little
// data in it, and data to the end.
func newImage(t *testing.T) string { return newImageOf(t, imageSize) }

func newImageOf(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, run := range [][2]int64{{0, 16 * mib}, {32 * mib, 64 * kib}, {48 * mib, size - 48*mib}} {
		if _, err := f.WriteAt(noise(run[1], run[0]), run[0]); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// emptyImage makes an image that is one hole.
func emptyImage(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// noise is n bytes that depend on a seed and are never zero.
func noise(n, seed int64) []byte {
	p := make([]byte, n)
	x := uint64(seed)*2654435761 + 88172645463325252
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x) | 1
	}
	return p
}

// openFile opens an image for the length of the test.
func openFile(t *testing.T, path string, opts block.OpenOptions) block.Device {
	t.Helper()
	dev, err := file.Open(context.Background(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// newMem makes a RAM disk for the length of the test.
func newMem(t *testing.T, size int64) block.Device {
	t.Helper()
	dev, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// serveImage serves an image file as the default export.
func serveImage(t *testing.T, path string) string {
	t.Helper()
	return serve(t, nbd.ServerConfig{}, &nbd.Export{Device: openFile(t, path, block.OpenOptions{})})
}

// sameContent fails the test unless two files are equal.
func sameContent(t *testing.T, a, b string) {
	t.Helper()
	if digest(t, a) != digest(t, b) {
		t.Fatalf("%s and %s differ", a, b)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// fails runs a program that has to fail, and returns what it printed.
func fails(t *testing.T, path string, args ...string) string {
	t.Helper()
	p := lab.Start(t, path, args...)
	if err := p.Wait(); err == nil {
		t.Fatalf("%s %v succeeded:\n%s", path, args, p.Output())
	}
	return p.Output()
}
