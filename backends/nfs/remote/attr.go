package remote

import "time"

// Type is what sort of thing has a name.
type Type uint8

// The types.
const (
	Other Type = iota // a device, a socket, a pipe
	Regular
	Directory
	Symlink
)

// FileID tells files of a server apart.
type FileID struct {
	FSID [2]uint64
	ID   uint64
}

// Attr are a file's attributes.
type Attr struct {
	Type     Type
	Size     int64 // bytes
	Used     int64 // bytes of space that it takes; -1 where unknown
	ID       FileID
	Links    uint32
	Mode     uint32 // permissions, as chmod takes them
	UID, GID uint32 // ^0 where the server gives a name and no number
	ModTime  time.Time
	Change   uint64 // differs after each change (v4: change; v3: ctime)
}

// SetAttr says which attributes are set: those that are not nil.
type SetAttr struct {
	Size     *int64
	Mode     *uint32
	UID, GID *uint32
}

// Entry is what a folder holds under a name.
type Entry struct {
	Name string
	Attr Attr
}
