package blocktest

import (
	"context"
	"flag"
	"slices"
	"testing"

	"sluice/block"
)

// mutant is a Device with one bug, made by replacing single calls of a right
// one. A nil field is the right call.
type mutant struct {
	*ref
	read       func(d *ref, p []byte, off int64) error
	write      func(d *ref, p []byte, off int64, flags block.Flags) error
	flush      func(d *ref) error
	zero       func(d *ref, off, n int64, flags block.Flags) error
	discard    func(d *ref, off, n int64, flags block.Flags) error
	extents    func(d *ref, off, n int64, dst []block.Extent) ([]block.Extent, error)
	nowait     func(d *ref, p []byte, off int64) error
	startRead  func(d *ref, p []byte, off int64, done block.Done) bool
	startWrite func(d *ref, p []byte, off int64, flags block.Flags, done block.Done) bool
	resize     func(d *ref, size int64) error
	fetch      func(d *ref, off, n int64) error
	pin        func(d *ref, off, n int64) (block.FileRange, bool)
	bitmap     func(d *ref, name string, off, n int64, dst []block.Extent) ([]block.Extent, error)
	close      func(d *ref) error
	info       func(i *block.Info)
}

func (m *mutant) Info() block.Info {
	i := m.ref.Info()
	if m.info != nil {
		m.info(&i)
	}
	return i
}

func (m *mutant) ReadAt(ctx context.Context, p []byte, off int64) error {
	if m.read != nil {
		return m.read(m.ref, p, off)
	}
	return m.ref.ReadAt(ctx, p, off)
}

func (m *mutant) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if m.write != nil {
		return m.write(m.ref, p, off, flags)
	}
	return m.ref.WriteAt(ctx, p, off, flags)
}

func (m *mutant) Flush(ctx context.Context) error {
	if m.flush != nil {
		return m.flush(m.ref)
	}
	return m.ref.Flush(ctx)
}

func (m *mutant) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	if m.zero != nil {
		return m.zero(m.ref, off, n, flags)
	}
	return m.ref.WriteZeroes(ctx, off, n, flags)
}

func (m *mutant) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	if m.discard != nil {
		return m.discard(m.ref, off, n, flags)
	}
	return m.ref.Discard(ctx, off, n, flags)
}

func (m *mutant) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if m.extents != nil {
		return m.extents(m.ref, off, n, dst)
	}
	return m.ref.Extents(ctx, off, n, dst)
}

func (m *mutant) ReadNowait(p []byte, off int64) error {
	if m.nowait != nil {
		return m.nowait(m.ref, p, off)
	}
	return m.ref.ReadNowait(p, off)
}

func (m *mutant) Resize(ctx context.Context, size int64) error {
	if m.resize != nil {
		return m.resize(m.ref, size)
	}
	return m.ref.Resize(ctx, size)
}

func (m *mutant) Prefetch(ctx context.Context, off, n int64) error {
	if m.fetch != nil {
		return m.fetch(m.ref, off, n)
	}
	return m.ref.Prefetch(ctx, off, n)
}

func (m *mutant) PinRange(off, n int64) (block.FileRange, bool) {
	if m.pin != nil {
		return m.pin(m.ref, off, n)
	}
	return m.ref.PinRange(off, n)
}

func (m *mutant) BitmapExtents(ctx context.Context, name string, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if m.bitmap != nil {
		return m.bitmap(m.ref, name, off, n, dst)
	}
	return m.ref.BitmapExtents(ctx, name, off, n, dst)
}

func (m *mutant) StartRead(p []byte, off int64, done block.Done) bool {
	if m.startRead != nil {
		return m.startRead(m.ref, p, off, done)
	}
	return m.ref.StartRead(p, off, done)
}

func (m *mutant) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	if m.startWrite != nil {
		return m.startWrite(m.ref, p, off, flags, done)
	}
	return m.ref.StartWrite(p, off, flags, done)
}

func (m *mutant) Close() error {
	if m.close != nil {
		return m.close(m.ref)
	}
	return m.ref.Close()
}

// bug is a row of the table: a mutant, and the checks that must fail on it.
type bug struct {
	name   string
	checks []string
	make   func() *mutant // without its ref
	races  bool           // a data race by nature: left out when the race detector runs
}

// TestSuiteFailsOnBrokenDevices shows that the suite has teeth: each named
// check passes on the right Device and fails on the broken one.
func TestSuiteFailsOnBrokenDevices(t *testing.T) {
	quick(t)
	covered := map[string]bool{}
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			for _, name := range b.checks {
				covered[name] = true
				if !b.races || !raceDetector {
					runMutant(t, b, name)
				}
			}
		})
	}
	// These have mutants of their own below.
	for _, name := range []string{"cancelled", "crash", "multi-conn", "persistence", "read-only"} {
		covered[name] = true
	}
	for _, c := range checks {
		if !covered[c.name] {
			t.Errorf("no broken device shows that check %q can fail", c.name)
		}
	}
}

// runMutant runs one check on a mutant and wants it to fail. Bugs that take two
// calls at the same time get a few tries.
func runMutant(t *testing.T, b bug, name string) {
	t.Helper()
	unit := int64(512)
	if name == "odd-offsets" {
		unit = 1
	}
	s := Suite{Open: func(testing.TB) block.Device {
		m := b.make()
		m.ref = newRef(t, 512<<10, unit)
		return m
	}}
	for range 5 {
		if rec := runOne(t, s, name); rec.failed() {
			t.Logf("%s: %.300q", name, rec.messages())
			return
		}
	}
	t.Errorf("check %q did not notice", name)
}

// runOne runs one check of the table with failures recorded.
func runOne(t *testing.T, s Suite, name string) *recorder {
	t.Helper()
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("no check %q", name)
	}
	rec := newRecorder(t)
	rec.run(func() { s.runCheck(rec, checks[i]) })
	return rec
}

// quick shortens rapid's search for the smallest failure while broken devices
// are tested.
func quick(t *testing.T) {
	t.Helper()
	old := flag.Lookup("rapid.shrinktime").Value.String()
	must(t, flag.Set("rapid.shrinktime", "1ms"))
	t.Cleanup(func() { must(t, flag.Set("rapid.shrinktime", old)) })
}
