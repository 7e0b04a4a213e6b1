package fsxtest

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fresh makes a file of a size with random bytes in its first half, and says where the plain file goes.
func fresh(t *testing.T, size int64) (path, plain string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "file")
	data := make([]byte, size/2)
	if _, err := rand.NewChaCha8([32]byte{}).Read(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path, filepath.Join(dir, "plain")
}

// A file of a file system that works passes.
func TestPlainFilePasses(t *testing.T) {
	path, plain := fresh(t, 8<<20)
	Run(t, Config{Path: path, Plain: plain, Ops: 10_000, Seed: 1})
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(plain)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the files differ: %v", err)
	}
}

// broken is a file system with a mistake: wrong does one of the operations.
type broken struct {
	*file
	wrong func(d *file, op Op, buf []byte) (n int, at int64, err error, done bool)
}

func (d broken) do(op Op, buf []byte) (int, int64, error) {
	if n, at, err, done := d.wrong(d.file, op, buf); done {
		return n, at, err
	}
	return d.file.do(op, buf)
}

// every lets a mistake happen at every nth operation of a sort.
func every(n int, of func(Op) bool, mistake func(d *file, op Op, buf []byte) (int, int64, error)) func(*file, Op, []byte) (int, int64, error, bool) {
	count := 0
	return func(d *file, op Op, buf []byte) (int, int64, error, bool) {
		if !of(op) {
			return 0, 0, nil, false
		}
		if count++; count%n != 0 {
			return 0, 0, nil, false
		}
		got, at, err := mistake(d, op, buf)
		return got, at, err, true
	}
}

func is(kind Kind) func(Op) bool { return func(op Op) bool { return op.Kind == kind } }

// longer is is for operations of more than a few bytes.
func longer(kind Kind, than int64) func(Op) bool {
	return func(op Op) bool { return op.Kind == kind && op.Len > than }
}

// mistakes are what file systems have got wrong, most of them now and then.
var mistakes = map[string]func(*file, Op, []byte) (int, int64, error, bool){
	"a write is lost": every(50, longer(Write, 100), func(_ *file, _ Op, buf []byte) (int, int64, error) { return len(buf), 0, nil }),
	"a direct write is lost": every(50, is(DirectWrite), func(_ *file, _ Op, buf []byte) (int, int64, error) {
		return len(buf), 0, nil
	}),
	"a write is torn": every(50, longer(Write, 600), func(d *file, op Op, buf []byte) (int, int64, error) {
		_, err := d.f.WriteAt(buf[:len(buf)-512], op.Off)
		return len(buf), 0, err
	}),
	"a write goes one byte too far": every(50, func(op Op) bool { return op.Kind == Write && op.Off+op.Len < 2<<20 },
		func(d *file, op Op, buf []byte) (int, int64, error) {
			n, err := d.f.WriteAt(append(slices.Clone(buf), 'x'), op.Off)
			return n - 1, 0, err
		}),
	"a mapped write is lost": every(20, longer(MapWrite, 100), func(_ *file, _ Op, buf []byte) (int, int64, error) {
		return len(buf), 0, nil
	}),
	"a read is stale": every(50, longer(Read, 100), func(d *file, op Op, buf []byte) (int, int64, error) {
		n, at, err := d.do(op, buf)
		buf[n/2] ^= 1
		return n, at, err
	}),
	"a read is short": every(50, longer(DirectRead, 100), func(d *file, op Op, buf []byte) (int, int64, error) {
		n, at, err := d.do(op, buf)
		return n - 1, at, err
	}),
	"a hole is not punched": every(20, longer(Punch, 1000), func(*file, Op, []byte) (int, int64, error) { return 0, 0, nil }),
	"a hole is rounded to blocks": every(20, func(op Op) bool { return op.Kind == Punch && op.Off%4096 > 100 && op.Len > 8192 },
		func(d *file, op Op, buf []byte) (int, int64, error) {
			op.Len, op.Off = op.Len+op.Off%4096, op.Off/4096*4096
			return d.do(op, buf)
		}),
	"zeroing stops early": every(20, longer(Zero, 1000), func(d *file, op Op, buf []byte) (int, int64, error) {
		op.Len -= 100
		return d.do(op, buf)
	}),
	"allocation clears": every(10, longer(Allocate, 1000), func(d *file, op Op, buf []byte) (int, int64, error) {
		op.Kind = Zero
		return d.do(op, buf)
	}),
	"a copy has the wrong source": every(10, func(op Op) bool { return op.Kind == Copy && op.Len > 100 && op.Off > 0 },
		func(d *file, op Op, buf []byte) (int, int64, error) {
			op.Off--
			return d.do(op, buf)
		}),
	"data are taken for a hole": func(d *file, op Op, _ []byte) (int, int64, error, bool) {
		return 0, d.size, nil, op.Kind == SeekData
	},
	"a hole is said to be in data": func(d *file, op Op, _ []byte) (int, int64, error, bool) {
		return 0, op.Off, nil, op.Kind == SeekHole
	},
	"reopening goes back": every(5, is(Reopen), func(d *file, op Op, buf []byte) (int, int64, error) {
		if _, err := d.f.WriteAt(make([]byte, 64<<10), d.size/2); err != nil {
			return 0, 0, err
		}
		return d.do(op, buf)
	}),
}

