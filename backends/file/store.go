package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Store is a directory. Names cannot leave it, neither by ".." nor through
// symbolic links. Changes are durable when the call returns: the directories
// concerned are synced.
type Store struct {
	cfg  Config // Path is the directory
	root *os.Root
}

func openStore(cfg Config) (*Store, error) {
	root, err := os.OpenRoot(cfg.Path)
	if err != nil {
		return nil, block.Wrap(plain(err), "open", cfg.Path, -1)
	}
	return &Store{cfg: cfg, root: root}, nil
}

// Close frees the store.
func (s *Store) Close() error { return block.Wrap(plain(s.root.Close()), "close", s.cfg.Path, -1) }

// fail makes the error of an operation on a name.
func (s *Store) fail(op, name string, err error) error {
	return block.Wrap(plain(err), op, filepath.Join(s.cfg.Path, name), -1)
}

var errEscape = fmt.Errorf("the name leads out of the store: %w", block.Permission)

// plain takes the error of package os apart, so that operation and path are not
// told twice.
func plain(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	}
	if err != nil && err.Error() == "path escapes from parent" { // os keeps this error to itself
		return errEscape
	}
	return err
}

// check refuses names that are not those of an image.
func (s *Store) check(op, name string) error {
	if name == "" || name == "." || strings.HasSuffix(name, "/") || !filepath.IsLocal(name) {
		return block.Errorf(block.Invalid, op, filepath.Join(s.cfg.Path, name), -1, "%q is not a name inside the store", name)
	}
	return nil
}

// List gives the entries of a folder, named from the top of the store.
func (s *Store) List(_ context.Context, dir string) ([]block.Entry, error) {
	if dir == "" {
		dir = "."
	}
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, s.fail("list", dir, err)
	}
	defer func() { _ = f.Close() }()
	infos, err := f.Readdir(-1)
	if err != nil {
		return nil, s.fail("list", dir, err)
	}
	entries := make([]block.Entry, 0, len(infos))
	for _, info := range infos {
		entries = append(entries, entry(path.Join(dir, info.Name()), info))
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return entries, nil
}

// Stat describes one entry. A symbolic link is followed.
func (s *Store) Stat(_ context.Context, name string) (block.Entry, error) {
	return s.stat(name, s.root.Stat)
}

// Lstat is Stat, but describes a symbolic link itself, as kind "symlink".
func (s *Store) Lstat(_ context.Context, name string) (block.Entry, error) {
	return s.stat(name, s.root.Lstat)
}

func (s *Store) stat(name string, look func(string) (fs.FileInfo, error)) (block.Entry, error) {
	if err := s.check("stat", name); err != nil {
		return block.Entry{}, err
	}
	info, err := look(name)
	if err != nil {
		return block.Entry{}, s.fail("stat", name, err)
	}
	return entry(name, info), nil
}

func entry(name string, info fs.FileInfo) block.Entry {
	e := block.Entry{Name: name, Size: info.Size(), Allocated: -1, ModTime: info.ModTime(), Kind: "other"}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok {
		e.Allocated = st.Blocks * 512
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		e.Kind = "file"
	case mode.IsDir():
		e.Kind, e.Dir, e.Size = "dir", true, 0
	case mode&fs.ModeSymlink != 0:
		e.Kind = "symlink"
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		e.Kind, e.Allocated = "block-device", -1
		if ok {
			e.Size = deviceSize(st.Rdev)
		}
	}
	return e
}

// deviceSize gives the size of a block device without opening it; 0 if unknown.
func deviceSize(rdev uint64) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/size", unix.Major(rdev), unix.Minor(rdev)))
	if err != nil {
		return 0
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return sectors * 512
}

// Open opens an image with the parameters of the store's URL.
func (s *Store) Open(_ context.Context, name string, opts block.OpenOptions) (block.Device, error) {
	if err := s.check("open", name); err != nil {
		return nil, err
	}
	cfg := s.cfg
	cfg.Path = filepath.Join(s.cfg.Path, name)
	d, err := open(cfg, opts, func(flags int) (int, error) { return s.openFD(name, flags) })
	if err != nil {
		return nil, err
	}
	return d, nil
}

// openFD opens a name beneath the root. A duplicate of the descriptor outlives
// the os.File.
func (s *Store) openFD(name string, flags int) (int, error) {
	f, err := s.root.OpenFile(name, flags, 0)
	if err != nil {
		return -1, plain(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return fd, cmp.Or(err, f.Close())
}

// Remove deletes an image. A folder is refused. Of a symbolic link the link goes,
// what it leads to stays.
func (s *Store) Remove(_ context.Context, name string) error {
	if err := s.check("remove", name); err != nil {
		return err
	}
	info, err := s.root.Lstat(name)
	if err == nil && info.IsDir() {
		return block.Errorf(block.Invalid, "remove", filepath.Join(s.cfg.Path, name), -1, "is a directory")
	}
	if err == nil {
		err = s.root.Remove(name)
	}
	if err != nil {
		return s.fail("remove", name, err)
	}
	return s.fail("remove", name, s.syncFolder(name))
}

// Rename gives an image another name and replaces what had that.
func (s *Store) Rename(_ context.Context, from, to string) error {
	if err := cmp.Or(s.check("rename", from), s.check("rename", to)); err != nil {
		return err
	}
	if err := s.root.Rename(from, to); err != nil {
		return s.fail("rename", from, err)
	}
	err := s.syncFolder(to)
	if path.Dir(from) != path.Dir(to) {
		err = cmp.Or(err, s.syncFolder(from))
	}
	return s.fail("rename", from, err)
}

// Link gives an image a second name.
func (s *Store) Link(_ context.Context, from, to string) error {
	if err := cmp.Or(s.check("link", from), s.check("link", to)); err != nil {
		return err
	}
	if err := s.root.Link(from, to); err != nil {
		return s.fail("link", to, err)
	}
	return s.fail("link", to, s.syncFolder(to))
}

// Space gives the size of the file system and what is free to ordinary users.
func (s *Store) Space(context.Context) (total, free int64, err error) {
	f, err := s.root.Open(".")
	if err != nil {
		return 0, 0, s.fail("stat", "", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, s.fail("stat", "", err)
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}

// syncFolder makes the entry of a name durable.
func (s *Store) syncFolder(name string) error {
	f, err := s.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return cmp.Or(f.Sync(), f.Close())
}
