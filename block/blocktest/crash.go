package blocktest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"sluice/block"
)

// CrashDevice is a Device in memory with a volatile cache, whose power a test
// can cut. It keeps exactly what the contract of [block.Device] promises and
// loses, if it is told to, everything else: of what was not flushed each sector
// of 512 bytes is kept or lost by itself, so that requests survive in any
// order, in part or not at all.
//
// It is unkind in the other things that a Device may do, too: discarded ranges
// read as junk.
type CrashDevice struct {
	calls sync.RWMutex // held for reading by every call, so that Close waits

	mu      sync.Mutex
	info    block.Info
	now     []byte              // what reads see
	states  []block.ExtentState // per sector
	hist    history
	changes int  // how many were let in
	limit   int  // how many may come in; -1: all
	dead    bool // the power is off
	closed  bool

	// inFlight, where a test of this package sets it, is called while a write
	// is in the cache and not yet acknowledged.
	inFlight func()
}

const crashCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard |
	block.CapExtents | block.CapResize | block.CapMultiConn

// NewCrashDevice makes a Device of size bytes that reads as zeroes, nothing of
// it allocated. unit is the smallest request (Info().Block.Min).
func NewCrashDevice(size, unit int64) *CrashDevice {
	return NewCrashDeviceFrom(make([]byte, size), unit)
}

// NewCrashDeviceFrom makes a Device with the given durable content, which it
// takes over.
func NewCrashDeviceFrom(image []byte, unit int64) *CrashDevice {
	d := &CrashDevice{
		now: image, hist: newHistory(bytes.Clone(image)), limit: -1,
		info: block.Info{
			Size: int64(len(image)), Caps: crashCaps,
			Block: block.BlockSize{Min: unit, Preferred: max(unit, 4096)},
		},
	}
	d.states = make([]block.ExtentState, (len(image)+sectorSize-1)/sectorSize)
	for step, at := max(int(unit), sectorSize), 0; at < len(image); at += step { // by blocks, for extents' sake
		end := min(at+step, len(image))
		if allZero(image[at:end]) {
			d.setStates(int64(at), int64(end-at), block.Hole|block.Zero)
		}
	}
	return d
}

// CrashAt lets the power fail during the change (write, zeroing, discard or
// resize) that follows the first n: that one may reach the medium like any
// unflushed one, but fails, and so does every call after it.
func (d *CrashDevice) CrashAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = n
}

// Changes is how many changes were let in so far (an empty one is none).
func (d *CrashDevice) Changes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// Crashed reports whether the power is off.
func (d *CrashDevice) Crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Crash cuts the power, if it is still on, and returns a new Device with what
// may have survived: with a nil rng only what had to, otherwise anything in
// between that and everything. It can be called again for other survivors.
func (d *CrashDevice) Crash(rng *rand.Rand) *CrashDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	return NewCrashDeviceFrom(d.hist.survive(rng), d.info.Block.Min)
}

// Info returns the capabilities and the size.
func (d *CrashDevice) Info() block.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

// begin checks what every call checks. The caller holds mu.
func (d *CrashDevice) begin(op string, off, n int64, flags, known block.Flags) error {
	switch {
	case d.closed:
		return block.Errorf(block.Closed, op, "", off, "")
	case d.dead:
		return block.Errorf(block.IO, op, "", off, "the power is off")
	case flags&^known != 0:
		return block.Errorf(block.Invalid, op, "", off, "unknown flags %#x", flags&^known)
	}
	return block.CheckRange(d.info, op, off, n)
}

// ReadAt fills p with the bytes at off.
func (d *CrashDevice) ReadAt(_ context.Context, p []byte, off int64) error {
	d.calls.RLock()
	defer d.calls.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("read", off, int64(len(p)), 0, 0); err != nil {
		return err
	}
	copy(p, d.now[off:])
	return nil
}

// WriteAt puts p into the cache, with FUA onto the medium as well.
func (d *CrashDevice) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	c := &change{kind: changeData, off: off, n: int64(len(p)), data: bytes.Clone(p)}
	if p == nil {
		c.data = []byte{}
	}
	return d.change("write", c, flags, block.FUA, func() { d.setStates(off, c.n, 0) })
}

// WriteZeroes makes a range read as zeroes.
func (d *CrashDevice) WriteZeroes(_ context.Context, off, n int64, flags block.Flags) error {
	c := &change{kind: changeData, off: off, n: n}
	return d.change("write zeroes", c, flags, block.FUA|block.MayUnmap|block.FastOnly, func() {
		state := block.Hole | block.Zero
		if flags&block.MayUnmap == 0 {
			state = 0
		}
		d.setStates(off, n, state)
	})
}

// Discard replaces a range by junk.
func (d *CrashDevice) Discard(_ context.Context, off, n int64, flags block.Flags) error {
	d.mu.Lock()
	if err := d.begin("discard", off, n, flags, block.FUA); err != nil {
		d.mu.Unlock()
		return err // before n bytes of junk are made
	}
	d.mu.Unlock()
	c := &change{kind: changeData, off: off, n: n, data: pattern(off, n)}
	return d.change("discard", c, flags, block.FUA, func() { d.setStates(off, n, block.Hole) })
}

