package nfstest

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// The kinds of file, numbered as ftype3 and nfs_ftype4 both do.
const (
	kindFile    = 1
	kindDir     = 2
	kindSymlink = 5
)

const maxName = 255

// inode is a file, a directory or a symbolic link. What is in directories, and
// attributes, is durable at once.
type inode struct {
	id                  uint64
	kind                uint32
	mode                uint32
	uid, gid            uint32
	links               uint32
	change              uint64
	atime, mtime, ctime time.Time

	data    *content
	target  string
	created [8]byte // verifier of an exclusive creation

	parent  *inode
	entries []dirent // in the order of their cookies
	next    uint64   // the last cookie that was given

	states []*state // opens, locks and delegations of NFSv4
}

type dirent struct {
	name   string
	cookie uint64
	node   *inode
}

// tree is the file system.
type tree struct {
	root  *inode
	nodes map[uint64]*inode
	last  uint64
}

func newTree() *tree {
	t := &tree{nodes: map[uint64]*inode{}}
	t.root = t.make(kindDir, 0o755)
	t.root.links = 2
	t.root.parent = t.root
	return t
}

// make makes an inode without a name.
func (t *tree) make(kind, mode uint32) *inode {
	t.last++
	now := time.Now()
	n := &inode{id: t.last, kind: kind, mode: mode & 0o7777, change: 1, atime: now, mtime: now, ctime: now}
	switch kind {
	case kindFile:
		n.data = newContent()
	case kindDir:
		n.next = 3 // 1 and 2 are for entries that the protocol does not have
	}
	t.nodes[n.id] = n
	return n
}

// touch marks a change of the attributes, and of the content if data says so.
func (n *inode) touch(data bool) {
	n.change++
	n.ctime = time.Now()
	if data {
		n.mtime = n.ctime
	}
}

func (n *inode) size() uint64 {
	switch n.kind {
	case kindFile:
		return uint64(n.data.now.size)
	case kindSymlink:
		return uint64(len(n.target))
	}
	return pageSize
}

func (n *inode) used() uint64 {
	if n.kind == kindFile {
		return n.data.used()
	}
	return pageSize
}

func (n *inode) find(name string) *inode {
	for _, e := range n.entries {
		if e.name == name {
			return e.node
		}
	}
	return nil
}

// link gives a node a name in a directory.
func (t *tree) link(dir *inode, name string, n *inode) {
	dir.next++
	dir.entries = append(dir.entries, dirent{name: name, cookie: dir.next, node: n})
	dir.touch(true)
	n.links++
	if n.kind == kindDir {
		n.links = 2
		n.parent = dir
		dir.links++
	}
	n.touch(false)
}

// detach takes a name away.
func (t *tree) detach(dir *inode, name string) *inode {
	i := slices.IndexFunc(dir.entries, func(e dirent) bool { return e.name == name })
	n := dir.entries[i].node
	dir.entries = append(dir.entries[:i:i], dir.entries[i+1:]...)
	dir.touch(true)
	if n.kind == kindDir {
		dir.links--
		n.links = 0
	} else {
		n.links--
	}
	n.touch(false)
	return n
}

// unlink takes a name away, and the node when nobody names or holds it any more.
func (t *tree) unlink(dir *inode, name string) { t.settle(t.detach(dir, name)) }

// settle forgets a node that has no name and no open.
func (t *tree) settle(n *inode) {
	if n.links == 0 && len(n.states) == 0 {
		delete(t.nodes, n.id)
	}
}

// walk follows a path from the root, and is nil when it leads nowhere.
func (t *tree) walk(path string) *inode {
	n := t.root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		if n.kind != kindDir {
			return nil
		}
		if n = n.find(name); n == nil {
			return nil
		}
	}
	return n
}

// within reports whether n is dir or lies below it.
func (n *inode) within(dir *inode) bool {
	for ; n != n.parent; n = n.parent {
		if n == dir {
			return true
		}
	}
	return n == dir
}

// rename moves a name, over another if there is one. It returns a status.
func (t *tree) rename(from *inode, old string, to *inode, name string) uint32 {
	n, over := from.find(old), to.find(name)
	switch {
	case n == nil:
		return errNoEnt
	case n == over:
		return ok
	case n.kind == kindDir && to.within(n):
		return errInval
	case over != nil && (n.kind == kindDir) != (over.kind == kindDir):
		return errExist
	case over != nil && over.kind == kindDir && len(over.entries) > 0:
		return errExist
	case over != nil:
		t.unlink(to, name)
	}
	t.link(to, name, t.detach(from, old))
	return ok
}

// badName is the status of a name that cannot be one.
func badName(name string) uint32 {
	switch {
	case name == "":
		return errInval
	case len(name) > maxName:
		return errNameTooLong
	case name == "." || name == "..":
		return errBadName
	case strings.ContainsAny(name, "/\x00"):
		return errBadChar
	}
	return ok
}

// handleMagic begins every file handle, so that one of another server is seen.
const handleMagic = "nfstest\x01"

// handle is the file handle of a node; it outlives restarts.
func (n *inode) handle() []byte {
	return binary.BigEndian.AppendUint64([]byte(handleMagic), n.id)
}

// at finds the node of a handle, or says with a status why not.
func (t *tree) at(handle []byte) (*inode, uint32) {
	id, found := strings.CutPrefix(string(handle), handleMagic)
	if !found || len(id) != 8 {
		return nil, errBadHandle
	}
	n := t.nodes[binary.BigEndian.Uint64([]byte(id))]
	if n == nil {
		return nil, errStale
	}
	return n, ok
}
