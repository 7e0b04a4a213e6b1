package fusefs

import (
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// attrTimeout is how long the kernel may answer a stat by itself. What changes
// a file tells the kernel (notify.go), except writes that reach the device by
// other ways, whose time of change it learns of that late.
const attrTimeout = time.Second

// blockSize is what st_blksize and statfs speak of: the cheapest request.
const blockSize = 4096

func (f *file) attr(a *fuse.Attr) {
	size := f.size.Load()
	*a = fuse.Attr{
		Ino: f.ID, Size: uint64(size), Blocks: uint64(size+511) / 512, Blksize: blockSize,
		Mode: syscall.S_IFREG | f.Mode, Nlink: 1, Owner: fuse.Owner{Uid: f.UID, Gid: f.GID},
	}
	modified := f.modified.Load()
	if at, blocks, ok := f.pass.status(); ok { // the kernel writes without telling us
		modified, a.Blocks = max(modified, at), blocks
	}
	setTimes(a, modified, max(modified, f.changed.Load()))
}

func (fs *FS) rootAttr(a *fuse.Attr) {
	_, _, since := fs.tree.total()
	*a = fuse.Attr{
		Ino: rootID, Size: blockSize, Blocks: blockSize / 512, Blksize: blockSize,
		Mode: syscall.S_IFDIR | 0o555, Nlink: 2,
		Owner: fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())},
	}
	setTimes(a, since, since)
}

func setTimes(a *fuse.Attr, modified, changed int64) {
	const second = int64(time.Second)
	a.Mtime, a.Mtimensec = uint64(modified/second), uint32(modified%second)
	a.Atime, a.Atimensec = a.Mtime, a.Mtimensec
	a.Ctime, a.Ctimensec = uint64(changed/second), uint32(changed%second)
}

// GetAttr answers stat.
func (m *metadata) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(attrTimeout)
	if in.NodeId == rootID {
		m.fs.rootAttr(&out.Attr)
		return fuse.OK
	}
	f := m.fs.tree.find(in.NodeId)
	if f == nil {
		return stale
	}
	f.attr(&out.Attr)
	return fuse.OK
}

// SetAttr takes times, and a size that is the one that the file has: owner,
// permissions and size are the export's, not the client's.
func (m *metadata) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == rootID {
		return fuse.EPERM
	}
	f := m.fs.tree.find(in.NodeId)
	if f == nil {
		return stale
	}
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return fuse.EPERM
	}
	if size, ok := in.GetSize(); ok && int64(size) != f.size.Load() {
		return fuse.EPERM
	}
	if at, ok := in.GetMTime(); ok {
		f.modified.Store(at.UnixNano())
	}
	f.changed.Store(time.Now().UnixNano())
	out.SetTimeout(attrTimeout)
	f.attr(&out.Attr)
	return fuse.OK
}

// StatFs says how large all files are together; no more can be made.
func (m *metadata) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	files, bytes, _ := m.fs.tree.total()
	*out = fuse.StatfsOut{
		Blocks: uint64(bytes+blockSize-1) / blockSize, Bsize: blockSize, Frsize: blockSize,
		Files: uint64(files) + 1, NameLen: 255,
	}
	return fuse.OK
}
