package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	"sluice/block"
)

// bbolt maps its file and believes it: a damaged or shortened one ends the
// process by a signal, or makes it run in circles. So the file is checked first,
// with the layout of bbolt's format 2, whose numbers are in the machine's order:
//
//	page      id u64, flags u16, count u16, overflow u32 (more pages that belong to it)
//	meta      on pages 0 and 1: magic u32, version u32, page size u32, flags u32, root u64, sequence u64,
//	          free list u64, pages u64, transaction u64, FNV-64a of what is before it
//	branch    count times: position u32 from here, key size u32, page u64
//	leaf      count times: flags u32 (1: a bucket), position u32 from here, key size u32, value size u32
//	bucket    as a value: root u64, sequence u64; without a root the bucket's only page follows
const (
	pageHeader = 16
	metaSize   = 64
	elemSize   = 16
	bucketSize = 16

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	branchPage = 0x01
	leafPage   = 0x02
	freePage   = 0x10

	bucketLeaf = 0x01

	noFreeList = ^uint64(0)
)

// maxFile is the largest file that is looked at.
const maxFile = 1 << 30

// verify checks the file's structure. It must not be in use.
func verify(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return block.Wrap(causeOf(err), "open state", path, -1)
	}
	if !st.Mode().IsRegular() {
		return block.Errorf(block.Invalid, "open state", path, -1, "it is no regular file")
	}
	if st.Size() > maxFile {
		return block.Errorf(block.Corrupt, "open state", path, -1, "it has %d bytes, which cannot be", st.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return block.Wrap(causeOf(err), "open state", path, -1)
	}
	if err := verifyData(data); err != nil {
		return block.Errorf(block.Corrupt, "open state", path, -1, "the file is damaged (%w)", err)
	}
	return nil
}

// walk is a walk through a file's pages.
type walk struct {
	data  []byte
	size  uint64 // of a page
	pages uint64
	seen  map[uint64]bool
}

func verifyData(data []byte) error {
	w, root, free, err := newest(data)
	if err != nil {
		return err
	}
	if uint64(len(data)) < w.pages*w.size {
		return fmt.Errorf("it ends at byte %d of %d", len(data), w.pages*w.size)
	}
	if free != noFreeList {
		if err := w.freeList(free); err != nil {
			return err
		}
	}
	return w.page(root, between{})
}

// newest finds the root that counts: the newer of two of which one may be half
// written.
func newest(data []byte) (w *walk, root, free uint64, err error) {
	var best uint64
	for _, at := range []int{0, os.Getpagesize()} {
		if len(data) < at+pageHeader+metaSize {
			continue
		}
		m := data[at+pageHeader:][:metaSize]
		u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
		sum := fnv.New64a()
		_, _ = sum.Write(m[:56])
		size := uint64(u32(m[8:]))
		pages := u64(m[40:])
		if u32(m) != boltMagic || u32(m[4:]) != boltVersion || u64(m[56:]) != sum.Sum64() ||
			size != uint64(os.Getpagesize()) || pages > maxFile/size {
			continue
		}
		if txn := u64(m[48:]); w == nil || txn > best {
			best, root, free = txn, u64(m[16:]), u64(m[32:])
			w = &walk{data: data, size: size, pages: pages, seen: map[uint64]bool{0: true, 1: true}}
		}
	}
	if w == nil {
		return nil, 0, 0, errors.New("its beginning is not that of a state file")
	}
	return w, root, free, nil
}

// take gives a page, with what belongs to it, that nobody else has taken.
func (w *walk) take(id uint64) ([]byte, error) {
	if id >= w.pages {
		return nil, fmt.Errorf("page %d is beyond its end", id)
	}
	head := w.data[id*w.size:]
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || more >= w.pages-id {
		return nil, fmt.Errorf("page %d is none", id)
	}
	for n := id; n <= id+more; n++ {
		if w.seen[n] {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	return head[:(more+1)*w.size], nil
}

func (w *walk) freeList(id uint64) error {
	p, err := w.take(id)
	if err != nil {
		return err
	}
	count, room := uint64(binary.NativeEndian.Uint16(p[10:])), uint64(len(p)-pageHeader)/8
	if count == 0xFFFF { // the number of pages is too large for its place
		count = binary.NativeEndian.Uint64(p[pageHeader:]) + 1
	}
	if binary.NativeEndian.Uint16(p[8:]) != freePage || count > room {
		return fmt.Errorf("page %d is no free list", id)
	}
	return nil
}

// between bounds keys: from is the smallest, to the first one that is too large;
// nil is no bound.
type between struct{ from, to []byte }

func (b between) holds(key []byte) bool {
	return bytes.Compare(key, b.from) >= 0 && (b.to == nil || bytes.Compare(key, b.to) < 0)
}

// page walks through a page and those below it.
func (w *walk) page(id uint64, keys between) error {
	p, err := w.take(id)
	if err != nil {
		return err
	}
	if err := w.elements(p, keys); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements walks through the elements of a page.
func (w *walk) elements(p []byte, keys between) error {
	flags, count := binary.NativeEndian.Uint16(p[8:]), int(binary.NativeEndian.Uint16(p[10:]))
	if flags != branchPage && flags != leafPage || pageHeader+count*elemSize > len(p) {
		return errors.New("it is no page of keys")
	}
	if flags == branchPage && count == 0 {
		return errors.New("it has no keys")
	}
	var all [][]byte
	for i := range count {
		key, err := keyOf(p[pageHeader+i*elemSize:], flags == branchPage)
		if err != nil {
			return err
		}
		if !keys.holds(key) || i > 0 && bytes.Compare(all[i-1], key) >= 0 {
			return errors.New("its keys are out of order")
		}
		all = append(all, key)
	}
	for i := range count {
		at := p[pageHeader+i*elemSize:]
		below := between{all[i], keys.to}
		if i+1 < count {
			below.to = all[i+1]
		}
		if err := w.below(at, flags == branchPage, below); err != nil {
			return err
		}
	}
	return nil
}

// keyOf gives the key of an element, after a look at where it and the value are.
func keyOf(at []byte, branch bool) ([]byte, error) {
	u32 := binary.NativeEndian.Uint32
	pos, size, value := uint64(u32(at[4:])), uint64(u32(at[8:])), uint64(u32(at[12:]))
	if branch {
		pos, size, value = uint64(u32(at)), uint64(u32(at[4:])), 0
	}
	if pos < elemSize || pos+size+value > uint64(len(at)) {
		return nil, errors.New("a key or a value is not in it")
	}
	return at[pos : pos+size], nil
}

// below walks through what an element leads to.
func (w *walk) below(at []byte, branch bool, keys between) error {
	u32 := binary.NativeEndian.Uint32
	if branch {
		return w.page(binary.NativeEndian.Uint64(at[8:]), keys)
	}
	if u32(at)&bucketLeaf == 0 {
		return nil
	}
	from := uint64(u32(at[4:])) + uint64(u32(at[8:]))
	return w.bucket(at[from : from+uint64(u32(at[12:]))])
}

// bucket walks through a bucket.
func (w *walk) bucket(value []byte) error {
	if len(value) < bucketSize {
		return errors.New("a bucket is none")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.page(root, between{})
	}
	if len(value) < bucketSize+pageHeader {
		return errors.New("a bucket is none")
	}
	return w.elements(value[bucketSize:], between{})
}
