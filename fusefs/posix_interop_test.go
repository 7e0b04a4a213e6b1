//go:build interop

package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/internal/lab"
)

func TestAttributes(t *testing.T) {
	fs := mounted(t)
	at := time.Unix(1_700_000_000, 5)
	path := add(t, fs, File{Name: "a", Device: memDevice(t, "3M"), ID: 77, Modified: at, UID: 5, GID: 6,
		Xattrs: map[string]string{"user.sluice.format": "raw", "user.sluice.url": "mem://3M"}})
	ro := add(t, fs, File{Name: "ro", Device: memDevice(t, "1M"), ReadOnly: true})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Ino != 77 || st.Size != 3<<20 || st.Mode != unix.S_IFREG|0o600 || st.Nlink != 1 || st.Uid != 5 || st.Gid != 6 ||
		st.Blocks != 6144 || st.Mtim.Nano() != at.UnixNano() {
		t.Errorf("stat: %+v", st)
	}
	var sf unix.Statfs_t
	if err := unix.Statfs(fs.Dir(), &sf); err != nil || int64(sf.Blocks)*sf.Bsize != 4<<20 || sf.Bfree != 0 {
		t.Errorf("statfs: %+v, %v", sf, err)
	}
	buf := make([]byte, 100)
	if n, err := unix.Getxattr(path, "user.sluice.format", buf); err != nil || string(buf[:n]) != "raw" {
		t.Errorf("getxattr: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Listxattr(path, buf); err != nil || string(buf[:n]) != "user.sluice.format\x00user.sluice.url\x00" {
		t.Errorf("listxattr: %q, %v", buf[:max(n, 0)], err)
	}
	other := filepath.Join(fs.Dir(), "other")
	for what, c := range map[string]struct{ got, want error }{
		"no such attribute": {second(unix.Getxattr(path, "user.none", buf)), unix.ENODATA},
		"setxattr":          {unix.Setxattr(path, "user.x", buf[:1], 0), unix.EPERM},
		"removexattr":       {unix.Removexattr(path, "user.sluice.url"), unix.EPERM},
		"create":            {second(unix.Open(other, unix.O_CREAT|unix.O_RDWR, 0o600)), unix.EPERM},
		"mkdir":             {unix.Mkdir(other, 0o700), unix.EPERM},
		"unlink":            {unix.Unlink(path), unix.EPERM},
		"rename":            {unix.Rename(path, other), unix.EPERM},
		"link":              {unix.Link(path, other), unix.EPERM},
		"symlink":           {unix.Symlink("x", other), unix.EPERM},
		"shrink":            {unix.Truncate(path, 5), unix.EPERM},
		"same size":         {unix.Truncate(path, 3<<20), nil},
		"chmod":             {unix.Chmod(path, 0o644), unix.EPERM},
		"write read-only":   {second(unix.Open(ro, unix.O_RDWR, 0)), unix.EROFS},
		"absent":            {unix.Stat(other, &st), unix.ENOENT},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	if entries, err := os.ReadDir(fs.Dir()); err != nil || len(entries) != 2 || entries[0].Name() != "a" || entries[1].Name() != "ro" {
		t.Errorf("readdir: %v, %v", entries, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestHolesAndZeroes(t *testing.T) {
	fs := mounted(t)
	d, _ := localDevice(t, 8<<20)
	path := add(t, fs, File{Name: "disk", Device: d})
	f := opened(t, path, os.O_RDWR)
	fd := int(f.Fd())
	seek := func(off int64, whence int, want int64, wantErr error) {
		t.Helper()
		if at, err := unix.Seek(fd, off, whence); !errors.Is(err, wantErr) || err == nil && at != want {
			t.Errorf("seek %d from %d: %d, %v, want %d, %v", whence, off, at, err, want, wantErr)
		}
	}
	seek(0, unix.SEEK_DATA, 0, unix.ENXIO)
	if _, err := f.WriteAt(random(1<<20), 2<<20); err != nil {
		t.Fatal(err)
	}
	seek(0, unix.SEEK_DATA, 2<<20, nil)
	seek(0, unix.SEEK_HOLE, 0, nil)
	seek(2<<20, unix.SEEK_HOLE, 3<<20, nil)
	seek(3<<20, unix.SEEK_DATA, 0, unix.ENXIO)
	seek(8<<20, unix.SEEK_HOLE, 0, unix.ENXIO)
	const punch, keep, zero = unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE
	for _, c := range []struct {
		mode   uint32
		off, n int64
		want   error
	}{
		{punch | keep, 2<<20 + 4096, 8192, nil}, {zero, 2<<20 + 65536, 100, nil}, {zero | keep, 7 << 20, 4 << 20, nil},
		{punch | keep, 7 << 20, 4 << 20, nil}, {0, 0, 8 << 20, nil}, {0, 0, 9 << 20, unix.ENOSPC}, {zero, 7 << 20, 4 << 20, unix.ENOSPC},
		{unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096, unix.EOPNOTSUPP},
	} {
		if err := unix.Fallocate(fd, c.mode, c.off, c.n); !errors.Is(err, c.want) {
			t.Errorf("fallocate %d: %v, want %v", c.mode, err, c.want)
		}
	}
	want := random(1 << 20)
	clear(want[4096 : 4096+8192])
	clear(want[65536 : 65536+100])
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, 2<<20); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after fallocate: %v, equal %v", err, bytes.Equal(got, want))
	}
	seek(2<<20+4096, unix.SEEK_DATA, 2<<20+4096+8192, nil)
}

// The client that maps a file is a process of its own: a page fault holds a thread
// that runs goroutines, and the server may need it.

func init() { asProcess["mapper"] = mapperProcess }

func mapperProcess() error {
	f, err := os.OpenFile(os.Getenv(writerFileVar), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	m, err := unix.Mmap(int(f.Fd()), 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(m) }()
	want, got := random(1<<20), make([]byte, 1<<20)
	copy(m[1<<20:], want)
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	if _, err := f.WriteAt(want, 0); err != nil || !bytes.Equal(m[:1<<20], want) {
		return fmt.Errorf("the mapping after a write: %w, equal %v", err, bytes.Equal(m[:1<<20], want))
	}
	g, err := os.OpenFile(f.Name(), os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	if _, err := g.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("O_DIRECT: %w, equal %v", err, bytes.Equal(got, want))
	}
	return nil
}

func TestMapAndDirectSeeTheSameBytes(t *testing.T) {
	fs := mounted(t)
	d, _ := localDevice(t, 4<<20)
	t.Setenv(asProcessVar, "mapper")
	t.Setenv(writerFileVar, add(t, fs, File{Name: "disk", Device: d}))
	lab.Run(t, os.Args[0])
	want, got := random(1<<20), make([]byte, 2<<20)
	if err := d.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got[:1<<20], want) || !bytes.Equal(got[1<<20:], want) {
		t.Errorf("the device: %v, or other bytes", err)
	}
}

func TestCopyFileRange(t *testing.T) {
	fs := mounted(t)
	d, _ := localDevice(t, 8<<20)
	from := opened(t, add(t, fs, File{Name: "from", Device: d}), os.O_RDWR)
	to := opened(t, add(t, fs, File{Name: "to", Device: memDevice(t, "8M")}), os.O_RDWR)
	want := make([]byte, 8<<20)
	copy(want[3<<20:], random(2<<20+77))
	if _, err := from.WriteAt(want[3<<20:5<<20+77], 3<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := to.WriteAt(random(8<<20), 0); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < 8<<20; {
		in, out := off, off
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, 8<<20-int(off), 0)
		if err != nil || n == 0 {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
		off += int64(n)
	}
	got := make([]byte, 8<<20)
	if _, err := to.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, want))
	}
}

// A device that hangs, with as many clients as there may be, does not delay
// another one: neither before nor after its places are taken.
func TestHangingDeviceDelaysNobody(t *testing.T) {
	fs := mounted(t, func(c *Config) { c.Workers = 16 })
	slow := newScripted(1 << 20)
	hold := make(chan struct{})
	slow.set(nil, hold)
	stuck := opened(t, add(t, fs, File{Name: "slow", Device: slow}), os.O_RDWR)
	quick := opened(t, add(t, fs, File{Name: "quick", Device: memDevice(t, "1M")}), os.O_RDWR)
	var clients sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 64 {
		clients.Go(func() {
			p := make([]byte, 4096)
			if i%2 == 0 {
				errs <- second(stuck.ReadAt(p, int64(i)*4096))
			} else {
				errs <- second(stuck.WriteAt(p, int64(i)*4096))
			}
		})
	}
	for range 16 {
		<-slow.calls
	}
	longest := time.Duration(0)
	p := make([]byte, 65536)
	for i := range 500 {
		start := time.Now()
		_, err := quick.ReadAt(p[:4096<<(i%5)], 0)
		if _, err2 := quick.WriteAt(p, 4096); err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		longest = max(longest, time.Since(start))
	}
	t.Logf("longest read and write beside 64 hanging requests: %v", longest)
	if longest > 20*time.Second {
		t.Errorf("%v", longest)
	}
	if n := fs.tree.named("slow").gate.Inside(); n < 16 || len(slow.calls) != 0 {
		t.Errorf("%d requests inside, %d calls beyond the bound", n, len(slow.calls))
	}
	close(hold)
	clients.Wait()
	for range 64 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	fs := mounted(t)
	d := newScripted(1 << 20)
	f := opened(t, add(t, fs, File{Name: "bad", Device: d}), os.O_RDWR)
	p := make([]byte, 4096)
	for kind := block.OK + 1; kind < block.Canceled; kind++ {
		d.set(block.Errorf(kind, "do", "it", 0, ""), nil)
		for what, err := range map[string]error{
			"read": second(f.ReadAt(p, 0)), "write": second(f.WriteAt(p, 0)), "fsync": f.Sync(),
			"punch": unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096),
		} {
			if !errors.Is(err, kind.Errno()) {
				t.Errorf("%v: %s: %v, want %v", kind, what, err, kind.Errno())
			}
		}
	}
	g, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err == nil {
		t.Error("close lost the error of the flush")
	}
	d.set(nil, nil)
}

