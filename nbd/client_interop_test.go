//go:build interop

package nbd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/block"
	"sluice/block/blocktest"
)

// peer is a server that others wrote, on a unix socket. It is killed when the
// test ends.
type peer struct {
	t      testing.TB
	socket string
	argv   []string
	cmd    *exec.Cmd
	log    *bytes.Buffer
}

// startPeer runs a command in which SOCKET stands for the socket's path, and
// waits until it accepts connections.
func startPeer(t testing.TB, argv ...string) *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, socket: filepath.Join(dir, "s"), argv: argv}
	t.Cleanup(func() {
		p.kill()
		_ = os.RemoveAll(dir)
	})
	p.start()
	return p
}

func (p *peer) start() {
	p.t.Helper()
	args := make([]string, len(p.argv))
	for i, a := range p.argv {
		args[i] = strings.ReplaceAll(a, "SOCKET", p.socket)
	}
	p.log = new(bytes.Buffer)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if conn, err := net.Dial("unix", p.socket); err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			p.kill()
			p.t.Fatalf("%s does not listen: %s", args, p.log)
		}
	}
}

// kill is kill -9; the socket's name goes with the server.
func (p *peer) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
	_ = os.Remove(p.socket)
}

func (p *peer) uri(export string) string { return URI{Socket: p.socket, Export: export}.String() }

