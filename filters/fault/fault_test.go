package fault

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
	"sluice/filters/filtertest"
)

// filled gives n bytes of v.
func filled(v byte, n int) []byte { return bytes.Repeat([]byte{v}, n) }

// holds asserts what the Device below holds at off.
func holds(t *testing.T, d block.Device, off int64, want []byte, what string) {
	t.Helper()
	got := make([]byte, len(want))
	if err := d.ReadAt(ctx, got, off); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: byte %d is %#x, want %#x", what, off+int64(i), got[i], want[i])
			return
		}
	}
}

// old puts a known content below: 1 in every byte.
func old(t *testing.T, below block.Device) {
	t.Helper()
	if err := below.WriteAt(ctx, filled(1, int(below.Info().Size)), 0, 0); err != nil {
		t.Fatal(err)
	}
}

// calls are all calls of a Device, on its first 8 KiB.
var calls = map[Op]func(d *Device) error{
	Read:  func(d *Device) error { return d.ReadAt(ctx, make([]byte, 8192), 0) },
	Write: func(d *Device) error { return d.WriteAt(ctx, filled(2, 8192), 0, 0) },
	Flush: func(d *Device) error { return d.Flush(ctx) },
	Zero:  func(d *Device) error { return d.WriteZeroes(ctx, 0, 8192, block.MayUnmap) },
	Discard: func(d *Device) error {
		return d.Discard(ctx, 0, 8192, 0)
	},
	Extents: func(d *Device) error {
		_, err := d.Extents(ctx, 0, 8192, make([]block.Extent, 0, 1))
		return err
	},
	Prefetch: func(d *Device) error { return d.Prefetch(ctx, 0, 8192) },
	Resize:   func(d *Device) error { return d.Resize(ctx, 4096) },
}

// A rule for one call fails that one, as it says, with the content as it was,
// and lets the others be; one for any fails all.
func TestErrors(t *testing.T) {
	for _, of := range ops {
		for _, k := range kinds {
			d, below := newDevice(t, 16384, fmt.Sprintf("%s:error=%s", of, k.name))
			old(t, below)
			for op, do := range calls {
				want := block.OK
				if of == op || of == Any {
					want = k.kind
				} else if op == Resize || op == Write || op == Zero || op == Discard {
					continue // these would change what is looked at
				}
				err := do(d)
				if block.KindOf(err) != want {
					t.Errorf("%s with a rule for %s: %v, want kind %v", op, of, err, want)
				}
				if err != nil && !strings.Contains(err.Error(), d.Rules()[0].String()) {
					t.Errorf("%s does not name its rule: %v", op, err)
				}
			}
			if below.Info().Size != 16384 {
				t.Errorf("a failed resize has resized")
			}
			holds(t, below, 0, filled(1, 16384), "after calls that failed")
			filtertest.Close(t, d)
		}
	}
}

