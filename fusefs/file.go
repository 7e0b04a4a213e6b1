package fusefs

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/block"
	"sluice/block/gate"
)

// File is a device and what it looks like in the folder.
type File struct {
	// Name is the file's name: not empty, no slash, not "." or "..", at most 255
	// bytes.
	Name string

	// Device takes requests of any grain (Info().Block.Min is 1). It stays the
	// caller's, who closes it after Remove or Close have returned.
	Device block.Device

	// ID is the file's inode number, and how the kernel names it in requests: any
	// number from 2 on. A client's open file goes on working after a restart of
	// the process only if the file has the same ID then. An ID that meant another
	// file before must not be used again. 0 takes one that was never used.
	ID uint64

	ReadOnly bool   // also true of a Device that is
	Mode     uint32 // permissions; 0 means 0600, or 0400 when read-only
	UID, GID uint32 // the owner

	// Modified is the time of the last change; zero means now.
	Modified time.Time

	// Xattrs are the extended attributes by their whole names ("user.…").
	Xattrs map[string]string

	// Passthrough lets the kernel read and write the local file that the device
	// is a plain view of, where that is so and is allowed (see FS.Passthrough).
	Passthrough bool

	// Observer may be nil.
	Observer Observer
}

// file is a File in service.
type file struct {
	File
	serial   uint64 // its place in the folder's order
	dev      *block.Resolved
	readOnly bool
	observed bool
	size     atomic.Int64
	modified atomic.Int64 // last write, nanoseconds since 1970
	changed  atomic.Int64 // ctime
	unsynced atomic.Bool  // written since the last flush
	flushes  atomic.Int32 // under way
	opens    openings
	gate     gate.Gate // requests in the device; Remove closes it
	ended    ending    // what a device is told when the file is taken away
	work     work
	pass     passthrough
	failures failureLog
}

func newFile(f File, workers int) *file {
	n := &file{File: f, dev: block.Resolve(f.Device)}
	n.readOnly = f.ReadOnly || n.dev.Info.ReadOnly
	if n.Mode == 0 {
		n.Mode = 0o600
		if n.readOnly {
			n.Mode = 0o400
		}
	}
	if n.observed = f.Observer != nil; !n.observed {
		n.Observer = nobody{}
	}
	if n.Modified.IsZero() {
		n.Modified = time.Now()
	}
	n.modified.Store(n.Modified.UnixNano())
	n.changed.Store(n.Modified.UnixNano())
	n.size.Store(f.Device.Info().Size)
	n.ended.done = make(chan struct{})
	n.work.max = workers
	return n
}

// checkFile tells what is wrong with a File, if anything.
func checkFile(f File) error {
	switch {
	case f.Name == "" || f.Name == "." || f.Name == ".." || len(f.Name) > 255 || hasAny(f.Name, "/\x00"):
		return block.Errorf(block.Invalid, "add file", f.Name, -1, "%q cannot be the name of a file", f.Name)
	case f.Device == nil:
		return block.Errorf(block.Invalid, "add file", f.Name, -1, "there is no device")
	case f.Device.Info().Block.Min > 1:
		return block.Errorf(block.Invalid, "add file", f.Name, -1,
			"the device takes whole blocks of %d bytes only, a file needs any grain", f.Device.Info().Block.Min)
	case f.ID == rootID || f.ID == hackID:
		return block.Errorf(block.Invalid, "add file", f.Name, -1, "%d cannot be the ID of a file", f.ID)
	case f.Mode&^0o777 != 0:
		return block.Errorf(block.Invalid, "add file", f.Name, -1, "%#o holds more than permissions", f.Mode)
	}
	return checkXattrs(f)
}

func hasAny(s, chars string) bool {
	for i := range len(chars) {
		for j := range len(s) {
			if s[j] == chars[i] {
				return true
			}
		}
	}
	return false
}

// touch notes a change of the content, before it is made.
func (f *file) touch() {
	f.unsynced.Store(true)
	now := time.Now().UnixNano()
	f.modified.Store(now)
	f.changed.Store(now)
}

// enter lets a request use the device until leave; false when the file is being
// taken away.
func (f *file) enter() bool { return f.gate.Enter() }

func (f *file) leave() { f.gate.Leave() }

// ending is the context of a file's requests: done when the file is taken away
// by force. It is a value of the file, so that a request allocates none.
type ending struct {
	done chan struct{}
	over atomic.Bool
}

func (e *ending) end() {
	if e.over.CompareAndSwap(false, true) {
		close(e.done)
	}
}

func (e *ending) Deadline() (time.Time, bool) { return time.Time{}, false }
func (e *ending) Done() <-chan struct{}       { return e.done }
func (e *ending) Value(any) any               { return nil }

func (e *ending) Err() error {
	if e.over.Load() {
		return context.Canceled
	}
	return nil
}
