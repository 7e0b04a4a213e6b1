//go:build interop

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// nfsVersions are those that images are served over.
var nfsVersions = []string{"4.2", "4.1", "3"}

// TestServeFromNFS: foreign NBD clients against images on an NFS server whose folder
// tells what arrived.
func TestServeFromNFS(t *testing.T) {
	lab.Need(t, "nbdcopy", "nbdinfo", "qemu-io", "qemu-img")
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 16<<20)
	for _, version := range nfsVersions {
		t.Run(version, func(t *testing.T) {
			url := s.URL("disk-"+version, "vers="+version)
			lab.Run(t, lab.Sluice(t), "create", url, "--size", "16M")
			p, uri, _ := served(t, url)
			lab.Run(t, "nbdcopy", "--flush", src, uri)
			sameContent(t, s.Path("disk-"+version), content) // flushed, so it is on the server
			qemuIO(t, uri, "write -P 0x5a 1000 777", "write -z -u 8M 1M", "discard 12M 64k", "flush", "read -P 0x5a 1000 777", "read -P 0 8M 1M")
			want := bytes.Clone(content)
			copy(want[1000:], bytes.Repeat([]byte{0x5a}, 777))
			clear(want[8<<20 : 9<<20])
			got, err := os.ReadFile(s.Path("disk-" + version))
			if err != nil || !bytes.Equal(got[:12<<20], want[:12<<20]) {
				t.Errorf("the server's file differs, %v", err)
			}
			if text := lab.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, s.Path("disk-"+version)); !strings.Contains(text, "identical") {
				t.Errorf("qemu-img compare: %s", text)
			}
			report := lab.StartFio(t, lab.FioConfig{URI: uri, Runtime: 2 * time.Second, Size: 8 << 20}).Finish()
			t.Logf("%+v", report)
			stopped(t, p)
		})
	}
}

// TestImagesOnNFS: the commands for images, against what the server's folder holds.
func TestImagesOnNFS(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	dir := t.TempDir()
	src, content := imageFile(t, dir, "src.img", 8<<20)
	bin := lab.Sluice(t)
	for _, version := range nfsVersions {
		url := func(name string) string { return s.URL(name, "vers="+version) }
		lab.Run(t, bin, "copy", src, url("a.img"))
		sameContent(t, s.Path("a.img"), content)
		lab.Run(t, bin, "copy", url("a.img"), url("b.img")) // within the server
		sameContent(t, s.Path("b.img"), content)
		back := filepath.Join(dir, "back.img")
		lab.Run(t, bin, "copy", "--force", url("b.img"), back)
		sameContent(t, back, content)
		if text := lab.Run(t, bin, "ls", url("")); !strings.Contains(text, "a.img") || !strings.Contains(text, "b.img") {
			t.Errorf("ls: %s", text)
		}
		lab.Run(t, bin, "resize", url("a.img"), "16M")
		if text := lab.Run(t, bin, "info", url("a.img")); !strings.Contains(text, "16M") {
			t.Errorf("info: %s", text)
		}
		text := lab.Run(t, bin, "map", url("b.img"))
		if holes := strings.Contains(text, "hole"); holes != (version == "4.2") {
			t.Errorf("map over %s: %s", version, text)
		}
		for _, preallocation := range []string{"off", "full"} {
			lab.Run(t, bin, "create", url("c.img"), "--size", "2M", "--preallocation", preallocation)
			sameContent(t, s.Path("c.img"), make([]byte, 2<<20))
			lab.Run(t, bin, "rm", url("c.img"))
		}
		lab.Run(t, bin, "rm", url("a.img"))
		lab.Run(t, bin, "rm", url("b.img"))
		if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) != 0 {
			t.Errorf("left over: %v, %v", entries, err)
		}
		for _, args := range [][]string{
			{"info", url("none.img")}, {"rm", url("none.img")}, {"ls", url("none")}, {"serve", url("none.img")},
			{"create", s.URL("x/none.img"), "--size", "1M"}, {"info", "nfs://127.0.0.1:1/export/a"}, {"info", s.URL("a", "vers=4.0")},
		} {
			text := strings.TrimSpace(fails(t, 1, bin, args...))
			if strings.Count(text, "\n") != 0 || !strings.Contains(text, "nfs://127.") {
				t.Errorf("%v: %q", args, text)
			}
		}
	}
}

