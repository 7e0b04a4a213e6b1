package fusefs

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sluice/block"
)

const (
	rootID = fuse.FUSE_ROOT_ID
	hackID = ^uint64(0) // go-fuse keeps it for itself
)

// tree is the folder: the files by name, by ID and in the order in which they
// came, which is the order of a listing. mu guards it; nothing waits while
// holding it.
type tree struct {
	mu     sync.RWMutex
	byName map[string]*file
	byID   map[uint64]*file
	order  []*file // by serial
	serial uint64
	lastID uint64
	since  int64 // when a file was added or removed last, nanoseconds since 1970
}

// firstSerial leaves 1 and 2 to "." and "..".
const firstSerial = 3

func newTree() *tree {
	now := time.Now()
	return &tree{
		byName: map[string]*file{}, byID: map[uint64]*file{}, serial: firstSerial, since: now.UnixNano(),
		// IDs that this process chooses must differ from those of the one before.
		lastID: uint64(now.UnixNano()),
	}
}

// find looks a file up by its ID; nil when there is none.
func (t *tree) find(id uint64) *file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// named looks a file up by its name; nil when there is none.
func (t *tree) named(name string) *file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byName[name]
}

// free reports whether a file can be added under a name and an ID.
func (t *tree) free(f File) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.byName[f.Name] != nil {
		return block.Errorf(block.Exists, "add file", f.Name, -1, "there is a file of that name already")
	}
	if other := t.byID[f.ID]; f.ID != 0 && other != nil {
		return block.Errorf(block.Exists, "add file", f.Name, -1, "its ID %d is that of %s", f.ID, other.Name)
	}
	return nil
}

// add puts a file in, after free has said that it can.
func (t *tree) add(f *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f.ID == 0 || t.byID[f.ID] != nil {
		t.lastID++
		f.ID = t.lastID
	}
	f.serial = t.serial
	t.serial++
	t.byName[f.Name], t.byID[f.ID] = f, f
	t.order = append(t.order, f)
	t.since = time.Now().UnixNano()
}

// hide takes a file out of the folder; it is still found by its ID.
func (t *tree) hide(f *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName[f.Name] != f {
		return
	}
	delete(t.byName, f.Name)
	if i, found := t.at(f.serial); found {
		t.order = slices.Delete(t.order, i, i+1)
	}
	t.since = time.Now().UnixNano()
}

// forget makes a file's ID unknown.
func (t *tree) forget(f *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, f.ID)
}

func (t *tree) at(serial uint64) (int, bool) {
	return slices.BinarySearchFunc(t.order, serial, func(f *file, s uint64) int { return cmp.Compare(f.serial, s) })
}

// all gives the files in order.
func (t *tree) all() []*file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.order)
}

// known gives all files that requests may still be in, those that were taken out
// of the folder too.
func (t *tree) known() []*file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.byID))
}

// after gives up to n files that stand behind a place in the order. Files that
// come and go while a folder is being listed neither hide nor repeat others.
func (t *tree) after(serial uint64, n int) []*file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, _ := t.at(serial + 1)
	return slices.Clone(t.order[i:min(i+n, len(t.order))])
}

// total is the number of files, their bytes, and when the folder changed.
func (t *tree) total() (files int, bytes int64, since int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, f := range t.order {
		bytes += f.size.Load()
	}
	return len(t.order), bytes, t.since
}
