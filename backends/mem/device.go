package mem

import (
	"context"
	"sync"
	"sync/atomic"

	"sluice/block"
	"sluice/block/gate"
)

const caps = block.CapFlush | block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapExtents |
	block.CapPrefetch | block.CapResize | block.CapNowait | block.CapMultiConn | block.CapNowaitWrites

// Device is a disk in RAM. Nothing in it survives the process: a flush and FUA
// are taken and need no work.
type Device struct {
	readOnly bool
	size     atomic.Int64
	gate     gate.Gate
	dir      atomic.Pointer[directory]
	resize   sync.Mutex // held by Resize; taken before grow
	grow     sync.Mutex // held to replace dir and to add or drop a table
}

// New makes a Device of n bytes of zeroes.
func New(n int64) (*Device, error) {
	if err := checkSize("create", n); err != nil {
		return nil, err
	}
	d := new(Device)
	d.size.Store(n)
	d.dir.Store(newDirectory(n))
	return d, nil
}

// Info tells what the Device can do.
func (d *Device) Info() block.Info {
	info := block.Info{
		Size:     d.size.Load(),
		Block:    block.BlockSize{Min: 1, Preferred: 4096},
		Caps:     caps,
		ReadOnly: d.readOnly,
	}
	if d.readOnly {
		info.Caps &^= block.CapFUA | block.CapZero | block.CapFastZero | block.CapDiscard | block.CapResize |
			block.CapNowaitWrites
	}
	return info
}

// enter begins a call on n bytes at off: it checks them and keeps Close waiting
// until leave.
func (d *Device) enter(op string, off, n int64) error {
	if !d.gate.Enter() {
		return block.Errorf(block.Closed, op, "mem", off, "")
	}
	if size := d.size.Load(); off < 0 || n < 0 || off > size || n > size-off {
		d.gate.Leave()
		return block.Errorf(block.OutOfRange, op, "mem", off, "%d bytes at %d do not fit into %d", n, off, size)
	}
	return nil
}

// enterChange is enter for a request that changes bytes and knows the flags in
// known.
func (d *Device) enterChange(op string, off, n int64, flags, known block.Flags) error {
	if err := d.enter(op, off, n); err != nil {
		return err
	}
	err := block.CheckChange(d.readOnly, op, "mem", off, flags&^known)
	if err != nil {
		d.gate.Leave()
	}
	return err
}

// ReadAt fills p from off.
func (d *Device) ReadAt(_ context.Context, p []byte, off int64) error { return d.ReadNowait(p, off) }

// ReadNowait is ReadAt: RAM is at hand.
func (d *Device) ReadNowait(p []byte, off int64) error {
	if err := d.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer d.gate.Leave()
	for len(p) > 0 {
		at := off % chunkSize
		step := min(int64(len(p)), chunkSize-at)
		switch c := d.chunkAt(off); c {
		case nil, reserved:
			clear(p[:step])
		default:
			c.mu.RLock()
			copy(p[:step], c.b[at:])
			c.mu.RUnlock()
		}
		p, off = p[step:], off+step
	}
	return nil
}

// WriteAt stores p at off.
func (d *Device) WriteAt(_ context.Context, p []byte, off int64, flags block.Flags) error {
	if err := d.enterChange("write", off, int64(len(p)), flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	for len(p) > 0 {
		at := off % chunkSize
		step := min(int64(len(p)), chunkSize-at)
		c := d.makeChunk(off)
		c.mu.Lock()
		copy(c.b[at:], p[:step])
		c.mu.Unlock()
		p, off = p[step:], off+step
	}
	return nil
}

// Flush does nothing.
func (d *Device) Flush(context.Context) error {
	if err := d.enter("flush", 0, 0); err != nil {
		return err
	}
	d.gate.Leave()
	return nil
}

// Close waits for the calls in progress and frees the memory.
func (d *Device) Close() error {
	return d.gate.Close(func() error {
		d.dir.Store(new(directory))
		return nil
	})
}

// WriteZeroes makes n bytes at off read as zeroes. It is always fast; with
// MayUnmap whole chunks become holes.
func (d *Device) WriteZeroes(_ context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("write zeroes", off, n, flags, block.FUA|block.MayUnmap|block.FastOnly); err != nil {
		return err
	}
	defer d.gate.Leave()
	whole := reserved
	if flags&block.MayUnmap != 0 {
		whole = nil
	}
	d.clearRange(off, n, whole)
	return nil
}

// Discard makes n bytes at off read as zeroes and whole chunks holes.
func (d *Device) Discard(_ context.Context, off, n int64, flags block.Flags) error {
	if err := d.enterChange("discard", off, n, flags, block.FUA); err != nil {
		return err
	}
	defer d.gate.Leave()
	d.clearRange(off, n, nil)
	return nil
}

// Prefetch does nothing: the bytes are in memory.
func (d *Device) Prefetch(_ context.Context, off, n int64) error {
	if err := d.enter("prefetch", off, n); err != nil {
		return err
	}
	d.gate.Leave()
	return nil
}

// Extents tells chunks that hold data from reserved ones and holes.
func (d *Device) Extents(_ context.Context, off, n int64, dst []block.Extent) ([]block.Extent, error) {
	if err := d.enter("extents", off, n); err != nil {
		return dst, err
	}
	defer d.gate.Leave()
	first := len(dst)
	for n > 0 {
		state, step := d.stateAt(off)
		step = min(step, n)
		if last := len(dst) - 1; last >= first && dst[last].State == state {
			dst[last].Len += step
		} else if len(dst) == cap(dst) {
			break
		} else {
			dst = append(dst, block.Extent{Len: step, State: state, Depth: 1})
		}
		off, n = off+step, n-step
	}
	if len(dst) == first {
		dst = append(dst, block.Extent{Depth: 1})
	}
	return dst, nil
}

// stateAt gives the state at off and for how many bytes it is known to last.
func (d *Device) stateAt(off int64) (block.ExtentState, int64) {
	t := d.tableAt(off)
	switch t {
	case nil:
		return block.Hole | block.Zero, tableSize - off%tableSize
	case reservedTable:
		return block.Zero, tableSize - off%tableSize
	}
	state := block.ExtentState(0)
	switch t[off%tableSize/chunkSize].Load() {
	case nil:
		state = block.Hole | block.Zero
	case reserved:
		state = block.Zero
	}
	return state, chunkSize - off%chunkSize
}

// Resize sets the size. What is cut off is forgotten.
func (d *Device) Resize(_ context.Context, size int64) error {
	if err := d.enterChange("resize", 0, 0, 0, 0); err != nil {
		return err
	}
	defer d.gate.Leave()
	if err := checkSize("resize", size); err != nil {
		return err
	}
	d.resize.Lock()
	defer d.resize.Unlock()
	if old := d.size.Load(); size < old {
		d.size.Store(size)
		d.clearRange(size, old-size, nil)
	}
	d.replaceDirectory(size)
	d.size.Store(size)
	return nil
}
