package fusefs

import (
	"maps"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sluice/block"
)

// xattrMax is the longest list of names, and the longest value, that Linux takes.
const xattrMax = 64 << 10

func checkXattrs(f File) error {
	list := 0
	for name, value := range f.Xattrs {
		list += len(name) + 1
		if !strings.HasPrefix(name, "user.") || len(name) > 255 || hasAny(name, "\x00") || len(value) > xattrMax {
			return block.Errorf(block.Invalid, "add file", f.Name, -1,
				"extended attribute %q: names begin with \"user.\" and have up to 255 bytes, values up to 64 KiB", name)
		}
	}
	if list > xattrMax {
		return block.Errorf(block.Invalid, "add file", f.Name, -1, "the names of the extended attributes are too many")
	}
	return nil
}

// GetXAttr gives the value of an extended attribute, or its length.
func (m *metadata) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	f := m.fs.tree.find(h.NodeId)
	if f == nil {
		return 0, fuse.ENODATA
	}
	value, ok := f.Xattrs[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return fill(dest, value)
}

// ListXAttr gives the names of the extended attributes, or their length.
func (m *metadata) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	f := m.fs.tree.find(h.NodeId)
	if f == nil {
		return 0, fuse.OK
	}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		list.WriteString(name)
		list.WriteByte(0)
	}
	return fill(dest, list.String())
}

func fill(dest []byte, value string) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// SetXAttr refuses: the attributes tell what a file is.
func (m *metadata) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.EPERM
}

// RemoveXAttr refuses.
func (m *metadata) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status {
	return fuse.EPERM
}
