package blocktest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/block"
)

func TestFaultDeviceWithoutFaultsPassesTheSuite(t *testing.T) {
	var last *ref
	Suite{
		Open: func(t testing.TB) block.Device {
			last = newRef(t, 512<<10, 512)
			return NewFaultDevice(last, nil, nil)
		},
		Reopen: func(t testing.TB) block.Device { return NewFaultDevice(last.reopen(t), nil, nil) },
	}.Run(t)
}

func TestFaultDeviceHidesTheFileRange(t *testing.T) {
	d := NewFaultDevice(newRef(t, 512<<10, 512), nil, nil)
	defer func() { must(t, d.Close()) }()
	if d.Info().Has(block.CapFileRange) {
		t.Error("CapFileRange leads past the injectors")
	}
	if _, ok := block.Device(d).(block.Ranger); ok {
		t.Error("the FaultDevice is a Ranger")
	}
	if d.Info().Caps != refCaps&^(block.CapFileRange|block.CapStart) {
		t.Errorf("powers: %v", d.Info().Caps)
	}
}

var errSome = block.Errorf(block.NoSpace, "write", "fake", -1, "")

func TestErrorsBeforeAndAfter(t *testing.T) {
	inner := NewCrashDevice(4096, 512)
	d := NewFaultDevice(inner, OnRange(0, 512, On(Always(errSome), OpWrite)), OnRange(512, 512, On(Always(errSome), OpWrite)))
	data := pattern(1, 512)
	for off := int64(0); off < 1024; off += 512 {
		if err := d.WriteAt(background, data, off, 0); !errors.Is(err, block.NoSpace) {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	must(t, d.WriteAt(background, data, 1024, 0))
	same(t, readDev(t, d, 0, 512), make([]byte, 512), 0, "a write that failed before")
	same(t, readDev(t, d, 512, 512), data, 512, "a write that failed after")
	must(t, d.Close())
}

func TestEveryPowerMeetsTheInjector(t *testing.T) {
	met := map[OpKind]Op{}
	d := NewFaultDevice(newRef(t, 512<<10, 512), InjectorFunc(func(op Op) error {
		met[op.Kind] = op
		return errSome
	}), nil)
	room := make([]block.Extent, 0, 1)
	_, extents := d.Extents(background, 0, 512, room)
	_, bitmap := d.BitmapExtents(background, "since-open", 0, 512, room)
	for i, err := range []error{
		d.ReadAt(background, make([]byte, 512), 0), d.WriteAt(background, make([]byte, 512), 0, block.FUA), d.Flush(background),
		d.WriteZeroes(background, 0, 512, 0), d.Discard(background, 0, 512, 0), extents, bitmap, d.Prefetch(background, 0, 512),
		d.Resize(background, 1024), d.ReadNowait(make([]byte, 512), 0), d.Close(),
	} {
		if !errors.Is(err, block.NoSpace) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if len(met) != 9 {
		t.Errorf("the injector met %v", met)
	}
	if w := met[OpWrite]; w.Flags != block.FUA || w.N != 512 {
		t.Errorf("the write looked like %+v", w)
	}
}

func TestNthCountsTheCallsThatReachIt(t *testing.T) {
	in := On(OnRange(0, 512, Nth(2, Always(errSome))), OpWrite)
	ops := []Op{{Kind: OpRead, N: 1}, {Kind: OpWrite, N: 1}, {Kind: OpWrite, Off: 512, N: 1}, {Kind: OpWrite, N: 1}, {Kind: OpWrite, N: 1}}
	for i, op := range ops {
		if got, want := in.MaybeError(op) != nil, i == 3; got != want {
			t.Errorf("call %d (%v): failed %v, want %v", i, op, got, want)
		}
	}
}

func TestToggleAndAnyAndDelay(t *testing.T) {
	g := NewToggle(Always(errSome))
	in := Any(Never(), Delay(time.Microsecond), g)
	must(t, in.MaybeError(Op{}))
	g.On()
	if in.MaybeError(Op{}) == nil {
		t.Error("switched on, and no error")
	}
	g.Off()
	must(t, in.MaybeError(Op{}))
}

func TestGateHoldsCallsUntilOpened(t *testing.T) {
	gate := NewGate()
	d := NewFaultDevice(NewCrashDevice(4096, 512), On(gate, OpWrite), nil)
	errs := make(chan error, 2)
	var callers sync.WaitGroup
	for i := range int64(2) {
		callers.Go(func() { errs <- d.WriteAt(background, pattern(i, 512), i*512, 0) })
	}
	limit, cancel := context.WithTimeout(background, patience)
	defer cancel()
	must(t, gate.Await(limit, 2))
	must(t, d.ReadAt(background, make([]byte, 512), 0)) // other calls pass
	if len(errs) != 0 {
		t.Fatal("a write passed a shut gate")
	}
	gate.Open(nil)
	callers.Wait()
	must(t, <-errs)
	must(t, <-errs)
	must(t, d.WriteAt(background, pattern(1, 512), 0, 0))

	gate.Shut()
	callers.Go(func() { errs <- d.WriteAt(background, pattern(1, 512), 0, 0) })
	must(t, gate.Await(limit, 1))
	gate.Open(errSome)
	callers.Wait()
	if err := <-errs; !errors.Is(err, block.NoSpace) {
		t.Errorf("the gate was opened with an error; the write returned %v", err)
	}
	over, stop := context.WithCancel(background)
	stop()
	if gate.Await(over, 1) == nil {
		t.Error("Await returned nil with nobody at the gate")
	}
	must(t, d.Close())
}
