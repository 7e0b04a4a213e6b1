package fsxtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Config says what a run does.
type Config struct {
	Path  string // the file under test; it keeps its size, which is 1 MiB at least
	Plain string // where the plain file is made

	Ops  int    // how many operations; 0: 100 000
	Seed uint64 // decides the run; the environment's FSXTEST_SEED goes before it

	Align   int64  // of O_DIRECT in bytes, a power of two up to 4096; 0: 512
	Without []Kind // not to be done
	Replay  []Op   // to be done instead of random ones, from ReadLog
	Log     string // file for the operations of a run that fails; empty: none
}

// compareEvery is after how many operations the whole files are compared.
const compareEvery = 2000

func (c Config) align() int64 {
	if c.Align == 0 {
		return 512
	}
	return c.Align
}

// Run does the operations and fails the test at the first difference, or error.
func Run(t testing.TB, cfg Config) {
	t.Helper()
	if text := os.Getenv("FSXTEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			t.Fatalf("FSXTEST_SEED: %v", err)
		}
		cfg.Seed = seed
	}
	if err := cfg.run(func(size int64) (disk, error) { return openFile(cfg.Path, size) }); err != nil {
		t.Fatal(err)
	}
}

// runner holds what lives as long as a run.
type runner struct {
	Config
	size       int64
	dut        disk // device under test
	right      *plain
	history    []Op
	mine, want []byte // aligned for O_DIRECT; one operation's bytes each
	walked     int64  // how many holes and ranges of data the last look at all of them found
}

// run is Run with a file under test that open gives.
func (c Config) run(open func(size int64) (disk, error)) (err error) {
	right, size, err := newPlain(c.Plain, c.Path)
	if err != nil {
		return fmt.Errorf("fsx: plain file: %w", err)
	}
	defer func() { err = errors.Join(err, right.close()) }()
	if size < large || size%c.align() != 0 {
		return fmt.Errorf("fsx: %s has %d bytes: too few, or no multiple of %d", c.Path, size, c.align())
	}
	dut, err := open(size)
	if err != nil {
		return fmt.Errorf("fsx: %w", err)
	}
	defer func() { err = errors.Join(err, dut.close()) }()
	mine, err := aligned(2 * large)
	if err != nil {
		return fmt.Errorf("fsx: buffer: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(mine)) }()
	r := &runner{Config: c, size: size, dut: dut, right: right, mine: mine, want: make([]byte, 2*large)}
	if err := r.all(); err != nil {
		return errors.Join(r.explain(err), r.writeLog())
	}
	return nil
}

// aligned gives memory that starts at a page.
func aligned(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

// all does the operations, and at the end looks at the whole once more as somebody who opens the file anew.
func (r *runner) all() error {
	ops := r.Replay
	count := len(ops)
	if ops == nil {
		if count = r.Ops; count == 0 {
			count = 100_000
		}
	}
	random := newGenerator(r.Config, r.size)
	for i := range count {
		op := Op{}
		if ops != nil {
			op = ops[i]
		} else {
			op = random.next()
		}
		r.history = append(r.history, op)
		if err := r.step(op); err != nil {
			return err
		}
		if err := r.readBack(op); err != nil {
			return err
		}
		if (i+1)%compareEvery == 0 {
			if err := r.whole(i/compareEvery%2 == 0); err != nil {
				return err
			}
		}
	}
	if err := r.step(Op{Kind: Reopen}); err != nil {
		return err
	}
	return errors.Join(r.whole(false), r.whole(true), r.holes())
}

// step does one operation on both files and compares what it gave.
func (r *runner) step(op Op) error {
	mine, want := r.mine[:0], r.want[:0]
	if op.reads() || op.writes() {
		mine, want = r.mine[:op.Len], r.want[:op.Len]
	}
	if op.writes() {
		op.fill(want)
		copy(mine, want)
	}
	n, at, err := r.dut.do(op, mine)
	if err != nil {
		return fmt.Errorf("%s: %w", op.Kind, err)
	}
	wantN, _, err := r.right.do(op, want)
	if err != nil {
		return fmt.Errorf("plain file: %s: %w", op.Kind, err)
	}
	switch {
	case n != wantN:
		return fmt.Errorf("%s: %d bytes instead of %d", op.Kind, n, wantN)
	case op.reads():
		return differ(op.Kind.String(), op.Off, mine[:n], want[:n])
	case op.Kind == SeekData:
		return r.checkData(op.Off, at)
	case op.Kind == SeekHole:
		return r.checkHole(op.Off, at)
	}
	return nil
}

// readBack compares what every fourth change has changed, with some of what lies around it: soon enough that it was not
// overwritten, and not always, because a read may put a file system's caches right.
func (r *runner) readBack(op Op) error {
	if op.Data%4 != 0 || !op.writes() && !op.clears() && op.Kind != Copy && op.Kind != Allocate {
		return nil
	}
	from, to := op.Off, op.Off+op.Len
	if op.Kind == Copy {
		from, to = op.To, op.To+op.Len
	}
	back := Op{Kind: Read, Off: max(from-pageSize, 0)}
	back.Len = min(to+pageSize, r.size) - back.Off
	if err := r.step(back); err != nil {
		return fmt.Errorf("after it: %w", err)
	}
	return nil
}

// whole compares all of both files, read in one of two ways.
func (r *runner) whole(directly bool) error {
	kind := Read
	if directly {
		kind = DirectRead
	}
	for off := int64(0); off < r.size; off += large {
		op := Op{Kind: kind, Off: off, Len: min(large, r.size-off)}
		if err := r.step(op); err != nil {
			return fmt.Errorf("the whole file: %w", err)
		}
	}
	return nil
}

// mismatch is a byte that is not what it should be.
type mismatch struct {
	what      string
	at        int64
	got, want byte
	length    int64 // from the first byte that differs to the last
}

func (m *mismatch) Error() string {
	return fmt.Sprintf("%s: byte %d is 0x%02x and should be 0x%02x; the last that differs is %d bytes further on",
		m.what, m.at, m.got, m.want, m.length-1)
}

func differ(what string, off int64, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	first := 0
	for got[first] == want[first] {
		first++
	}
	last := len(got) - 1
	for got[last] == want[last] {
		last--
	}
	return &mismatch{what, off + int64(first), got[first], want[first], int64(last - first + 1)}
}
