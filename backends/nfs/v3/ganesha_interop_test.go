//go:build interop

package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/block"
	"sluice/internal/lab"
)

func ganeshaConfig(s *lab.NFSServer, port int) Config {
	return Config{
		Host: s.Host, Port: port, MountPort: s.MountPort, Path: "/export/disk.img", Connections: 2, Cred: rpc.ProcessCred(),
		Patience: 60 * time.Second, Silence: 5 * time.Second,
	}
}

func openGanesha(t *testing.T, c *Client, opts remote.OpenOptions) *File {
	t.Helper()
	f, err := c.Open(t.Context(), "/export/disk.img", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f.(*File)
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Everything against nfs-ganesha, whose folder tells what really happened.
func TestGanesha(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	c := dialTest(t, ganeshaConfig(s, s.Port))
	put(t, s.Path("disk.img"), make([]byte, 1<<20))
	f := openGanesha(t, c, remote.OpenOptions{Write: true})
	if l := f.Limits(); l.Read != 1<<20 || l.Write != 1<<20 {
		t.Errorf("limits %+v", l)
	}
	p := pattern(1<<20, 3)
	w, err := f.Write(t.Context(), p, 4096, false)
	if err != nil || w.N != len(p) {
		t.Fatal(w, err)
	}
	if v, err := f.Commit(t.Context()); err != nil || v != w.Verifier {
		t.Fatal(v, w.Verifier, err)
	}
	local, err := os.ReadFile(s.Path("disk.img"))
	if err != nil || !bytes.Equal(local[4096:], p) {
		t.Errorf("the folder holds other bytes, %v", err)
	}
	q := make([]byte, 1<<20)
	if n, err := f.Read(t.Context(), q, 4096); err != nil || !bytes.Equal(q[:n], p) {
		t.Errorf("%d bytes read, %v", n, err)
	}
	if n, err := f.Read(t.Context(), q, 1<<30); err != nil || n != 0 {
		t.Errorf("%d bytes read beyond the end, %v", n, err)
	}
	if err := f.Truncate(t.Context(), 5000); err != nil {
		t.Error(err)
	}
	if a, err := f.Attr(t.Context()); err != nil || a.Size != 5000 || a.Links != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	namesOnGanesha(t, c.Tree(), s)
}

func namesOnGanesha(t *testing.T, tree remote.Tree, s *lab.NFSServer) {
	t.Helper()
	ctx, mode, size := t.Context(), uint32(0o600), int64(12345)
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{Mode: &mode, Size: &size}); err != nil {
		t.Fatal(err)
	}
	if err := tree.Create(ctx, "/export/a", remote.SetAttr{}); !errors.Is(err, block.Exists) {
		t.Errorf("create again: %v", err)
	}
	if info, err := os.Stat(s.Path("a")); err != nil || info.Size() != size || info.Mode() != 0o600 || time.Since(info.ModTime()).Abs() > time.Hour {
		t.Errorf("%+v, %v", info, err)
	}
	for _, err := range []error{
		tree.Link(ctx, "/export/a", "/export/b"), tree.Rename(ctx, "/export/a", "/export/c"), tree.Remove(ctx, "/export/b"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := os.Symlink("c", s.Path("link")); err != nil {
		t.Fatal(err)
	}
	if a, err := tree.Stat(ctx, "/export/link", true); err != nil || a.Size != size {
		t.Errorf("%+v, %v", a, err)
	}
	total, free, err := tree.(remote.TreeSetter).Space(ctx, "/export")
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("%d of %d bytes free, %v", free, total, err)
	}
	for i := range 2000 {
		put(t, s.Path(fmt.Sprintf("many-%0100d", i)), nil)
	}
	if entries, err := tree.List(ctx, "/export"); err != nil || len(entries) != 2003 { // and disk.img, c, link
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if err := tree.Remove(ctx, "/export/c"); err != nil {
		t.Error(err)
	}
}

// Paths in the export and outside.
func TestGaneshaExports(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	for path, ok := range map[string]bool{"/export": true, "/export/sub/x.img": true, "/elsewhere/x.img": false} {
		cfg := ganeshaConfig(s, s.Port)
		cfg.Path = path
		c, err := Dial(t.Context(), cfg)
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

// The server is killed and its connections are cut, again and again, under load, and
// nothing that was acknowledged is lost.
func TestGaneshaDiesAndConnectionsBreak(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	proxy := lab.CutAt(t, s.Host, s.Addr())
	var port int
	if _, err := fmt.Sscanf(proxy.Addr(), s.Host+":%d", &port); err != nil {
		t.Fatal(err)
	}
	put(t, s.Path("disk.img"), make([]byte, 16<<20))
	c := dialTest(t, ganeshaConfig(s, port))
	j := &journal{writes: map[int64][]byte{}}
	f := openGanesha(t, c, remote.OpenOptions{Write: true, Kept: j})
	const rounds = 20
	steps, stop := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				off := int64(w)<<20 + int64(i%100)*4096
				p, q := pattern(4096, byte(i)), make([]byte, 4096)
				j.writing(p, off)
				written, err := f.Write(context.Background(), p, off, i%50 == 0)
				if err != nil {
					t.Errorf("write: %v", err)
				}
				if !written.Durable {
					j.wrote(written)
				}
				if n, err := f.Read(context.Background(), q, off); err != nil || !bytes.Equal(p, q[:n]) {
					t.Errorf("read: other bytes, %v", err)
				}
				select {
				case <-stop:
					return
				case steps <- struct{}{}:
				}
			}
		})
	}
	for i := range rounds {
		for range 200 {
			<-steps
		}
		switch {
		case i%5 == 4:
			s.Restart()
		case i%2 == 0:
			proxy.CutAll(lab.RST)
		default:
			proxy.CutAll(lab.FIN)
		}
	}
	for range 200 {
		<-steps
	}
	close(stop)
	all.Wait()
	if st := c.Status(); st.Losses < rounds || st.Recoveries == 0 || j.restored == 0 {
		t.Errorf("status %+v, restored %d times", st, j.restored)
	}
}

// Names are made and taken away while the connections break.
func TestGaneshaNamesUnderCuts(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{V3: true})
	proxy := lab.CutAt(t, s.Host, s.Addr())
	var port int
	if _, err := fmt.Sscanf(proxy.Addr(), s.Host+":%d", &port); err != nil {
		t.Fatal(err)
	}
	cfg := ganeshaConfig(s, port)
	cfg.Path = "/export"
	c := dialTest(t, cfg)
	ctx, tree := t.Context(), c.Tree()
	var all sync.WaitGroup
	steps := make(chan struct{}, 1000)
	for w := range 4 {
		all.Go(func() {
			for i := range 50 {
				a, b := fmt.Sprintf("/export/a-%d-%d", w, i), fmt.Sprintf("/export/b-%d-%d", w, i)
				for _, err := range []error{
					tree.Create(ctx, a, remote.SetAttr{}), tree.Link(ctx, a, b), tree.Remove(ctx, a), tree.Rename(ctx, b, a), tree.Remove(ctx, a),
				} {
					if err != nil {
						t.Errorf("%s: %v", a, err)
					}
				}
				steps <- struct{}{}
			}
		})
	}
	for i := range 200 {
		<-steps
		if i%5 == 0 {
			proxy.CutAll(lab.RST)
		}
	}
	all.Wait()
	if entries, err := tree.List(ctx, "/export"); err != nil || len(entries) != 0 {
		t.Errorf("%d names are left, %v", len(entries), err)
	}
}
