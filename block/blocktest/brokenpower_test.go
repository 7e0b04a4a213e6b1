package blocktest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"sluice/block"
)

// The mutants that need a crash, a second opening or a read-only image.

// forgetful loses promises of a CrashDevice.
type forgetful struct {
	*CrashDevice
	fua, flush bool // keep them?
}

func (d forgetful) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if !d.fua {
		flags &^= block.FUA
	}
	return d.CrashDevice.WriteAt(ctx, p, off, flags)
}

func (d forgetful) Flush(ctx context.Context) error {
	if !d.flush {
		return nil
	}
	return d.CrashDevice.Flush(ctx)
}

func TestSuiteFailsOnLostDurability(t *testing.T) {
	for _, c := range []struct {
		check             string
		fua, flush, fails bool
	}{
		{"crash", true, true, false},
		{"crash", false, true, true},
		{"crash", true, false, true},
		{"crash", false, false, true},
		{"fua", true, true, false},
		{"fua", false, true, true},
	} {
		var last *CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		rec := runOne(t, Suite{
			Open: func(testing.TB) block.Device {
				last = NewCrashDevice(512<<10, 512)
				return forgetful{last, c.fua, c.flush}
			},
			Crash: func(testing.TB) block.Device { return last.Crash(rng) },
		}, c.check)
		if rec.failed() != c.fails {
			t.Errorf("%s, FUA kept %v, flush kept %v: failed %v: %v", c.check, c.fua, c.flush, rec.failed(), rec.messages())
		}
	}
}

func TestSuiteFailsOnLostContent(t *testing.T) {
	fresh := func(t testing.TB) block.Device { return newRef(t, 512<<10, 512) }
	for _, name := range []string{"persistence", "multi-conn", "model"} {
		quick(t)
		if rec := runOne(t, Suite{Open: fresh, Reopen: fresh}, name); !rec.failed() {
			t.Errorf("check %q did not notice that the image opened again is another one", name)
		}
	}
}

// abandoning comes back from a cancelled call at once, with an error of its own
// kind, and lets a write reach the medium when the caller no longer knows of it.
type abandoning struct {
	*ref
	kind block.Kind
	late func() // the write left behind
}

func (d *abandoning) ReadAt(ctx context.Context, p []byte, off int64) error {
	if ctx.Err() != nil {
		return block.Errorf(d.kind, "read", "", off, "gave up")
	}
	if d.late != nil {
		d.late()
		d.late = nil
	}
	return d.ref.ReadAt(ctx, p, off)
}

func (d *abandoning) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	if ctx.Done() == nil || len(p) == 0 {
		return d.ref.WriteAt(ctx, p, off, flags)
	}
	own := bytes.Clone(p)
	d.late = func() { _ = d.ref.WriteAt(ctx, own, off, flags) }
	return block.Errorf(block.Canceled, "write", "", off, "")
}

func TestSuiteFailsOnAbandonedCalls(t *testing.T) {
	for check, kind := range map[string]block.Kind{"cancelled": block.IO, "cancel-in-flight": block.Canceled} {
		rec := runOne(t, Suite{Open: func(t testing.TB) block.Device {
			return &abandoning{ref: newRef(t, 512<<10, 512), kind: kind}
		}}, check)
		if !rec.failed() {
			t.Errorf("check %q did not notice", check)
		}
	}
}

// halfReadOnly says that it is read-only, and takes zeroes.
type halfReadOnly struct{ *ref }

func (h halfReadOnly) Info() block.Info {
	i := h.ref.Info()
	i.ReadOnly = true
	return i
}

func TestSuiteFailsOnReadOnlyThatWrites(t *testing.T) {
	open := func(t testing.TB) block.Device { return halfReadOnly{newRef(t, 512<<10, 512)} }
	for _, s := range []struct {
		suite Suite
		check string
	}{{Suite{Open: open, ReadOnly: true}, "read-only"}, {Suite{Open: open}, "info"}} {
		if rec := runOne(t, s.suite, s.check); !rec.failed() {
			t.Errorf("check %q did not notice", s.check)
		}
	}
}

func TestRunPicksChecksByInfo(t *testing.T) {
	s := refSuite(512<<10, 512)
	full := s.inspect(t)
	bare := block.Info{Size: 512 << 10, Block: block.BlockSize{Min: 512, Preferred: 4096}, ReadOnly: true}
	count := func(i block.Info) (n int) {
		for _, c := range checks {
			if c.applies(&s, i) {
				n++
			}
		}
		return n
	}
	if all, few := count(full), count(bare); all != len(checks)-3 || few != 9 {
		t.Errorf("%d checks of %d for a full device, %d for a bare read-only one", all, len(checks), few)
	}
}