func (p *peer) dial(cfg ClientConfig) *Client {
	p.t.Helper()
	c, err := Dial(background, p.uri(""), cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func run(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
}

func imageFile(t testing.TB, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

var nbdkit = []string{"nbdkit", "-f", "-U", "SOCKET"}

// TestInteropConformance runs the conformance suite over servers of all kinds.
func TestInteropConformance(t *testing.T) {
	memory := func(args ...string) func(testing.TB) []string {
		return func(testing.TB) []string { return append(append([]string{}, nbdkit...), args...) }
	}
	cases := map[string]struct {
		argv func(testing.TB) []string
		cfg  ClientConfig
	}{
		"nbdkit memory":          {memory("memory", "2M"), ClientConfig{}},
		"four connections":       {memory("memory", "2M"), ClientConfig{Connections: 4}},
		"simple replies":         {memory("--no-sr", "memory", "2M"), ClientConfig{}},
		"newstyle not fixed":     {memory("--mask-handshake=0", "memory", "2M"), ClientConfig{}},
		"fixed, zeroes":          {memory("--mask-handshake=1", "memory", "2M"), ClientConfig{}},
		"blocks of 512":          {memory("--filter=blocksize-policy", "memory", "2M", "blocksize-minimum=512", "blocksize-error-policy=error"), ClientConfig{}},
		"blocks of 4096, 64 KiB": {memory("--filter=blocksize-policy", "memory", "2M", "blocksize-minimum=4096", "blocksize-maximum=64K", "blocksize-error-policy=error"), ClientConfig{}},
		"out of order":           {memory("--filter=delay", "memory", "2M", "delay-read=1ms", "delay-write=1ms"), ClientConfig{}},
		"no zeroing":             {memory("--filter=nozero", "memory", "2M"), ClientConfig{}},
		"file": {func(t testing.TB) []string {
			return append(append([]string{}, nbdkit...), "file", imageFile(t, 2<<20))
		}, ClientConfig{}},
		"odd size": {memory("memory", "2097151"), ClientConfig{}},
		"qemu-nbd raw": {func(t testing.TB) []string {
			return []string{"qemu-nbd", "-t", "-e", "8", "-k", "SOCKET", "-f", "raw", "--discard=unmap", imageFile(t, 2<<20)}
		}, ClientConfig{}},
		"qemu-nbd qcow2": {func(t testing.TB) []string {
			name := imageFile(t, 0)
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", name, "2M")
			return []string{"qemu-nbd", "-t", "-e", "8", "-k", "SOCKET", "-f", "qcow2", "-A", name}
		}, ClientConfig{}},
	}
	for name, tc := range cases {
		blocktest.Suite{Name: name, LooseZero: true, Open: func(t testing.TB) block.Device {
			c, err := Dial(background, startPeer(t, tc.argv(t)...).uri(""), tc.cfg)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}}.Run(t)
	}
}

func TestInteropErrors(t *testing.T) {
	for name, kind := range map[string]block.Kind{
		"EPERM": block.ReadOnly, "EIO": block.IO, "ENOMEM": block.Transient, "ENOSPC": block.NoSpace, "ESHUTDOWN": block.Transient,
	} {
		c := startPeer(t, append(nbdkit, "--filter=error", "memory", "1M", "error-pwrite="+name, "error-pwrite-rate=100%")...).dial(ClientConfig{})
		err := c.WriteAt(background, make([]byte, 512), 4096, 0)
		wantKind(t, err, kind)
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "at 4096") {
			t.Error(err)
		}
		if err := c.ReadAt(background, make([]byte, 512), 0); err != nil {
			t.Errorf("the connection did not outlive the error: %v", err)
		}
	}
}

func TestInteropRefusals(t *testing.T) {
	_, err := Dial(background, startPeer(t, append(nbdkit, "-o", "memory", "1M")...).uri(""), ClientConfig{})
	wantKind(t, err, block.Unsupported)
	qemu := startPeer(t, "qemu-nbd", "-t", "-k", "SOCKET", "-x", "disk", "-f", "raw", "-r", imageFile(t, 1<<20))
	_, err = Dial(background, qemu.uri("other"), ClientConfig{})
	wantKind(t, err, block.NotFound)
	if !strings.Contains(err.Error(), "other") {
		t.Errorf("the server's own words are missing: %v", err)
	}
	c, err := Dial(background, qemu.uri("disk"), ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	wantKind(t, c.WriteAt(background, make([]byte, 512), 0, 0), block.ReadOnly)
}

// TestInteropDepthAndBitmap: a chain of two images with a dirty bitmap on top.
func TestInteropDepthAndBitmap(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "top.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 128k", base)
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 2 64k 64k", "-c", "write -z 256k 64k", top)
	run(t, "qemu-img", "bitmap", "--add", "-g", "64k", top, "daily")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 3 512k 64k", top)
	p := startPeer(t, "qemu-nbd", "-t", "-k", "SOCKET", "-f", "qcow2", "-r", "-A", "-B", "daily", top)
	c := p.dial(ClientConfig{MetaContexts: []string{ContextAllocation, ContextDepth, ContextDirty + "daily", ContextDirty + "none"}})
	if diff := cmp.Diff([]string{"daily"}, c.Bitmaps()); diff != "" {
		t.Fatal(diff)
	}
	got, err := c.Extents(background, 0, 1<<20, make([]block.Extent, 0, 16))
	hole := block.Hole | block.Zero
	want := []block.Extent{
		{Len: 64 * kib, Depth: 2}, {Len: 64 * kib, Depth: 1}, {Len: 128 * kib, State: hole},
		{Len: 64 * kib, State: got[min(3, len(got)-1)].State, Depth: 1}, // zeroed: a hole or not, as qcow2 likes
		{Len: 192 * kib, State: hole}, {Len: 64 * kib, Depth: 1}, {Len: 448 * kib, State: hole},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got[3].State&block.Zero == 0 {
		t.Errorf("%+v does not read as zeroes", got[3])
	}
	got, err = c.BitmapExtents(background, "daily", 0, 1<<20, make([]block.Extent, 0, 16))
	want = []block.Extent{{Len: 512 * kib}, {Len: 64 * kib, State: block.Dirty}, {Len: 448 * kib}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// TestInteropUnevenExtents: nbdkit's blocksize-policy filter announces a minimum
// block size and tells the file's own extents, which know nothing of it.
func TestInteropUnevenExtents(t *testing.T) {
	const size, least = 1 << 20, 64 * kib
	want := make([]byte, size)
	img := imageFile(t, size)
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{4096, 16384, 200 * kib, 320 * kib, 324 * kib, 640*kib - 4096, size - 4096} {
		for i := range want[off : off+4096] {
			want[off+int64(i)] = byte(off>>12) | 1
		}
		if _, err := f.WriteAt(want[off:off+4096], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c := startPeer(t, append(append([]string{}, nbdkit...), "--filter=blocksize-policy", "file", img,
		"blocksize-minimum=64K", "blocksize-preferred=64K", "blocksize-maximum=32M", "blocksize-error-policy=error")...).dial(ClientConfig{})
	for _, room := range []int{1, 2, 100} {
		eachExtent(t, c, fmt.Sprintf("room for %d", room), func(off, n int64) ([]block.Extent, error) {
			return c.Extents(background, off, n, make([]block.Extent, 0, room))
		}, func(e block.Extent, off int64) {
			for b := off; b < off+e.Len; b += least { // neither more nor less than the file has
				if zero := e.State&block.Zero != 0; zero != bytes.Equal(want[b:b+least], make([]byte, least)) || zero != (e.State&block.Hole != 0) {
					t.Errorf("room for %d: %+v at %d, wrong of the block at %d", room, e, off, b)
				}
			}
		})
	}
	got := make([]byte, size)
	if err := c.ReadAt(background, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatal("the file has other content", err)
	}
}

func TestInteropList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two words"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := List(background, startPeer(t, append(nbdkit, "file", "dir="+dir)...).uri(""), ClientConfig{})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, e := range list {
		if e.Err != nil || e.Size != 4096 || !e.Flush || e.Headers != "structured" {
			t.Errorf("%+v", e)
		}
	}
	qemu := startPeer(t, "qemu-nbd", "-t", "-k", "SOCKET", "-x", "disk", "-D", "the disk", "-f", "raw", imageFile(t, 1<<20))
	list, err = List(background, qemu.uri(""), ClientConfig{})
	if err != nil || len(list) != 1 || list[0].Name != "disk" || list[0].Description != "the disk" || list[0].Size != 1<<20 {
		t.Fatalf("%+v %v", list, err)
	}
	if diff := cmp.Diff([]string{ContextAllocation}, list[0].MetaContexts); diff != "" {
		t.Error(diff)
	}
}

func TestInteropTLS(t *testing.T) {
	keys := newPKI(t)
	servers := map[string][]string{
		"nbdkit": append(append([]string{}, nbdkit...), "--tls=require", "--tls-certificates="+keys.dir, "--tls-verify-peer", "memory", "2M"),
		"qemu-nbd": {"qemu-nbd", "-t", "-e", "8", "-k", "SOCKET", "-f", "raw", "--tls-creds=tls0",
			"--object", "tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir=" + keys.dir, imageFile(t, 2<<20)},
	}
	for name, argv := range servers {
		t.Run(name, func(t *testing.T) {
			p := startPeer(t, argv...)
			u := URI{TLS: true, Socket: p.socket, TLSHostname: pkiHost, TLSCertificates: keys.dir}
			c, err := Dial(background, u.String(), ClientConfig{Connections: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			want := bytes.Repeat([]byte("0123456789"), 100<<10)
			if err := c.WriteAt(background, want, 1000, 0); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if err := c.ReadAt(background, got, 1000); err != nil || !bytes.Equal(got, want) {
				t.Fatal("read other bytes than were written", err)
			}
			_, err = Dial(background, p.uri(""), ClientConfig{})
			wantKind(t, err, block.Permission)
			u.TLSCertificates = newPKI(t).dir
			_, err = Dial(background, u.String(), ClientConfig{})
			wantKind(t, err, block.Permission)
			u.TLSNoVerify = true // the server still verifies
			if c, err := Dial(background, u.String(), ClientConfig{}); err == nil {
				err = c.ReadAt(background, make([]byte, 512), 0)
				_ = c.Close()
				if err == nil {
					t.Error("a stranger's certificate was let in")
				}
			}
		})
	}
}

// TestInteropKill kills servers with -9 under load and starts them again on the
// same socket: no request fails, all bytes are right, and the next flush does not
// vouch for what the killed process had acknowledged.
func TestInteropKill(t *testing.T) {
	for name, argv := range map[string]func(string) []string{
		"nbdkit": func(img string) []string { return append(append([]string{}, nbdkit...), "file", img) },
		"qemu-nbd": func(img string) []string {
			return []string{"qemu-nbd", "-t", "-e", "8", "-k", "SOCKET", "-f", "raw", img}
		},
	} {
		for _, conns := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s %d", name, conns), func(t *testing.T) {
				p := startPeer(t, argv(imageFile(t, 1<<20))...)
				c := p.dial(ClientConfig{Reconnect: ReconnectForever, Connections: conns})
				if err := c.WriteAt(background, []byte("x"), 0, 0); err != nil {
					t.Fatal(err)
				}
				var load sync.WaitGroup
				for i := range int64(8) {
					load.Go(func() { reconnectLoad(t, c, i*(128<<10)) })
				}
				for range 3 {
					p.kill()
					p.start()
				}
				within(t, "load", load.Wait)
				wantKind(t, c.Flush(background), block.IO)
				wantKind(t, c.Flush(background), block.OK)
				if c.Reconnects() == 0 {
					t.Fatal("the connection never broke")
				}
			})
		}
	}
}

// TestInteropGone: without a successor, requests end as the policy says.
func TestInteropGone(t *testing.T) {
	p := startPeer(t, append(nbdkit, "memory", "1M")...)
	c := p.dial(ClientConfig{Reconnect: ReconnectFor(200 * time.Millisecond)})
	p.kill()
	wantKind(t, c.ReadAt(background, make([]byte, 512), 0), block.Transient)
}

// BenchmarkInterop reads from nbdkit, which sends as fast as it can.
func BenchmarkInterop(b *testing.B) {
	for _, plugin := range []string{"null", "memory"} {
		uri := startPeer(b, append(append([]string{}, nbdkit...), plugin, "1G")...).uri("")
		for _, x := range []struct {
			name        string
			size, depth int
		}{{"4KiB/depth1", 4 << 10, 1}, {"4KiB/depth16", 4 << 10, 16}, {"1MiB/depth1", 1 << 20, 1}, {"1MiB/depth4", 1 << 20, 4}} {
			b.Run(plugin+"/"+x.name, func(b *testing.B) {
				benchmarkClient(b, uri, x.size, x.depth, func(c *Client, ctx context.Context, p []byte, off int64) error {
					return c.ReadAt(ctx, p, off)
				})
			})
		}
	}
}
