package blocktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/block"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCrashDevicePassesTheSuite(t *testing.T) {
	for _, unit := range []int64{1, 4096} {
		var last *CrashDevice
		rng := rand.New(rand.NewPCG(1, 1))
		Suite{
			Name: fmt.Sprint("unit", unit),
			Open: func(testing.TB) block.Device {
				last = NewCrashDevice(512<<10, unit)
				return last
			},
			Crash: func(testing.TB) block.Device { return last.Crash(rng) },
		}.Run(t)
	}
}

func TestDurabilityPassesTheSuite(t *testing.T) {
	Suite{Open: func(t testing.TB) block.Device { return NewDurability(t, NewCrashDevice(512<<10, 512)) }}.Run(t)
}

// survivors lists the distinct contents of [0, n) that crashes leave behind.
func survivors(t *testing.T, d *CrashDevice, n int64) [][]byte {
	t.Helper()
	list := [][]byte{readDev(t, d.Crash(nil), 0, n)}
	for seed := range uint64(200) {
		got := readDev(t, d.Crash(rand.New(rand.NewPCG(seed, 1))), 0, n)
		if !slices.ContainsFunc(list, func(p []byte) bool { return bytes.Equal(p, got) }) {
			list = append(list, got)
		}
	}
	return list
}

func TestUnflushedSectorsSurviveInAnyCombination(t *testing.T) {
	d := NewCrashDevice(4096, 512)
	must(t, d.WriteAt(background, pattern(1, 1536), 0, 0))
	if got := survivors(t, d, 4096); len(got) != 8 {
		t.Errorf("%d outcomes of three unflushed sectors, want 8", len(got))
	}
}

func TestRewrittenSectorSurvivesInAnyVersion(t *testing.T) {
	d := NewCrashDevice(512, 512)
	for i := range int64(3) {
		must(t, d.WriteAt(background, pattern(i, 512), 0, 0))
	}
	if got := survivors(t, d, 512); len(got) != 4 {
		t.Errorf("%d outcomes of a sector written three times, want 4", len(got))
	}
}

func TestFlushedAndFUASurvive(t *testing.T) {
	d := NewCrashDevice(4096, 512)
	must(t, d.WriteAt(background, pattern(1, 512), 0, 0))
	must(t, d.Flush(background))
	must(t, d.WriteAt(background, pattern(2, 512), 512, block.FUA))
	must(t, d.WriteAt(background, pattern(3, 512), 1024, 0))
	must(t, d.WriteZeroes(background, 0, 512, block.FUA))
	want := append(make([]byte, 512), pattern(2, 512)...)
	got := survivors(t, d, 4096)
	if len(got) != 2 {
		t.Errorf("%d outcomes, want 2: the last write is there or not", len(got))
	}
	for _, p := range got {
		same(t, p[:1024], want, 0, "flushed and FUA")
	}
}

func TestFlushDoesNotCoverWritesInFlight(t *testing.T) {
	d := NewCrashDevice(4096, 512)
	d.inFlight = func() {
		d.inFlight = nil
		must(t, d.Flush(background))
	}
	must(t, d.WriteAt(background, pattern(1, 512), 0, 0))
	if got := survivors(t, d, 512); len(got) != 2 {
		t.Errorf("%d outcomes, want 2: the flush came before the write had completed", len(got))
	}
	flushed := NewCrashDevice(4096, 512)
	must(t, flushed.WriteAt(background, pattern(1, 512), 0, 0))
	must(t, flushed.Flush(background))
	if got := survivors(t, flushed, 512); len(got) != 1 {
		t.Errorf("%d outcomes of a flushed write, want 1", len(got))
	}
}

func TestCutContentDoesNotComeBack(t *testing.T) {
	old := pattern(1, 2048)
	d := NewCrashDeviceFrom(bytes.Clone(old), 512)
	must(t, d.Resize(background, 512))
	must(t, d.Resize(background, 4096))
	sizes := map[int64]bool{}
	for seed := range uint64(200) {
		after := d.Crash(rand.New(rand.NewPCG(seed, 1)))
		size := after.Info().Size
		sizes[size] = true
		got := readDev(t, after, 0, size)
		same(t, got[:512], old[:512], 0, "what was never cut")
		if size == 4096 && !allZero(got[512:]) {
			t.Fatal("cut content came back")
		}
	}
	if len(sizes) != 3 {
		t.Errorf("sizes after a crash: %v, want three", sizes)
	}
}

