package lab

import (
	"bytes"
	"fmt"
)

// cpioArchive builds an archive in cpio's "newc" form, which the kernel unpacks
// into its first root file system. The kernel takes several, one after another.
type cpioArchive struct {
	buf   bytes.Buffer
	inode int
}

// Modes of entries, as stat has them.
const (
	cpioDir  = 0o040755
	cpioFile = 0o100644
	cpioExec = 0o100755
)

// add appends an entry; a folder has no data.
func (a *cpioArchive) add(name string, mode int, data []byte) {
	a.inode++
	// Magic, then 13 fields of eight hexadecimal digits: inode, mode, uid, gid,
	// links, time, size, device (2), device of a device node (2), length of the
	// name with its NUL, checksum.
	fmt.Fprintf(&a.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.buf.WriteString(name)
	a.buf.WriteByte(0)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

// pad fills up to a multiple of four bytes, where headers and data start.
func (a *cpioArchive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// bytes ends the archive and returns it.
func (a *cpioArchive) bytes() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
