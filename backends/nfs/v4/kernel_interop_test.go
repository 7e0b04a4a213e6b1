//go:build interop

package v4

import (
	"bytes"
	"context"
	"testing"
	"time"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
	"sluice/internal/lab"
)

// The kernel's server has what nfs-ganesha lacks: CLONE and COPY, and memory that a
// power cut really loses.
func TestKernelServer(t *testing.T) {
	s := lab.KernelNFS(t, lab.KernelNFSConfig{})
	c, err := Dial(t.Context(), Config{
		Host: s.Host, Port: s.Port, Minor: 2, Connections: 2, Cred: rpc.ProcessCred(), Patience: 2 * time.Minute, Silence: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, size := t.Context(), int64(4<<20)
	open := func(name string, kept remote.Kept) *File {
		if err := c.Tree().Create(ctx, "/export/"+name, remote.SetAttr{Size: &size}); err != nil {
			t.Fatal(err)
		}
		f, err := c.Open(ctx, "/export/"+name, remote.OpenOptions{Write: true, Kept: kept})
		if err != nil {
			t.Fatal(err)
		}
		return f.(*File)
	}
	j := &journal{writes: map[int64][]byte{}}
	from, to := open("from", nil), open("to", j)
	defer func() { _, _ = from.Close(), to.Close() }()
	if l := to.Limits(); !l.Seek || !l.Allocate || !l.Copy {
		t.Errorf("limits %+v", l)
	}
	b := &bench{T: t, client: c}
	p := pattern(256<<10, 7)
	for off := int64(0); off < 1<<20; off += int64(len(p)) {
		b.write(from, p, off, true)
	}
	if err := to.Clone(ctx, from, 0, 0, 1<<20); err != nil {
		t.Errorf("CLONE: %v", err)
	}
	n, _, err := to.Copy(ctx, from, 0, 2<<20, 1<<20)
	if err != nil || n == 0 {
		t.Fatalf("COPY of %d bytes: %v", n, err)
	}
	if _, err := to.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 2 << 20} {
		if got := b.read(to, off, len(p)); !bytes.Equal(got, p) {
			t.Errorf("other bytes at %d", off)
		}
	}
	if at, _, err := to.Seek(ctx, 3<<20, true); err != nil || at != 3<<20 {
		t.Errorf("first hole at %d, %v", at, err)
	}
	losePower(b, s, to, j)
}

// losePower writes, cuts the server's power before it has anything on its disk, and
// reads all of it back.
func losePower(b *bench, s *lab.KernelNFSServer, f *File, j *journal) {
	b.Helper()
	want := map[int64][]byte{}
	for i := range int64(16) {
		off, p := 3<<20+i*8192, pattern(4096, byte(i))
		want[off] = p
		j.writing(p, off)
		j.wrote(b.write(f, p, off, false))
	}
	s.Kill()
	s.Start()
	for off, p := range want {
		got := make([]byte, len(p))
		if n, err := f.Read(context.Background(), got, off); err != nil || !bytes.Equal(got[:n], p) {
			b.Errorf("what was written at %d is lost, %v", off, err)
		}
	}
	if j.restored == 0 {
		b.Error("nothing was written again")
	}
}