func TestDurableWritesAreFlushed(t *testing.T) {
	fs := mounted(t)
	d := newScripted(1 << 20)
	f := opened(t, add(t, fs, File{Name: "disk", Device: d}), os.O_RDWR|syscall.O_DSYNC)
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if a, b := <-d.calls, <-d.calls; a != "write" || b != "flush" {
		t.Errorf("an O_DSYNC write became %s, %s", a, b)
	}
	for what, sync := range map[string]func(int) error{"fsync": unix.Fsync, "fdatasync": unix.Fdatasync} {
		if err := sync(int(f.Fd())); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		select {
		case call := <-d.calls:
			if call != "flush" {
				t.Errorf("%s became %s", what, call)
			}
		default:
			t.Errorf("%s did not reach the device", what)
		}
		d.set(block.Errorf(block.IO, "flush", "disk", -1, "lost"), nil)
		if err := sync(int(f.Fd())); !errors.Is(err, unix.EIO) {
			t.Errorf("%s of a device that cannot: %v", what, err)
		}
		<-d.calls
		d.set(nil, nil)
	}
}

func TestRemove(t *testing.T) {
	fs := mounted(t)
	d := newScripted(1 << 20)
	path := add(t, fs, File{Name: "disk", Device: d})
	if err := fs.Add(File{Name: "disk", Device: d}); block.KindOf(err) != block.Exists {
		t.Errorf("added twice: %v", err)
	}
	f := opened(t, path, os.O_RDWR)
	if n, err := fs.OpenCount("disk"); n != 1 || err != nil {
		t.Errorf("open %d times, %v", n, err)
	}
	if err := fs.Remove(ctx, "disk", false); block.KindOf(err) != block.Busy {
		t.Errorf("removed while open: %v", err)
	}
	d.set(nil, make(chan struct{})) // ends with the file
	read := make(chan error)
	go func() { read <- second(f.ReadAt(make([]byte, 4096), 0)) }()
	<-d.calls
	if err := fs.Remove(ctx, "disk", true); err != nil {
		t.Error(err)
	}
	if err := <-read; !errors.Is(err, unix.EIO) {
		t.Errorf("the read in flight: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 4096), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a later read: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := fs.Remove(ctx, "disk", true); block.KindOf(err) != block.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestCloseWhileInUse(t *testing.T) {
	fs := mounted(t)
	f := opened(t, add(t, fs, File{Name: "disk", Device: memDevice(t, "1M")}), os.O_RDWR)
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	<-fs.Done()
	if _, err := f.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a read after Close succeeded")
	}
	if entries, err := os.ReadDir(fs.Dir()); err != nil || len(entries) > 0 {
		t.Errorf("the folder afterwards: %v, %v", entries, err)
	}
}

func TestResized(t *testing.T) {
	fs := mounted(t)
	d, _ := localDevice(t, 1<<20)
	f := opened(t, add(t, fs, File{Name: "disk", Device: d}), os.O_RDWR)
	for _, size := range []int64{5 << 20, 2 << 20} {
		if err := block.Resolve(d).Resizer.Resize(ctx, size); err != nil {
			t.Fatal(err)
		}
		if err := fs.Resized("disk"); err != nil {
			t.Fatal(err)
		}
		if end, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END); end != size || err != nil {
			t.Errorf("the open file ends at %d, want %d: %v", end, size, err)
		}
		if n, err := unix.Pread(int(f.Fd()), make([]byte, 4096), size-100); n != 100 || err != nil {
			t.Errorf("at its end: %d, %v", n, err)
		}
	}
}

