package blocktest

import (
	"context"
	"sync"

	"sluice/block"
)

// Durability is a Device around a Device that remembers what was acknowledged,
// and by which flush or FUA made durable. After a crash Check compares that
// with what survived. It keeps the whole content in memory.
//
// Requests may run in parallel where they touch different sectors of 512
// bytes; those that run at the same time must not share one.
type Durability struct {
	dev *block.Resolved

	mu   sync.Mutex
	hist history
}

// durabilityCaps are the powers that Durability passes on.
const durabilityCaps = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard |
	block.CapResize | block.CapExtents | block.CapDepth | block.CapMultiConn | block.CapSerialWrites

// NewDurability begins with the present content of dev, which counts as
// durable. Close closes dev.
func NewDurability(t tester, dev block.Device) *Durability {
	t.Helper()
	content := readDev(t, dev, 0, dev.Info().Size)
	return &Durability{dev: block.Resolve(dev), hist: newHistory(content)}
}

// Check asserts of a Device opened after a crash: every sector holds what was
// last made durable there or something newer that was written, and nothing
// else; discarded ones hold anything.
func (d *Durability) Check(t tester, after block.Device) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	size, ok := d.survivedSize(after.Info().Size)
	if !ok {
		t.Fatalf("after the crash the size is %d, which it never was since it was last durable (%v)",
			after.Info().Size, d.hist.sizes())
	}
	got := readDev(t, after, 0, size.size)
	touched := d.hist.touched()
	for off := int64(0); off < size.size; off += sectorSize {
		s := off / sectorSize
		content := got[off:min(off+sectorSize, size.size)]
		o := d.hist.outcomes(s, touched[s], size)
		if !o.allows(content) {
			t.Fatalf("after the crash the sector at %d holds %.32x…, which is neither what was made durable (%.32x…) "+
				"nor newer (%d possible contents)", off, content, o.contents[0][:], len(o.contents))
		}
	}
}

// survivedSize finds the oldest point at which the size was as it is now.
func (d *Durability) survivedSize(size int64) (sizeAt, bool) {
	for _, s := range d.hist.sizes() {
		if s.size == size {
			return s, true
		}
	}
	return sizeAt{}, false
}

// run carries out one change between its two entries in the history.
func (d *Durability) run(c *change, flags block.Flags, call func() error) error {
	d.mu.Lock()
	d.hist.begin(c)
	d.mu.Unlock()
	err := call()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch block.KindOf(err) {
	case block.OK:
	case block.Unsupported, block.Invalid, block.OutOfRange, block.ReadOnly:
		c.kind, c.n, c.data, c.done = changeData, 0, []byte{}, true // refused: nothing happened
		return err
	default:
		return err
	}
	c.done = true
	if flags&block.FUA != 0 {
		d.hist.secure([]*change{c})
	}
	return nil
}

// Info returns what the Device below can do, as far as it is passed on.
func (d *Durability) Info() block.Info {
	i := d.dev.Device.Info()
	i.Caps &= durabilityCaps
	return i
}

// ReadAt passes on.
func (d *Durability) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.dev.ReadAt(ctx, p, off)
}

// WriteAt passes on and remembers.
func (d *Durability) WriteAt(ctx context.Context, p []byte, off int64, flags block.Flags) error {
	c := &change{off: off, n: int64(len(p)), data: append([]byte{}, p...)}
	return d.guarded("write", c, flags, func() error { return d.dev.WriteAt(ctx, p, off, flags) })
}

// WriteZeroes passes on and remembers.
func (d *Durability) WriteZeroes(ctx context.Context, off, n int64, flags block.Flags) error {
	c := &change{off: off, n: n}
	return d.guarded("write zeroes", c, flags, func() error { return d.dev.Zeroer.WriteZeroes(ctx, off, n, flags) })
}

// Discard passes on and remembers.
func (d *Durability) Discard(ctx context.Context, off, n int64, flags block.Flags) error {
	c := &change{kind: changeDiscard, off: off, n: n}
	return d.guarded("discard", c, flags, func() error { return d.dev.Discarder.Discard(ctx, off, n, flags) })
}

// guarded keeps ranges that make no sense out of the history.
func (d *Durability) guarded(op string, c *change, flags block.Flags, call func() error) error {
	if c.n == 0 || block.CheckRange(d.dev.Device.Info(), op, c.off, c.n) != nil {
		return call()
	}
	return d.run(c, flags, call)
}

// Resize passes on and remembers.
func (d *Durability) Resize(ctx context.Context, size int64) error {
	if size < 0 {
		return d.dev.Resizer.Resize(ctx, size)
	}
	return d.run(&change{kind: changeSize, n: size}, 0, func() error { return d.dev.Resizer.Resize(ctx, size) })
}

// Flush passes on; what was acknowledged before it is durable afterwards.
func (d *Durability) Flush(ctx context.Context) error {
	d.mu.Lock()
	list := d.hist.finished()
	d.mu.Unlock()
	if err := d.dev.Flush(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hist.secure(list)
	return nil
}

// Extents passes on.
func (d *Durability) Extents(ctx context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	return d.dev.Extenter.Extents(ctx, off, n, dst)
}

// Close closes the Device below.
func (d *Durability) Close() error { return d.dev.Close() }
