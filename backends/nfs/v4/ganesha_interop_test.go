//go:build interop

package v4

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

func dialGanesha(t *testing.T, s *lab.NFSServer, port int, change func(*Config)) *Client {
	t.Helper()
	cfg := Config{Host: s.Host, Port: port, Minor: 2, Connections: 2, Cred: rpc.ProcessCred(), Patience: 60 * time.Second, Silence: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
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

// Both minor versions against nfs-ganesha, whose folder tells what really happened.
func TestGanesha(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{})
	for _, minor := range []uint32{2, 1} {
		t.Run(fmt.Sprintf("4.%d", minor), func(t *testing.T) {
			c := dialGanesha(t, s, s.Port, func(cfg *Config) { cfg.Minor, cfg.Only = minor, true })
			if got, want := c.Status().Version, fmt.Sprintf("4.%d", minor); got != want {
				t.Fatalf("version %s, want %s", got, want)
			}
			put(t, s.Path("disk.img"), make([]byte, 1<<20))
			f := openGanesha(t, c, remote.OpenOptions{Write: true})
			p := pattern(200<<10, byte(minor))
			if w, err := f.Write(t.Context(), p, 4096, false); err != nil || w.N != len(p) {
				t.Fatal(w, err)
			}
			if _, err := f.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			local, err := os.ReadFile(s.Path("disk.img"))
			if err != nil || !bytes.Equal(local[4096:4096+len(p)], p) {
				t.Errorf("the folder holds other bytes, %v", err)
			}
			if l := f.Limits(); l.Seek != (minor == 2) || l.Read != 1<<20 {
				t.Errorf("limits %+v", l)
			}
			if _, err := c.Open(t.Context(), "/export/disk.img", remote.OpenOptions{Write: true}); !errors.Is(err, block.Busy) {
				t.Errorf("a second writer: %v", err)
			}
			l, err := f.Lock(t.Context(), 0, 512, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
			namesOnGanesha(t, c.Tree(), s)
		})
	}
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
	entries, err := tree.List(ctx, "/export")
	if err != nil || len(entries) != 2 { // disk.img and c
		t.Errorf("%d entries, %v", len(entries), err)
	}
	total, free, err := tree.(remote.TreeSetter).Space(ctx, "/export")
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("%d of %d bytes free, %v", free, total, err)
	}
	if err := tree.Remove(ctx, "/export/c"); err != nil {
		t.Error(err)
	}
	for i := range 300 {
		put(t, s.Path(fmt.Sprintf("many-%03d", i)), nil)
	}
	if entries, err := tree.List(ctx, "/export"); err != nil || len(entries) != 301 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	for i := range 300 {
		if err := os.Remove(s.Path(fmt.Sprintf("many-%03d", i))); err != nil {
			t.Error(err)
		}
	}
}

func TestGaneshaHoles(t *testing.T) {
	s := lab.NFS(t, lab.NFSConfig{})
	put(t, s.Path("disk.img"), pattern(64<<10, 1))
	if err := os.Truncate(s.Path("disk.img"), 1<<20); err != nil {
		t.Fatal(err)
	}
	f := openGanesha(t, dialGanesha(t, s, s.Port, nil), remote.OpenOptions{Write: true})
	ctx := t.Context()
	if at, _, err := f.Seek(ctx, 0, true); err != nil || at != 64<<10 {
		t.Errorf("first hole at %d, %v", at, err)
	}
	if _, end, err := f.Seek(ctx, 64<<10, false); err != nil || !end {
		t.Errorf("data after the last: end %v, %v", end, err)
	}
	if err := f.Deallocate(ctx, 0, 32<<10); err != nil {
		t.Error(err)
	}
	if at, _, err := f.Seek(ctx, 0, false); err != nil || at != 32<<10 {
		t.Errorf("first data at %d, %v", at, err)
	}
	if err := f.Allocate(ctx, 512<<10, 64<<10); err != nil {
		t.Error(err)
	}
	if err := f.Clone(ctx, f, 0, 128<<10, 4096); !errors.Is(err, block.Unsupported) {
		t.Errorf("nfs-ganesha's CLONE: %v, want Unsupported", err)
	}
}

// The server is killed and its connections are cut, again and again, under load.
func TestGaneshaDiesAndConnectionsBreak(t *testing.T) {
	for name, grace := range map[string]int{"at once": 0, "grace": 5} {
		t.Run(name, func(t *testing.T) {
			s := lab.NFS(t, lab.NFSConfig{Grace: time.Duration(grace) * time.Second})
			proxy := lab.CutAt(t, s.Host, s.Addr())
			var port int
			if _, err := fmt.Sscanf(proxy.Addr(), s.Host+":%d", &port); err != nil {
				t.Fatal(err)
			}
			put(t, s.Path("disk.img"), make([]byte, 16<<20))
			c := dialGanesha(t, s, port, nil)
			f := openGanesha(t, c, remote.OpenOptions{Write: true})
			load := startLoad(t, f)
			rounds := 20
			if grace > 0 {
				rounds = 5
			}
			for i := range rounds {
				load.await(200)
				switch {
				case i%5 == 4:
					s.Restart()
				case i%2 == 0:
					proxy.CutAll(lab.RST)
				default:
					proxy.CutAll(lab.FIN)
				}
			}
			load.await(200)
			load.end()
			if st := c.Status(); st.Losses < uint64(rounds) || st.Recoveries == 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// load writes and reads back at eight places.
type load struct {
	t    *testing.T
	step chan struct{}
	stop chan struct{}
	all  sync.WaitGroup
}

func startLoad(t *testing.T, f *File) *load {
	l := &load{t: t, step: make(chan struct{}), stop: make(chan struct{})}
	for w := range 8 {
		l.all.Go(func() {
			for i := 0; ; i++ {
				off := int64(w)<<20 + int64(i%200)*4096
				p, q := pattern(4096, byte(i)), make([]byte, 4096)
				if _, err := f.Write(context.Background(), p, off, i%50 == 0); err != nil {
					t.Errorf("write: %v", err)
				}
				if n, err := f.Read(context.Background(), q, off); err != nil || !bytes.Equal(p, q[:n]) {
					t.Errorf("read: other bytes, %v", err)
				}
				select {
				case <-l.stop:
					return
				case l.step <- struct{}{}:
				}
			}
		})
	}
	return l
}

// await lets so many steps be done.
func (l *load) await(n int) {
	for range n {
		<-l.step
	}
}

func (l *load) end() {
	close(l.stop)
	l.all.Wait()
}