// Resize sets the size.
func (d *CrashDevice) Resize(_ context.Context, size int64) error {
	if size < 0 || size%d.info.Block.Min != 0 {
		return block.Errorf(block.Invalid, "resize", "", -1, "size %d", size)
	}
	c := &change{kind: changeSize, n: size}
	return d.change("resize", c, 0, 0, nil)
}

// change carries out one change in two steps, since between them it is in
// flight: a flush issued then does not cover it. effect adjusts the states.
func (d *CrashDevice) change(op string, c *change, flags, known block.Flags, effect func()) error {
	d.calls.RLock()
	defer d.calls.RUnlock()
	if logged, err := d.cache(op, c, flags, known, effect); err != nil || !logged {
		return err
	}
	if d.inFlight != nil {
		d.inFlight()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return block.Errorf(block.IO, op, "", c.off, "the power is off")
	}
	c.done = true
	if flags&block.FUA != 0 {
		d.hist.secure([]*change{c})
	}
	return nil
}

// cache is the first step: later reads see the change. It reports whether there
// was one.
func (d *CrashDevice) cache(op string, c *change, flags, known block.Flags, effect func()) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := c.n
	if c.kind == changeSize {
		n = 0
	}
	if err := d.begin(op, c.off, n, flags, known); err != nil {
		return false, err
	}
	if n == 0 && c.kind != changeSize {
		return false, nil
	}
	d.hist.begin(c)
	if d.limit >= 0 && d.changes >= d.limit {
		d.dead = true
		return false, block.Errorf(block.IO, op, "", c.off, "the power failed")
	}
	d.changes++
	if c.kind == changeSize {
		d.setSize(c.n)
	} else {
		put(d.now[c.off:c.off+c.n], c.data)
		effect()
	}
	return true, nil
}

func (d *CrashDevice) setSize(size int64) {
	old := len(d.states)
	d.now = resized(d.now, size)
	d.info.Size = size
	sectors := int((size + sectorSize - 1) / sectorSize)
	if sectors <= old {
		d.states = d.states[:sectors:sectors]
		return
	}
	for range sectors - old {
		d.states = append(d.states, block.Hole|block.Zero)
	}
}

// setStates sets the state of whole sectors; what covers a sector in part can
// only make it data.
func (d *CrashDevice) setStates(off, n int64, state block.ExtentState) {
	for s := off / sectorSize; s*sectorSize < off+n; s++ {
		whole := off <= s*sectorSize && min((s+1)*sectorSize, d.info.Size) <= off+n
		switch {
		case whole || state == 0:
			d.states[s] = state
		case state&block.Zero == 0:
			d.states[s] = 0
		}
	}
}

// Flush makes durable what was done when it was called.
func (d *CrashDevice) Flush(context.Context) error {
	d.calls.RLock()
	defer d.calls.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("flush", 0, 0, 0, 0); err != nil {
		return err
	}
	d.hist.secure(d.hist.finished())
	return nil
}

// Extents tells the states of the sectors.
func (d *CrashDevice) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	d.calls.RLock()
	defer d.calls.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("extents", off, n, 0, 0); err != nil {
		return dst, err
	}
	first := len(dst)
	for end := off + n; off < end; {
		s := off / sectorSize
		run := min(end, (s+1)*sectorSize) - off
		last := len(dst) - 1
		if last >= first && dst[last].State == d.states[s] {
			dst[last].Len += run
		} else if len(dst) == cap(dst) {
			break
		} else {
			dst = append(dst, extent(run, d.states[s]))
		}
		off += run
	}
	return dst, nil
}

func extent(n int64, state block.ExtentState) block.Extent {
	if state&block.Hole != 0 {
		return block.Extent{Len: n, State: state}
	}
	return block.Extent{Len: n, State: state, Depth: 1}
}

// Close waits for the calls in progress. It does not flush: what a crash after
// it leaves behind is the same as before.
func (d *CrashDevice) Close() error {
	d.calls.Lock()
	defer d.calls.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

// EveryCrash lets the power fail at every point of a piece of work. create
// makes the image; work uses it, stops at the first error and returns the check
// of what must hold for whatever survived. For each change that the work makes
// the work is done anew and cut off there, and check is called with several
// survivors, from as little as possible to everything.
func EveryCrash(t testing.TB, create func() *CrashDevice,
	work func(dev *CrashDevice) (check func(t testing.TB, after *CrashDevice)),
) {
	t.Helper()
	const survivors = 6
	for n := 0; ; n++ {
		dev := create()
		dev.CrashAt(n)
		check := work(dev)
		through := !dev.Crashed()
		for i := range survivors {
			var rng *rand.Rand
			if i > 0 {
				rng = rand.New(rand.NewPCG(uint64(n), uint64(i)))
			}
			check(&located{TB: t, where: fmt.Sprintf("crash during change %d, survivors %d", n+1, i)}, dev.Crash(rng))
		}
		if through {
			return
		}
	}
}

// located is a test whose messages say where.
type located struct {
	testing.TB
	where string
}

func (l *located) Errorf(format string, args ...any) {
	l.Helper()
	l.TB.Errorf(l.where+": "+format, args...)
}

func (l *located) Fatalf(format string, args ...any) {
	l.Helper()
	l.TB.Fatalf(l.where+": "+format, args...)
}
