package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// stale answers a request on a file that is no longer there.
const stale = fuse.Status(syscall.ESTALE)

// metadata answers what is not on the data path: names, attributes, opening and
// closing. go-fuse's ProtocolServer calls it, on the goroutine that read the
// request; nothing in it waits.
type metadata struct {
	fuse.RawFileSystem // the rest, which is not sent or is refused by the loop
	fs                 *FS
}

// String names the file system.
func (m *metadata) String() string { return fsType }

// Lookup finds a file in the folder.
func (m *metadata) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != rootID {
		return fuse.ENOTDIR
	}
	f := m.fs.tree.named(name)
	if f == nil {
		return fuse.ENOENT
	}
	entry(f, out)
	return fuse.OK
}

func entry(f *file, out *fuse.EntryOut) {
	out.NodeId = f.ID
	out.SetEntryTimeout(attrTimeout)
	out.SetAttrTimeout(attrTimeout)
	f.attr(&out.Attr)
}

// Open opens a file. The permissions are the kernel's business
// (default_permissions); that a file is read-only holds for root as well.
func (m *metadata) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f := m.fs.tree.find(in.NodeId)
	if f == nil || !f.enter() {
		return stale
	}
	defer f.leave()
	if f.readOnly && in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	if l, ok := f.pass.backing(); ok {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, l.ID
	}
	if in.Flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // there is nothing of its own to flush
	}
	out.Fh = uint64(newHandle(m.fs.era, m.fs.handles.Add(1)))
	if !f.opens.open() {
		return stale
	}
	f.Observer.Open(+1)
	return fuse.OK
}

// Release is the end of what Open began, when nobody has the file open any more.
func (m *metadata) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f := m.fs.tree.find(in.NodeId)
	if f == nil {
		return
	}
	if f.opens.close(handle(in.Fh)) {
		f.Observer.Open(-1)
	}
}

// OpenDir opens the folder.
func (m *metadata) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.NodeId != rootID {
		return fuse.ENOTDIR
	}
	return fuse.OK
}

// FsyncDir has nothing to do.
func (m *metadata) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// ReadDir lists the folder.
func (m *metadata) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	m.list(in.Offset, func(e fuse.DirEntry, _ *file) bool { return out.AddDirEntry(e) })
	return fuse.OK
}

// ReadDirPlus lists the folder with the files' attributes.
func (m *metadata) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	m.list(in.Offset, func(e fuse.DirEntry, f *file) bool {
		into := out.AddDirLookupEntry(e)
		if into != nil && f != nil {
			entry(f, into)
		}
		return into != nil
	})
	return fuse.OK
}

// listing is how many files are looked at at once.
const listing = 128

// list hands on the entries behind an offset until take has enough of them.
func (m *metadata) list(offset uint64, take func(fuse.DirEntry, *file) bool) {
	for i, name := range [...]string{".", ".."} {
		at := uint64(i + 1)
		if offset < at && !take(fuse.DirEntry{Name: name, Ino: rootID, Mode: syscall.S_IFDIR, Off: at}, nil) {
			return
		}
	}
	offset = max(offset, firstSerial-1)
	for {
		files := m.fs.tree.after(offset, listing)
		for _, f := range files {
			if !take(fuse.DirEntry{Name: f.Name, Ino: f.ID, Mode: syscall.S_IFREG, Off: f.serial}, f) {
				return
			}
			offset = f.serial
		}
		if len(files) < listing {
			return
		}
	}
}

// The rest refuses: files come and go by Add and Remove alone.

// Create refuses.
func (m *metadata) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EPERM
}

// Tmpfile refuses.
func (m *metadata) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.ENOTSUP
}

// Mknod refuses.
func (m *metadata) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Mkdir refuses.
func (m *metadata) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Unlink refuses.
func (m *metadata) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EPERM }

// Rmdir refuses.
func (m *metadata) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EPERM }

// Rename refuses.
func (m *metadata) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.EPERM
}

// Link refuses.
func (m *metadata) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Symlink refuses.
func (m *metadata) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}
