package block

import (
	"context"
	"time"
)

// Store is a place that holds images by name: a directory, an NFS export, a
// volume group, a Gluster volume. Names are relative, with slashes where the
// store has folders. All methods may be called by many goroutines at once.
type Store interface {
	// List gives the entries of a folder ("" is the top), sorted by name; names
	// are relative to the store, not to the folder.
	List(ctx context.Context, dir string) ([]Entry, error)

	// Stat describes one entry.
	Stat(ctx context.Context, name string) (Entry, error)

	// Create makes an image that reads as zeroes. It fails with Exists when
	// the name is taken: of several creators at once one wins. When it fails,
	// nothing is left behind; when it returns nil, the entry is durable.
	Create(ctx context.Context, name string, opts CreateOptions) error

	// Open opens an image.
	Open(ctx context.Context, name string, opts OpenOptions) (Device, error)

	// Remove deletes an image.
	Remove(ctx context.Context, name string) error

	// Close frees the store; Devices opened through it stay usable.
	Close() error
}

// Renamer is a Store that can rename. A domain's commits rest on it.
type Renamer interface {
	// Rename gives an image another name, atomically and durably, replacing
	// what had that name.
	Rename(ctx context.Context, from, to string) error
}

// Linker is a Store that can give an image a second name.
type Linker interface {
	// Link fails with Exists when the new name is taken.
	Link(ctx context.Context, from, to string) error
}

// Inheriter is a Store in which an image can be given the owner and the
// permissions of another.
type Inheriter interface {
	// Inherit gives them from one to the other. It fails with NotFound when the
	// first is not there.
	Inherit(ctx context.Context, from, to string) error
}

// LinkTeller is a Store whose entries can be links to others, which Stat
// follows.
type LinkTeller interface {
	// Lstat is Stat, but describes a link itself, as kind "symlink".
	Lstat(ctx context.Context, name string) (Entry, error)
}

// SpaceTeller is a Store that knows its size.
type SpaceTeller interface {
	// Space gives the bytes in all and those still free.
	Space(ctx context.Context) (total, free int64, err error)
}

// Entry describes what a Store holds under a name.
type Entry struct {
	Name      string
	Dir       bool
	Size      int64     // bytes as a client sees them
	Allocated int64     // bytes in use below; -1 where unknown
	ModTime   time.Time // zero where unknown
	Kind      string    // "file", "dir", "block-device", "target", "lun", "lv" …
}

// Preallocation says how much of an image's space Create claims.
type Preallocation string

// The preallocation modes, named as qemu-img names them.
const (
	PreallocateOff      Preallocation = "off"      // nothing: a sparse file
	PreallocateMetadata Preallocation = "metadata" // the format's own tables; for raw like off
	PreallocateFalloc   Preallocation = "falloc"   // space is reserved and reads as zeroes
	PreallocateFull     Preallocation = "full"     // zeroes are written
)

// CreateOptions shape a new image.
type CreateOptions struct {
	Size        int64
	Preallocate Preallocation // "" means off
	// Private lets nobody but the caller open the image, where the store knows
	// owners, until it is told otherwise.
	Private bool
}

// OpenOptions shape an open Device.
type OpenOptions struct {
	ReadOnly bool
	// Direct bypasses the page cache.
	Direct bool
	// Unlocked leaves out the image lock that keeps a second writer away.
	Unlocked bool
	// Share permits other writers at the same time (QEMU's share-rw): the
	// caller knows that they coordinate.
	Share bool
	// Held says that somebody above holds requests while the storage is away: the
	// Device tells of that soon, as Transient, where nothing says how long it is to
	// wait by itself.
	Held bool
}