func TestErrorLeavesExtentsAlone(t *testing.T) {
	below := filtertest.NewFull(t, 1<<20)
	d := New(below)
	defer filtertest.Close(t, d)
	d.SetRules(parsed(t, "extents:error=io"))
	room := make([]block.Extent, 1, 4)
	if got, err := d.Extents(ctx, 0, 512, room); block.KindOf(err) != block.IO || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := d.BitmapExtents(ctx, filtertest.FullBitmap, 0, 512, room); block.KindOf(err) != block.IO || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTornWrites(t *testing.T) {
	for _, c := range []struct {
		rule     string
		min      int64 // smallest request below
		off, n   int
		prefixes []int // that may have been written
		kind     block.Kind
	}{
		{"write:torn=1K", 1, 512, 4096, []int{1024}, block.IO},
		{"write:torn=1K,error=no_space", 1, 512, 4096, []int{1024}, block.NoSpace},
		{"write:torn=1K", 1, 100, 1025, []int{1024}, block.IO},
		{"write:torn=1M", 1, 0, 4096, []int{3584}, block.IO},
		{"write:torn=1K", 1, 0, 1024, []int{512}, block.IO},
		{"write:torn=512", 1, 7, 512, []int{0}, block.IO},
		{"write:torn=512", 1, 7, 1, []int{0}, block.IO},
		{"write:torn=5K", 4096, 4096, 16384, []int{4096}, block.IO},
		{"write:torn=512", 4096, 4096, 16384, []int{0}, block.IO},
		{"write:torn", 1, 512, 2048, []int{0, 512, 1024, 1536}, block.IO},
		{"write:torn", 4096, 4096, 12288, []int{0, 4096, 8192}, block.IO},
	} {
		seen := map[int]bool{}
		below := blocktest.NewCrashDevice(64<<10, c.min)
		d := New(below)
		d.SetRules(parsed(t, c.rule))
		for range 40 {
			old(t, below)
			err := d.WriteAt(ctx, filled(2, c.n), int64(c.off), 0)
			if block.KindOf(err) != c.kind {
				t.Errorf("%s: %v, want kind %v", c.rule, err, c.kind)
			}
			got := make([]byte, 64<<10)
			if err := d.ReadAt(ctx, got, 0); err != nil {
				t.Fatal(err)
			}
			k := bytes.Count(got, []byte{2})
			seen[k] = true
			want := append(append(filled(1, c.off), filled(2, k)...), filled(1, len(got)-c.off-k)...)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: what was written is no prefix", c.rule)
			}
			if !strings.Contains(err.Error(), fmt.Sprintf("torn after %d of %d bytes", k, c.n)) {
				t.Errorf("%s: %d bytes are there, and the error is %v", c.rule, k, err)
			}
		}
		if len(seen) != len(c.prefixes) {
			t.Errorf("%s: prefixes %v, want %v", c.rule, seen, c.prefixes)
		}
		for _, k := range c.prefixes {
			if !seen[k] {
				t.Errorf("%s: never a prefix of %d in %v", c.rule, k, seen)
			}
		}
		filtertest.Close(t, d)
	}
}

// A torn FUA write has its prefix on the medium: the flag goes with it.
func TestTornFUA(t *testing.T) {
	below := blocktest.NewCrashDevice(4096, 1)
	d := New(below)
	defer filtertest.Close(t, d)
	d.SetRules(parsed(t, "write:torn=1K"))
	if err := d.WriteAt(ctx, filled(2, 4096), 0, block.FUA); block.KindOf(err) != block.IO {
		t.Errorf("got %v", err)
	}
	after := below.Crash(nil)
	holds(t, after, 0, append(filled(2, 1024), filled(0, 3072)...), "after the crash")
}

// What a lying disk acknowledged is not there.
func TestDroppedChanges(t *testing.T) {
	for _, op := range []Op{Write, Zero, Discard} {
		d, below := newDevice(t, 16384, string(op)+":drop,range=4K-12K")
		old(t, below)
		if err := calls[op](d); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		holds(t, d, 0, filled(1, 16384), "after a dropped "+string(op))
		if n := d.Counts()[0].Fired; n != 1 {
			t.Errorf("%s: fired %d times", op, n)
		}
		if err := d.WriteAt(ctx, filled(3, 512), 0, 0); err != nil {
			t.Error(err)
		}
		holds(t, d, 0, append(filled(3, 512), filled(1, 1000)...), "a write beside the range")
		filtertest.Close(t, d)
	}
}

// A bad call is not made good by being dropped.
func TestDropKeepsRefusals(t *testing.T) {
	d, _ := newDevice(t, 4096, "write:drop", "zero:drop", "discard:drop", "flush:drop")
	refusals := func(want block.Kind, off int64, flags block.Flags) {
		t.Helper()
		for name, err := range map[string]error{
			"write":   d.WriteAt(ctx, make([]byte, 512), off, flags),
			"zero":    d.WriteZeroes(ctx, off, 512, flags),
			"discard": d.Discard(ctx, off, 512, flags),
		} {
			if block.KindOf(err) != want {
				t.Errorf("%s at %d with %#x: %v, want kind %v", name, off, flags, err, want)
			}
		}
	}
	refusals(block.OutOfRange, 4096, 0)
	refusals(block.OutOfRange, -512, 0)
	refusals(block.Invalid, 0, 0x80)
	refusals(block.OK, 0, block.FUA)
	filtertest.Close(t, d)
	refusals(block.Closed, 0, 0)
	if err := d.Flush(ctx); block.KindOf(err) != block.Closed {
		t.Errorf("flush after close: %v", err)
	}
	for _, c := range d.Counts()[:3] {
		if c.Fired != 1 {
			t.Errorf("%v fired %d times", c.Rule, c.Fired)
		}
	}
}