func TestCrashAtStopsAfterTheNth(t *testing.T) {
	d := NewCrashDevice(4096, 512)
	d.CrashAt(2)
	must(t, d.WriteAt(background, pattern(1, 512), 0, 0))
	must(t, d.WriteAt(background, nil, 0, 0)) // an empty one does not count
	must(t, d.WriteAt(background, pattern(2, 512), 512, 0))
	must(t, d.Flush(background))
	for range 2 {
		if err := d.WriteAt(background, pattern(3, 512), 1024, block.FUA); block.KindOf(err) != block.IO {
			t.Fatalf("write after the power failed: %v", err)
		}
	}
	if err := d.Flush(background); block.KindOf(err) != block.IO {
		t.Errorf("flush after the power failed: %v", err)
	}
	if !d.Crashed() || d.Changes() != 2 {
		t.Errorf("crashed %v after %d changes", d.Crashed(), d.Changes())
	}
	if got := survivors(t, d, 4096); len(got) != 2 {
		t.Errorf("%d outcomes, want 2: the change that met the crash is there or not", len(got))
	}
}

// twoSlots is a tiny crash-safe format: a value in one of two slots, the newer
// one wins. flushes leaves out the flush between the value and its commit.
func twoSlots(t *testing.T, flushes bool) *recorder {
	rec := newRecorder(t)
	rec.run(func() {
		EveryCrash(rec, func() *CrashDevice { return NewCrashDevice(4096, 512) },
			func(dev *CrashDevice) func(testing.TB, *CrashDevice) {
				committed := byte(0)
				for v := byte(1); v <= 4; v++ {
					slot := int64(v % 2)
					body := bytes.Repeat([]byte{v}, 512)
					if dev.WriteAt(background, body, 1024+slot*512, 0) != nil {
						break
					}
					if flushes && dev.Flush(background) != nil {
						break
					}
					if dev.WriteAt(background, body, 0, block.FUA) != nil {
						break
					}
					committed = v
				}
				return func(t testing.TB, after *CrashDevice) {
					head := readDev(t, after, 0, 512)[0]
					body := readDev(t, after, 1024+int64(head%2)*512, 512)
					if head < committed || head > 0 && !bytes.Equal(body, bytes.Repeat([]byte{head}, 512)) {
						t.Errorf("committed %d, found %d with body %d", committed, head, body[0])
					}
				}
			})
	})
	return rec
}

func TestEveryCrashFindsTheMissingFlush(t *testing.T) {
	if rec := twoSlots(t, true); rec.failed() {
		t.Errorf("the right order failed: %v", rec.messages())
	}
	if rec := twoSlots(t, false); !rec.failed() {
		t.Error("the missing flush was not found")
	}
}

func TestDurabilityTellsLossFromPermittedLoss(t *testing.T) {
	for _, c := range []struct {
		name string
		work func(t *testing.T, d *Durability)
		lost bool // whether an image of zeroes breaks a promise
	}{
		{"unflushed", func(t *testing.T, d *Durability) { must(t, d.WriteAt(background, pattern(1, 512), 0, 0)) }, false},
		{"flushed", func(t *testing.T, d *Durability) {
			must(t, d.WriteAt(background, pattern(1, 512), 0, 0))
			must(t, d.Flush(background))
		}, true},
		{"fua", func(t *testing.T, d *Durability) { must(t, d.WriteAt(background, pattern(1, 512), 0, block.FUA)) }, true},
		{"flushed, then discarded", func(t *testing.T, d *Durability) {
			must(t, d.WriteAt(background, pattern(1, 512), 0, block.FUA))
			must(t, d.Discard(background, 0, 512, 0))
		}, false},
		{"discarded, then written with FUA", func(t *testing.T, d *Durability) {
			must(t, d.Discard(background, 0, 512, 0))
			must(t, d.WriteAt(background, pattern(1, 512), 0, block.FUA))
		}, true},
	} {
		d := NewDurability(t, NewCrashDevice(4096, 512))
		c.work(t, d)
		rec := newRecorder(t)
		rec.run(func() { d.Check(rec, NewCrashDevice(4096, 512)) })
		if rec.failed() != c.lost {
			t.Errorf("%s: lost %v, want %v: %v", c.name, rec.failed(), c.lost, rec.messages())
		}
	}
}