// TestSecondWriterOnNFS: the server keeps two gateways apart, unless they share.
func TestSecondWriterOnNFS(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	bin := lab.Sluice(t)
	lab.Run(t, bin, "create", s.URL("disk.img"), "--size", "1M")
	p, _, _ := served(t, s.URL("disk.img"))
	text := fails(t, 1, bin, "serve", s.URL("disk.img"), "--nbd", "unix:"+lab.Socket(t))
	if !strings.Contains(text, "share") {
		t.Errorf("a second writer: %s", text)
	}
	q, _, _ := served(t, s.URL("disk.img"), "--read-only")
	stopped(t, q)
	// One that was killed is no obstacle: its successor has the same name at the server.
	p.Kill9()
	p, uri, _ := served(t, s.URL("disk.img"))
	qemuIO(t, uri, "write -P 7 0 64k", "flush")
	stopped(t, p)
}

// TestNFSServerDiesUnderLoad: the server is killed and its connections are cut thirty
// times while fio writes, flushes and verifies.
func TestNFSServerDiesUnderLoad(t *testing.T) {
	for _, version := range nfsVersions {
		t.Run(version, func(t *testing.T) {
			s := lab.NFS(t, lab.NFSConfig{V3: true})
			proxy := lab.CutAt(t, s.Host, s.Addr())
			lab.Run(t, lab.Sluice(t), "create", s.URL("disk.img"), "--size", "64M")
			p, uri, _ := served(t, s.URLAt(proxy.Addr(), "disk.img", "vers="+version, "nconnect=2", "reconnect=60s"))
			fio := lab.StartFio(t, lab.FioConfig{URI: uri, Runtime: 12 * time.Second, Size: 16 << 20})
			cuts := 0
			for ; fio.Running() && cuts < 30; cuts++ {
				if pause(fio, time.Duration(100+rand.IntN(400))*time.Millisecond) {
					break
				}
				switch cuts % 6 {
				case 5:
					s.Restart()
				case 1, 3:
					proxy.CutAll(lab.RST)
				default:
					proxy.CutAll(lab.FIN)
				}
			}
			report := fio.Finish()
			t.Logf("%d cuts: %+v", cuts, report)
			if cuts < 25 || report.Writes == 0 || report.Reads == 0 || report.Flushes == 0 {
				t.Errorf("%d cuts, %+v", cuts, report)
			}
			stopped(t, p)
		})
	}
}

// pause waits; true: fio has ended.
func pause(fio *lab.FioVerify, d time.Duration) (ended bool) {
	select {
	case <-fio.Proc().Done():
		return true
	case <-time.After(d):
		return false
	}
}

// TestGuestFromNFS: a guest works with a disk on an NFS server that dies meanwhile.
func TestGuestFromNFS(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	lab.Run(t, lab.Sluice(t), "create", s.URL("disk.img"), "--size", "128M")
	p, uri, _ := served(t, s.URL("disk.img"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(3 * time.Second)
	}()
	guest := lab.StartGuest(t, lab.GuestConfig{Disks: []string{uri}})
	<-done
	s.Restart()
	if err := guest.WaitFor(3 * time.Minute); err != nil {
		t.Fatalf("QEMU: %v\n%s", err, guest.Output())
	}
	stopped(t, p)
}

// TestNFSAwayIsHeld: while the server is away requests wait, and the daemon says so;
// then they go on. One that is gone for good does not keep the daemon from ending.
func TestNFSAwayIsHeld(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	lab.Run(t, lab.Sluice(t), "create", s.URL("disk.img"), "--size", "16M")
	d := newDaemonAt(t)
	if _, err := d.client().Add(t.Context(), spec.Spec{Name: "disk", URL: s.URL("disk.img")}); err != nil {
		t.Fatal(err)
	}
	uri := "nbd+unix:///disk?socket=" + d.at("nbd")
	away := 3 * time.Second
	if lab.Quiet() {
		away = time.Minute
	}
	fio := lab.StartFio(t, lab.FioConfig{URI: uri, Runtime: away + 4*time.Second, Size: 8 << 20})
	s.Kill()
	back := time.After(away)
	if st := d.awaitState("disk", gateway.Held); st.Error == "" {
		t.Errorf("it does not say why: %+v", st)
	}
	<-back
	s.Start()
	d.awaitState("disk", gateway.Serving)
	report := fio.Finish()
	t.Logf("away for %v: %+v", away, report)
	if report.Longest() < away-time.Second {
		t.Errorf("no request waited for longer than %v", report.Longest())
	}
	s.Kill()
	writer := lab.Start(t, "qemu-io", "-f", "raw", "-c", "write 0 64k", "-c", "flush", uri)
	d.awaitState("disk", gateway.Held)
	begin := time.Now()
	_ = d.proc.Stop() // the writer's bytes cannot be flushed, which it says
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v to end", took)
	}
	var exit *exec.ExitError
	if err := writer.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}
