package nfs

import (
	"cmp"
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sluice/backends/nfs/remote"
	"sluice/block"
)

// Store is a folder of a server. Names cannot leave it by ".."; symbolic links in it
// lead where the server's administrator lets them. Changes are durable when the call
// returns.
type Store struct {
	pool   *pool
	cfg    Config // Path is the folder
	client *shared
	tree   remote.Tree
}

func openStore(ctx context.Context, clients *pool, cfg Config) (*Store, error) {
	client, err := clients.get(ctx, &cfg)
	if err != nil {
		return nil, block.Wrap(err, "open", cfg.url(cfg.Path), -1)
	}
	s := &Store{pool: clients, cfg: cfg, client: client, tree: client.client.Tree()}
	a, err := s.tree.Stat(ctx, cfg.Path, true)
	if err == nil && a.Type != remote.Directory {
		err = block.Errorf(block.Invalid, "open", cfg.url(cfg.Path), -1, "is not a folder")
	}
	if err != nil {
		_ = client.release() // the first error is the one to tell
		return nil, s.fail("open", "", err)
	}
	return s, nil
}

// Close frees the store.
func (s *Store) Close() error { return s.fail("close", "", s.client.release()) }

// path is where a name is on the server.
func (s *Store) path(name string) string { return path.Join(s.cfg.Path, name) }

// fail makes the error of an operation on a name.
func (s *Store) fail(op, name string, err error) error {
	return block.Wrap(err, op, s.cfg.url(s.path(name)), -1)
}

// check refuses names that are not those of an image.
func (s *Store) check(op, name string) error {
	if name == "" || path.Clean(name) == "." || strings.HasSuffix(name, "/") || strings.IndexByte(name, 0) >= 0 || !filepath.IsLocal(name) {
		return block.Errorf(block.Invalid, op, s.cfg.url(s.cfg.Path), -1, "%q is not a name inside the store", name)
	}
	return nil
}

// List gives the entries of a folder, named from the top of the store.
func (s *Store) List(ctx context.Context, dir string) ([]block.Entry, error) {
	if dir != "" && dir != "." {
		if err := s.check("list", strings.TrimRight(dir, "/")); err != nil {
			return nil, err
		}
	}
	found, err := s.tree.List(ctx, s.path(dir))
	if err != nil {
		return nil, s.fail("list", dir, err)
	}
	entries := make([]block.Entry, 0, len(found))
	for _, e := range found {
		if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
			continue // no name that could be asked for
		}
		entries = append(entries, entry(path.Join(dir, e.Name), e.Attr))
	}
	slices.SortFunc(entries, func(a, b block.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// Stat describes one entry. A symbolic link is followed.
func (s *Store) Stat(ctx context.Context, name string) (block.Entry, error) {
	return s.stat(ctx, name, true)
}

// Lstat is Stat, but describes a symbolic link itself, as kind "symlink".
func (s *Store) Lstat(ctx context.Context, name string) (block.Entry, error) {
	return s.stat(ctx, name, false)
}

func (s *Store) stat(ctx context.Context, name string, follow bool) (block.Entry, error) {
	if err := s.check("stat", name); err != nil {
		return block.Entry{}, err
	}
	a, err := s.tree.Stat(ctx, s.path(name), follow)
	if err != nil {
		return block.Entry{}, s.fail("stat", name, err)
	}
	return entry(name, a), nil
}

const kindSymlink = "symlink"

func entry(name string, a remote.Attr) block.Entry {
	e := block.Entry{Name: name, Size: a.Size, Allocated: a.Used, ModTime: a.ModTime, Kind: "other"}
	switch a.Type {
	case remote.Regular:
		e.Kind = "file"
	case remote.Directory:
		e.Kind, e.Dir, e.Size = "dir", true, 0
	case remote.Symlink:
		e.Kind = kindSymlink
	}
	return e
}

// Open opens an image with the parameters of the store's URL.
func (s *Store) Open(ctx context.Context, name string, opts block.OpenOptions) (block.Device, error) {
	if err := s.check("open", name); err != nil {
		return nil, err
	}
	d, err := open(ctx, s.pool, s.cfg.at(s.path(name)), opts)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Remove deletes an image. A folder is refused. Of a symbolic link the link goes, what
// it leads to stays.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.check("remove", name); err != nil {
		return err
	}
	a, err := s.tree.Stat(ctx, s.path(name), false)
	if err == nil && a.Type == remote.Directory {
		return block.Errorf(block.Invalid, "remove", s.cfg.url(s.path(name)), -1, "is a directory")
	}
	if err == nil {
		err = s.tree.Remove(ctx, s.path(name))
	}
	return s.fail("remove", name, err)
}

// Rename gives an image another name and replaces what had that.
func (s *Store) Rename(ctx context.Context, from, to string) error {
	if err := cmp.Or(s.check("rename", from), s.check("rename", to)); err != nil {
		return err
	}
	return s.fail("rename", from, s.tree.Rename(ctx, s.path(from), s.path(to)))
}

// Link gives an image a second name.
func (s *Store) Link(ctx context.Context, from, to string) error {
	if err := cmp.Or(s.check("link", from), s.check("link", to)); err != nil {
		return err
	}
	return s.fail("link", to, s.tree.Link(ctx, s.path(from), s.path(to)))
}

// Space gives the size of the file system that holds the folder, and what is free to
// this user.
func (s *Store) Space(ctx context.Context) (total, free int64, err error) {
	setter, err := s.setter()
	if err == nil {
		total, free, err = setter.Space(ctx, s.cfg.Path)
	}
	return total, free, s.fail("stat", "", err)
}

func (s *Store) setter() (remote.TreeSetter, error) {
	if setter, ok := s.tree.(remote.TreeSetter); ok {
		return setter, nil
	}
	return nil, block.Unsupported
}

// nobody is the owner that a server gives by a name which has no number.
const nobody = ^uint32(0)

// Inherit gives the image to the owner and the group of the image from, and its
// permissions, the mode last: until then the image is private. Set-user-ID bits and the
// like are left out, and so are access control lists.
func (s *Store) Inherit(ctx context.Context, from, to string) error {
	const op = "keep the owner and mode of"
	if err := cmp.Or(s.check(op, from), s.check(op, to)); err != nil {
		return err
	}
	old, err := s.tree.Stat(ctx, s.path(from), true)
	if err != nil {
		return s.fail(op, from, err)
	}
	now, err := s.tree.Stat(ctx, s.path(to), true)
	if err != nil {
		return s.fail("stat", to, err)
	}
	setter, err := s.setter()
	if err == nil {
		err = inherit(ctx, setter, s.path(to), old, now)
	}
	return s.fail(op, from, err)
}

func inherit(ctx context.Context, tree remote.TreeSetter, path string, old, now remote.Attr) error {
	if old.UID == nobody || old.GID == nobody {
		return block.Errorf(block.Unsupported, "set the owner", "", -1, "the server gives the owner by a name that has no number")
	}
	if old.UID != now.UID || old.GID != now.GID {
		if err := tree.Set(ctx, path, remote.SetAttr{UID: &old.UID, GID: &old.GID}); err != nil {
			return err
		}
	}
	mode := old.Mode & 0o777
	return tree.Set(ctx, path, remote.SetAttr{Mode: &mode})
}
