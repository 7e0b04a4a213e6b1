package mem

import (
	"sync"
	"sync/atomic"
)

const (
	chunkSize   = 64 << 10
	tableChunks = 4096
	tableSize   = tableChunks * chunkSize // 256 MiB of disk under one table of 32 KiB
)

// chunk holds chunkSize bytes. Its lock makes overlapping requests whole within
// a chunk.
type chunk struct {
	mu sync.RWMutex
	b  [chunkSize]byte
}

// reserved stands in a slot for a chunk of zeroes that counts as allocated. Its
// bytes are never touched.
var reserved = new(chunk)

// table has a slot for each chunk: nil is a hole.
type table [tableChunks]atomic.Pointer[chunk]

// reservedTable stands in a slot of the directory for a table of reserved
// chunks, and is never changed, so that zeroing a large disk costs nothing.
var reservedTable = func() *table {
	t := new(table)
	for i := range t {
		t[i].Store(reserved)
	}
	return t
}()

// directory has a slot for each table: nil is a hole.
type directory []atomic.Pointer[table]

func newDirectory(size int64) *directory {
	dir := make(directory, (size+tableSize-1)/tableSize)
	return &dir
}

// slot gives the table slot over off, or nil where a shrinking Resize has just
// cut off the part of the directory that it was in.
func (dir directory) slot(off int64) *atomic.Pointer[table] {
	if i := off / tableSize; i < int64(len(dir)) {
		return &dir[i]
	}
	return nil
}

// tableAt gives the table over off, or nil.
func (d *Device) tableAt(off int64) *table {
	if slot := d.dir.Load().slot(off); slot != nil {
		return slot.Load()
	}
	return nil
}

// chunkAt gives what the slot over off holds: nil, reserved or a chunk.
func (d *Device) chunkAt(off int64) *chunk {
	if t := d.tableAt(off); t != nil {
		return t[off%tableSize/chunkSize].Load()
	}
	return nil
}

// makeChunk gives the chunk over off and puts one there first where none is.
func (d *Device) makeChunk(off int64) *chunk {
	slot := &d.makeTable(off)[off%tableSize/chunkSize]
	for {
		c := slot.Load()
		if c != nil && c != reserved {
			return c
		}
		fresh := new(chunk)
		if slot.CompareAndSwap(c, fresh) {
			return fresh
		}
	}
}

// makeTable gives the table over off that chunks can be put into, and puts one
// there first where none is. That happens under the lock that Resize holds, or
// a table could be put into a directory that was just replaced.
func (d *Device) makeTable(off int64) *table {
	if t := d.tableAt(off); t != nil && t != reservedTable {
		return t
	}
	d.grow.Lock()
	defer d.grow.Unlock()
	old := d.tableAt(off)
	if old != nil && old != reservedTable {
		return old
	}
	t := new(table)
	if old == reservedTable {
		for i := range t {
			t[i].Store(reserved)
		}
	}
	if slot := d.dir.Load().slot(off); slot != nil {
		slot.Store(t)
	}
	return t
}

// setTable replaces all that is under one table: by a hole (nil) or by
// reservedTable.
func (d *Device) setTable(off int64, t *table) {
	d.grow.Lock()
	defer d.grow.Unlock()
	if slot := d.dir.Load().slot(off); slot != nil {
		slot.Store(t)
	}
}

// replaceDirectory makes room for a Device of n bytes and keeps the tables.
func (d *Device) replaceDirectory(n int64) {
	d.grow.Lock()
	defer d.grow.Unlock()
	old, next := *d.dir.Load(), newDirectory(n)
	for i := range min(len(old), len(*next)) {
		(*next)[i].Store(old[i].Load())
	}
	d.dir.Store(next)
}

// clearRange makes n bytes at off zero. Chunks that it covers whole are replaced
// by whole: nil or reserved. In the others that have bytes it zeroes these;
// reserve turns the holes among them into reserved.
func (d *Device) clearRange(off, n int64, whole *chunk) {
	var wholeTable *table
	if whole == reserved {
		wholeTable = reservedTable
	}
	for n > 0 {
		if off%tableSize == 0 && n >= tableSize {
			d.setTable(off, wholeTable)
			off, n = off+tableSize, n-tableSize
			continue
		}
		at := off % chunkSize
		step := min(n, chunkSize-at)
		if step == chunkSize {
			d.setChunk(off, whole)
		} else {
			d.clearPart(off, at, step, whole)
		}
		off, n = off+step, n-step
	}
}

func (d *Device) setChunk(off int64, c *chunk) {
	if d.chunkAt(off) == c {
		return
	}
	d.makeTable(off)[off%tableSize/chunkSize].Store(c)
}

func (d *Device) clearPart(off, at, n int64, whole *chunk) {
	switch c := d.chunkAt(off); c {
	case reserved:
	case nil:
		if whole == reserved {
			d.makeTable(off)[off%tableSize/chunkSize].CompareAndSwap(nil, reserved)
		}
	default:
		c.mu.Lock()
		clear(c.b[at : at+n])
		c.mu.Unlock()
	}
}
