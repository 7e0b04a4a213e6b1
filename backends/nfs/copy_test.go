package nfs

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"sluice/backends/nfs/nfsstat"
	"sluice/block"
	"sluice/imagecopy"
)

// pair gives a server with an image of random bytes and an empty one of the same size,
// open through one client.
func pair(t *testing.T, shape func(*server)) (s *server, src, dst *Device, content []byte) {
	t.Helper()
	s = newServer()
	shape(s)
	content = make([]byte, 1<<20)
	for i := range 512 << 10 {
		content[i] = byte(rand.Uint32())
	}
	s.file(image, bytes.Clone(content))
	s.file("/images/b.img", make([]byte, 1<<20))
	p := s.pool()
	for _, d := range []struct {
		dev  **Device
		path string
	}{{&src, image}, {&dst, "/images/b.img"}} {
		var err error
		if *d.dev, err = open(background, p, config(t, "nfs://filer"+d.path), block.OpenOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeAll(t, (*d.dev).Close) })
	}
	return s, src, dst, content
}

// survived asserts what a crash of the server leaves of b.img.
func survived(t *testing.T, s *server, want []byte) {
	t.Helper()
	s.forget()
	got := make([]byte, len(want))
	if err := s.nodes["/images/b.img"].data.ReadAt(background, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is not durable, or wrong (%v)", err)
	}
}

func TestCopyInsideTheServer(t *testing.T) {
	refuse := func(ops ...string) func(*server) {
		return func(s *server) {
			s.on = func(op string) error {
				for _, o := range ops {
					if op == o {
						return refusal(op, nfsstat.NotSupp)
					}
				}
				return nil
			}
		}
	}
	for name, c := range map[string]struct {
		shape  func(*server)
		writes bool
	}{
		"clone":   {func(*server) {}, false},
		"copy":    {refuse("CLONE", "WRITE"), false},
		"pieces":  {func(s *server) { refuse("CLONE", "WRITE")(s); s.short = 100_000 }, false},
		"neither": {refuse("CLONE", "COPY"), true},
	} {
		t.Run(name, func(t *testing.T) {
			s, src, dst, content := pair(t, c.shape)
			var told atomic.Int64
			result, err := imagecopy.Copy(background, dst, src, imagecopy.Options{Progress: func(n int64) { told.Add(n) }})
			if err != nil || result.Copied() != 1<<20 || told.Load() != 1<<20 || !result.Begun {
				t.Error(result, err, told.Load())
			}
			if (s.counted(&s.writeCalls) > 0) != c.writes {
				t.Errorf("%d WRITEs", s.writeCalls)
			}
			survived(t, s, content)
		})
	}
}

// TestACopyHidesOlderWrites: what was written before the copy is not written over it
// when the server loses things.
func TestACopyHidesOlderWrites(t *testing.T) {
	s, src, dst, content := pair(t, func(*server) {})
	if err := dst.WriteAt(background, fill(9, 1<<19), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := dst.CloneRange(background, src, 0, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	flush(t, dst)
	survived(t, s, content)
}

// TestALossDuringACopy: the server restarts between the copy and its COMMIT.
func TestALossDuringACopy(t *testing.T) {
	s, src, dst, content := pair(t, func(*server) {})
	var once atomic.Bool
	s.on = func(op string) error {
		if op == "COMMIT" && once.CompareAndSwap(false, true) {
			return s.restart()
		}
		return nil
	}
	if err := dst.WriteAt(background, fill(9, 4096), 0, 0); err != nil { // the verifier is known
		t.Fatal(err)
	}
	if err := dst.CloneRange(background, src, 0, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	flush(t, dst)
	survived(t, s, content)
}

func TestStrangersAreNotCopied(t *testing.T) {
	_, src, dst, _ := pair(t, func(*server) {})
	_, other := fresh(t, "")
	for _, from := range []block.Device{other, dst, struct{ block.Device }{src}} {
		_, err := dst.CopyRange(background, from, 0, 4096, 4096)
		if block.KindOf(err) != block.Unsupported {
			t.Error(err)
		}
		if err := dst.CloneRange(background, from, 0, 4096, 4096); block.KindOf(err) != block.Unsupported {
			t.Error(err)
		}
	}
	for _, r := range [][3]int64{{1 << 20, 0, 1}, {0, 1 << 20, 1}, {-1, 0, 1}, {0, 0, -1}} {
		if _, err := dst.CopyRange(background, src, r[0], r[1], r[2]); block.KindOf(err) != block.OutOfRange {
			t.Errorf("%v: %v", r, err)
		}
	}
	if n, err := dst.CopyRange(background, src, 0, 0, 0); n != 0 || err != nil {
		t.Error(n, err)
	}
}