func TestThousandFiles(t *testing.T) {
	fs := mounted(t)
	d := memDevice(t, "1M")
	start := time.Now()
	for i := range 1000 {
		add(t, fs, File{Name: fmt.Sprint("disk", i), Device: d})
	}
	if entries, err := os.ReadDir(fs.Dir()); err != nil || len(entries) != 1000 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	for i := range 1000 {
		if err := fs.Remove(ctx, fmt.Sprint("disk", i), false); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("added, listed and removed within %v", time.Since(start))
	if entries, err := os.ReadDir(fs.Dir()); err != nil || len(entries) != 0 {
		t.Errorf("%d entries left, %v", len(entries), err)
	}
}

func TestPassthrough(t *testing.T) {
	d, local := localDevice(t, 1<<20) // before the mount: it is closed after it, which has a hold of it
	fs := mounted(t)
	path := add(t, fs, File{Name: "disk", Device: d, Passthrough: true})
	add(t, fs, File{Name: "ram", Device: memDevice(t, "1M"), Passthrough: true})
	if !fs.Passthrough("disk") || fs.Passthrough("ram") {
		t.Fatalf("passthrough: disk %v, ram %v", fs.Passthrough("disk"), fs.Passthrough("ram"))
	}
	f := opened(t, path, os.O_RDWR)
	want := random(100_000)
	if _, err := f.WriteAt(want, 5000); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(local)
	if err != nil || !bytes.Equal(got[5000:105_000], want) {
		t.Errorf("the local file: %v", err)
	}
	if err := fs.Remove(ctx, "disk", true); block.KindOf(err) != block.Busy || !strings.Contains(err.Error(), "it is open") {
		t.Errorf("removed by force while open: %v", err)
	}
}

func TestQemuLocksTheFile(t *testing.T) {
	lab.Need(t, "qemu-io", "qemu-img", "qemu-nbd", "qemu-system-x86_64")
	fs := mounted(t)
	d, local := localDevice(t, 8<<20)
	path := add(t, fs, File{Name: "disk", Device: d})
	vm := []string{"-S", "-nodefaults", "-display", "none", "-qmp", "stdio", "-drive", "if=virtio,format=raw,file=" + path}
	pid := filepath.Join(t.TempDir(), "pid") // made when the image is open and locked
	holder := lab.Start(t, "qemu-nbd", "--persistent", "--format=raw", "--pid-file="+pid, "--socket="+lab.Socket(t), path)
	holder.Until("it serves", func() bool { return second(os.Stat(pid)) == nil })
	rival := lab.Start(t, "qemu-system-x86_64", vm...) // shares with no other writer
	if err := rival.Wait(); err == nil || !strings.Contains(rival.Output(), "lock") {
		t.Errorf("a second writer: %v: %s", err, rival.Output())
	}
	holder.Kill9()
	lab.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M", "-c", "flush", path)
	lab.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path, local)
	lab.Run(t, "qemu-img", "map", "--output=json", "-f", "raw", path)
}

func TestFioVerifies(t *testing.T) {
	lab.Need(t, "fio")
	fs := mounted(t)
	d, _ := localDevice(t, 32<<20)
	path := add(t, fs, File{Name: "disk", Device: d})
	for _, how := range [][]string{
		{"--ioengine=libaio", "--direct=1", "--iodepth=16"}, {"--ioengine=psync"}, {"--ioengine=mmap"}, {"--ioengine=io_uring", "--direct=1", "--iodepth=16"},
	} {
		lab.Run(t, "fio", append(how, "--name=v", "--filename="+path, "--size=16M", "--rw=randwrite", "--bsrange=4k-64k",
			"--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--allow_file_create=0")...)
	}
}