var explanation = regexp.MustCompile(`(?s)^fsx: \S+: seed 3, after operation \d+: .+` +
	`last operations \(kind, offset, length, target, data, waits\):\n +\d+ [a-z]+ \d+ \d+ \d+ 0x[0-9a-f]+ (true|false)\n.+repeat it with FSXTEST_SEED=3$`)

// Every mistake is found, and told such that one can do it again.
func TestMistakesAreFound(t *testing.T) {
	for name, wrong := range mistakes {
		t.Run(name, func(t *testing.T) {
			path, plain := fresh(t, 4<<20)
			cfg := Config{Path: path, Plain: plain, Ops: 4000, Seed: 3}
			err := cfg.run(func(size int64) (disk, error) {
				f, err := openFile(path, size)
				return broken{f, wrong}, err
			})
			if err == nil {
				t.Fatal("it was not found")
			}
			if !explanation.MatchString(err.Error()) {
				t.Errorf("the explanation is\n%v", err)
			}
		})
	}
}

// The log of a failed run leads to the same failure, and the byte's history names the operation that was lost.
func TestReplay(t *testing.T) {
	lost := func() func(*file, Op, []byte) (int, int64, error, bool) {
		return every(30, longer(Write, 5000), func(_ *file, _ Op, buf []byte) (int, int64, error) { return len(buf), 0, nil })
	}
	attempt := func(cfg Config) error {
		t.Helper()
		cfg.Path, cfg.Plain = fresh(t, 4<<20)
		err := cfg.run(func(size int64) (disk, error) {
			f, err := openFile(cfg.Path, size)
			return broken{f, lost()}, err
		})
		if err == nil {
			t.Fatal("it was not found")
		}
		return err
	}
	log := filepath.Join(t.TempDir(), "log")
	first := attempt(Config{Ops: 4000, Seed: 9, Log: log})
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	ops, err := ReadLog(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	again := attempt(Config{Replay: ops, Seed: 9})
	without := func(err error) string { _, text, _ := strings.Cut(err.Error(), ": seed"); return text }
	if diff := cmp.Diff(without(first), without(again)); diff != "" {
		t.Errorf("another failure (-first +again):\n%s", diff)
	}
	if !strings.Contains(first.Error(), "operations that changed byte") {
		t.Errorf("the byte's history is missing:\n%v", first)
	}
}

func TestOpReadsWhatItWrites(t *testing.T) {
	for k := range Kind(kinds) {
		want := Op{Kind: k, Off: 12, Len: 1 << 20, To: 7, Data: 1<<63 + 5, Wait: k == MapWrite}
		if got, err := ParseOp(want.String()); err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
	for _, line := range []string{"", "read", "fly 1 2 3 0x4 true", "read x 2 3 0x4 true"} {
		if op, err := ParseOp(line); err == nil {
			t.Errorf("%q: %+v", line, op)
		}
	}
}

// Operations stay in the file, direct ones are aligned, and copies do not overlap.
func TestGenerator(t *testing.T) {
	const size, align = 1<<20 + 4096, 4096
	g := newGenerator(Config{Align: align, Without: []Kind{Zero, Reopen}}, size)
	var seen [kinds]int
	for range 20_000 {
		op := g.next()
		seen[op.Kind]++
		switch {
		case op.Off < 0 || op.Off >= size || op.Len < 0 || op.Kind != Read && op.Off+op.Len > size:
			t.Fatalf("outside: %s", op)
		case op.Kind == Copy && (op.To < 0 || op.To+op.Len > size || op.Len > 0 && op.To < op.Off+op.Len && op.Off < op.To+op.Len):
			t.Fatalf("copy onto itself: %s", op)
		case (op.Kind == DirectRead || op.Kind == DirectWrite) && (op.Off%align != 0 || op.Len%align != 0 || op.Len == 0):
			t.Fatalf("not aligned: %s", op)
		}
	}
	for k, n := range seen {
		if left := Kind(k) == Zero || Kind(k) == Reopen; left != (n == 0) {
			t.Errorf("%d times %s", n, Kind(k))
		}
	}
}

// Data differ from place to place and from operation to operation, and are the same whenever they are made.
func TestFill(t *testing.T) {
	a, b, c := make([]byte, 1000), make([]byte, 1000), make([]byte, 1000)
	Op{Data: 1}.fill(a)
	Op{Data: 2}.fill(b)
	Op{Data: 1}.fill(c)
	if !bytes.Equal(a, c) || bytes.Equal(a[:8], b[:8]) || bytes.Equal(a[:8], a[8:16]) || bytes.Equal(a[992:], make([]byte, 8)) {
		t.Errorf("% x\n% x", a[:16], b[:16])
	}
}

func TestRunRejects(t *testing.T) {
	for size, want := range map[int64]string{512 << 10: "too few", 1<<20 + 100: "no multiple of 512"} {
		path, plain := fresh(t, size)
		err := Config{Path: path, Plain: plain}.run(func(size int64) (disk, error) { return openFile(path, size) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
