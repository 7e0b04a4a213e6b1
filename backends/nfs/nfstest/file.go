package nfstest

import (
	"fmt"
	"path"
)

// File is a file of the tree as a test sees it, without any protocol.
type File struct {
	srv  *Server
	path string
}

// File is the file at a path of the tree, such as "/export/disk.img", when it is asked.
func (s *Server) File(path string) File { return File{s, path} }

// look calls do with the file, or panics: a test that asks for a file that is not there
// is wrong.
func (f File) look(do func(n *inode)) {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	n := f.srv.tree.walk(f.path)
	if n == nil || n.kind != kindFile {
		panic(fmt.Sprintf("nfstest: %s is not a file of the tree", f.path))
	}
	do(n)
}

// Bytes is the content as clients see it.
func (f File) Bytes() (p []byte) {
	f.look(func(n *inode) { p = n.data.now.bytes(0, n.data.now.size) })
	return p
}

// Durable is the content as a crash would leave it.
func (f File) Durable() (p []byte) {
	f.look(func(n *inode) { p = n.data.safe.bytes(0, n.data.safe.size) })
	return p
}

// Read is a range of the content as clients see it, and as a crash would leave it.
func (f File) Read(offset, length int64) (now, durable []byte) {
	f.look(func(n *inode) {
		now, durable = n.data.now.bytes(offset, length), n.data.safe.bytes(offset, length)
	})
	return now, durable
}

// Size is the size as clients see it; used is how many bytes are not holes.
func (f File) Size() (size, used int64) {
	f.look(func(n *inode) { size, used = n.data.now.size, int64(n.data.used()) })
	return size, used
}

// ID is the fileid.
func (f File) ID() (id uint64) {
	f.look(func(n *inode) { id = n.id })
	return id
}

// Handle is the file handle.
func (f File) Handle() (handle []byte) {
	f.look(func(n *inode) { handle = n.handle() })
	return handle
}

// WriteAt changes the content behind the back of all clients; it is durable.
func (f File) WriteAt(p []byte, offset int64) {
	f.look(func(n *inode) {
		n.data.write(p, offset, true)
		n.touch(true)
	})
}

// Exists reports whether there is anything at a path.
func (s *Server) Exists(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.walk(path) != nil
}

// Mkdir makes a directory and those above it, as far as they are not there.
func (s *Server) Mkdir(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mkdir(path.Clean("/" + name))
}

func (s *Server) mkdir(name string) *inode {
	if n := s.tree.walk(name); n != nil {
		return n
	}
	dir := s.mkdir(path.Dir(name))
	n := s.tree.make(kindDir, 0o755)
	s.tree.link(dir, path.Base(name), n)
	return n
}

// Create makes a file with a durable content, over one that is there; Size of a larger
// one, all hole, is set with Truncate.
func (s *Server) Create(name string, content []byte) File {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = path.Clean("/" + name)
	n := s.tree.walk(name)
	if n == nil {
		n = s.tree.make(kindFile, 0o644)
		s.tree.link(s.mkdir(path.Dir(name)), path.Base(name), n)
	}
	n.data.resize(0)
	n.data.write(content, 0, true)
	n.touch(true)
	return File{s, name}
}

// Truncate sets the size, durably.
func (f File) Truncate(size int64) File {
	f.look(func(n *inode) {
		n.data.resize(size)
		n.touch(true)
	})
	return f
}

// Symlink makes a symbolic link.
func (s *Server) Symlink(target, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.make(kindSymlink, 0o777)
	n.target = target
	name = path.Clean("/" + name)
	s.tree.link(s.mkdir(path.Dir(name)), path.Base(name), n)
}

// Remove takes a name away behind the back of all clients: handles of it go stale,
// opens of it are gone.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = path.Clean("/" + name)
	n := s.tree.walk(name)
	if n == nil || n == s.tree.root {
		return
	}
	for len(n.states) > 0 {
		s.endState(n.states[0])
	}
	s.tree.unlink(s.tree.walk(path.Dir(name)), path.Base(name))
}