// A flush that is dropped loses in a crash what was written before it.
func TestDroppedFlush(t *testing.T) {
	for _, lying := range []bool{false, true} {
		below := blocktest.NewCrashDevice(8192, 512)
		d := New(below)
		if lying {
			d.SetRules(parsed(t, "flush:drop"))
		}
		if err := d.WriteAt(ctx, filled(2, 4096), 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		want := filled(2, 4096)
		if lying {
			want = filled(0, 4096)
		}
		holds(t, d, 0, filled(2, 4096), "before the crash")
		holds(t, below.Crash(nil), 0, want, fmt.Sprintf("after the crash, lying %v", lying))
		filtertest.Close(t, d)
	}
}

// Rules are for neither what is empty nor changes of a read-only Device.
func TestNoRulesForWhatDoesNothing(t *testing.T) {
	d, _ := newDevice(t, 4096, "any:error=io")
	for name, err := range map[string]error{
		"read":    d.ReadAt(ctx, nil, 4096),
		"write":   d.WriteAt(ctx, nil, 4096, 0),
		"zero":    d.WriteZeroes(ctx, 4096, 0, 0),
		"discard": d.Discard(ctx, 4096, 0, 0),
	} {
		if err != nil {
			t.Errorf("empty %s: %v", name, err)
		}
	}
	filtertest.Close(t, d)
	d = New(filtertest.ReadOnly{Device: filtertest.NewMem(t, 4096)})
	d.SetRules(parsed(t, "write:drop"))
	if err := d.WriteAt(ctx, make([]byte, 512), 0, 0); block.KindOf(err) != block.ReadOnly {
		t.Errorf("a write to a read-only disk: %v", err)
	}
	filtertest.Close(t, d)
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		rule   string
		off, n int64
		fires  bool
	}{
		{"read:error=io,range=1M-2M", 0, 1 << 20, false},
		{"read:error=io,range=1M-2M", 0, 1<<20 + 1, true},
		{"read:error=io,range=1M-2M", 1<<20 + 5, 1, true},
		{"read:error=io,range=1M-2M", 2<<20 - 1, 1, true},
		{"read:error=io,range=1M-2M", 2 << 20, 1, false},
		{"read:error=io,range=1M-2M", 0, 4 << 20, true},
		{"read:error=io,range=3M-", 3<<20 - 1, 1, false},
		{"read:error=io,range=3M-", 4<<20 - 1, 1, true},
		{"any:error=io,range=3M-", 4<<20 - 1, 1, true},
		{"read:error=io", 0, 0, false},
	} {
		d, _ := newDevice(t, 4<<20, c.rule)
		err := d.ReadAt(ctx, make([]byte, c.n), c.off)
		if (err != nil) != c.fires {
			t.Errorf("%s: %d bytes at %d: %v", c.rule, c.n, c.off, err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Errorf("%s: a flush has no range and fails: %v", c.rule, err)
		}
		filtertest.Close(t, d)
	}
}

// fires tells for each of n reads whether it failed.
func fires(t *testing.T, d *Device, n int) string {
	t.Helper()
	var s strings.Builder
	for range n {
		switch err := calls[Read](d); block.KindOf(err) {
		case block.OK:
			s.WriteByte('.')
		case block.IO:
			s.WriteByte('i')
		case block.Busy:
			s.WriteByte('b')
		default:
			t.Errorf("got %v", err)
		}
	}
	return s.String()
}

func TestAfterAndCount(t *testing.T) {
	for rules, want := range map[string]string{
		"read:error=io,after=3":                                 "...iiiiiii",
		"read:error=io,count=2":                                 "ii........",
		"read:error=io,after=2,count=3":                         "..iii.....",
		"read:error=busy,after=2,count=1 read:error=io,after=2": "..biiiiiii",
		"read:error=io,count=2 read:error=busy":                 "iibbbbbbbb",
		"read:error=io,after=4,count=1 read:error=busy,count=3": "bbb.i.....",
		"write:error=io read:error=busy,after=9":                ".........b",
	} {
		d, _ := newDevice(t, 8192, strings.Fields(rules)...)
		if got := fires(t, d, 10); got != want {
			t.Errorf("%s: %s, want %s", rules, got, want)
		}
		var total int64
		for _, c := range d.Counts() {
			total += c.Fired
		}
		if int(total) != 10-strings.Count(want, ".") {
			t.Errorf("%s: counted %+v", rules, d.Counts())
		}
		filtertest.Close(t, d)
	}
}

// The same seed makes the same rehearsal, another one another.
func TestProbabilityRepeats(t *testing.T) {
	run := func(rule string) string {
		d, _ := newDevice(t, 8192, rule)
		defer filtertest.Close(t, d)
		first := fires(t, d, 1000)
		d.SetRules(d.Rules())
		if again := fires(t, d, 1000); again != first {
			t.Errorf("%s: set again it is not the same", rule)
		}
		return first
	}
	a, b, c := run("read:error=io,probability=0.1"), run("read:error=io,probability=0.1"), run("read:error=io,probability=0.1,seed=1")
	if a != b || a == c {
		t.Errorf("same seed, same choices: %v; another seed, same choices: %v", a == b, a == c)
	}
	if n := strings.Count(a, "i"); n < 60 || n > 140 {
		t.Errorf("%d of 1000 with probability 0.1", n)
	}
	d, _ := newDevice(t, 8192, "read:error=io,probability=0.5", "read:error=busy,probability=0.5")
	defer filtertest.Close(t, d)
	if got := fires(t, d, 200); !strings.Contains(got, "i") || !strings.Contains(got, "b") || !strings.Contains(got, ".") {
		t.Errorf("two rules draw the same: %s", got)
	}
}

// Whole writes, torn ones, failed and dropped ones at random: the content is
// what the errors said, against a plain copy.
func TestContentFollowsFromTheErrors(t *testing.T) {
	const size = 64 << 10
	d, below := newDevice(t, size,
		"write:torn,probability=0.2", "write:error=transient,probability=0.2", "write:drop,range=0-8K",
		"zero:error=io,probability=0.3", "zero:drop,range=32K-40K")
	defer filtertest.Close(t, d)
	rng := rand.New(rand.NewPCG(4, 2))
	model := make([]byte, size)
	for i := range 2000 {
		off := rng.Int64N(size - 1)
		n := 1 + rng.Int64N(min(size-off, 5000))
		data := filled(byte(i), int(n))
		if rng.IntN(4) == 0 {
			clear(data)
			if err := d.WriteZeroes(ctx, off, n, 0); err != nil || off < 40<<10 && off+n > 32<<10 {
				n = 0
			}
		} else if err := d.WriteAt(ctx, data, off, 0); err != nil {
			n = tornAfter(t, err)
		} else if off < 8<<10 {
			n = 0
		}
		copy(model[off:], data[:n])
		if i%50 == 0 {
			holds(t, below, 0, model, fmt.Sprintf("after %d changes", i))
		}
	}
	holds(t, below, 0, model, "at the end")
	for _, c := range d.Counts() {
		if c.Fired < 10 {
			t.Errorf("%v fired %d times only", c.Rule, c.Fired)
		}
	}
}

// tornAfter gives what an error says to have been written.
func tornAfter(t *testing.T, err error) (n int64) {
	t.Helper()
	if block.KindOf(err) == block.Transient {
		return 0
	}
	_, text, found := strings.Cut(err.Error(), "torn after ")
	if _, bad := fmt.Sscan(text, &n); !found || bad != nil {
		t.Fatalf("not torn: %v", err)
	}
	return n
}

func TestPassesThroughWithoutRules(t *testing.T) {
	d, below := newDevice(t, 8192, "any:error=io")
	defer filtertest.Close(t, d)
	d.SetRules(nil)
	if len(d.Rules()) != 0 || len(d.Counts()) != 0 {
		t.Errorf("rules are left: %v", d.Rules())
	}
	if err := calls[Write](d); err != nil {
		t.Error(err)
	}
	holds(t, below, 0, filled(2, 8192), "written through")
}

func TestRequestsAllocateNothing(t *testing.T) {
	p := make([]byte, 4096)
	for name, rules := range map[string][]string{"none": nil, "none that fits": {"read:error=io,range=1M-", "flush:hang", "write:error=io,probability=1e-300"}} {
		d, _ := newDevice(t, 2<<20, rules...)
		if n := testing.AllocsPerRun(200, func() {
			if d.WriteAt(ctx, p, 0, 0) != nil || d.ReadAt(ctx, p, 0) != nil || d.WriteZeroes(ctx, 0, 4096, 0) != nil {
				t.Error("failed")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		filtertest.Close(t, d)
	}
}

func BenchmarkRead(b *testing.B) {
	filtertest.Ways{"no-rules": under(b), "another-rule": under(b, "write:error=io")}.BenchmarkRead(b)
}
