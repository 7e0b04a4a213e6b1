package imagecopy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"path"

	"sluice/block"
)

// Stage is a new image that has not got its name yet. It lies in the folder of
// its name under a hidden temporary one. Exactly one of Commit and Abort ends it.
type Stage struct {
	Device block.Device // the image; closed by Commit and Abort

	// Left is the temporary name, when Commit gave the image its own and could not
	// take that one away. Then the image has both.
	Left string

	store     block.Store
	name      string
	temporary string
}

// NewStage makes an image that is to be called name.
func NewStage(ctx context.Context, store block.Store, name string, create block.CreateOptions, open block.OpenOptions) (*Stage, error) {
	_, renames := store.(block.Renamer)
	_, links := store.(block.Linker)
	if !renames && !links {
		return nil, block.Errorf(block.Unsupported, "create", name, -1, "the store cannot rename")
	}
	s := &Stage{store: store, name: name, temporary: temporaryName(name)}
	if err := store.Create(ctx, s.temporary, create); err != nil {
		return nil, err
	}
	var err error
	if s.Device, err = store.Open(ctx, s.temporary, open); err != nil {
		_ = s.remove(ctx)
		return nil, err
	}
	return s, nil
}

// longestBase leaves room in a file name of 255 bytes for what temporaryName adds.
const longestBase = 200

// temporaryName is hidden, tells what it is for, and is not taken.
func temporaryName(name string) string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	dir, base := path.Split(name)
	return dir + "." + base[:min(len(base), longestBase)] + "." + hex.EncodeToString(random[:]) + ".part"
}

// Inherit gives the image, which was made private, the owner and the permissions
// of the one that it is to replace, where the store knows such things. Commit
// does so too; done before the copy it shows early that it is not permitted.
func (s *Stage) Inherit(ctx context.Context) error {
	store, ok := s.store.(block.Inheriter)
	if !ok {
		return nil
	}
	err := store.Inherit(ctx, s.name, s.temporary)
	if block.KindOf(err) == block.NotFound { // the old one is gone: the image stays private
		return nil
	}
	return err
}

// Commit flushes the image, which whoever filled it need not have done, and gives
// it its name. With replace it takes the place of what has that name, atomically,
// and its owner and permissions; otherwise that is an error of kind Exists. When
// Commit fails, nothing is left of the image; only a store that fails while it
// makes the name durable may have given it.
func (s *Stage) Commit(ctx context.Context, replace bool) error {
	err := s.Device.Flush(ctx)
	if e := s.Device.Close(); err == nil {
		err = e
	}
	if err == nil && replace {
		err = s.Inherit(ctx) // they may have changed since the copy began
	}
	if err == nil {
		err = s.publish(ctx, replace)
	}
	if err != nil {
		_ = s.remove(ctx)
	}
	return err
}

// publish goes from the temporary name to the right one.
func (s *Stage) publish(ctx context.Context, replace bool) error {
	if linker, ok := s.store.(block.Linker); ok && !replace {
		err := linker.Link(ctx, s.temporary, s.name)
		switch block.KindOf(err) {
		case block.OK:
			if s.remove(ctx) != nil { // the image is there: that is no failure
				s.Left = s.temporary
			}
			return nil
		case block.Unsupported, block.Permission: // a file system without hard links
		default:
			return err
		}
	}
	if !replace {
		if _, err := s.store.Stat(ctx, s.name); block.KindOf(err) != block.NotFound {
			return block.Errorf(block.Exists, "create", s.name, -1, "")
		}
	}
	renamer, ok := s.store.(block.Renamer)
	if !ok {
		return block.Errorf(block.Unsupported, "create", s.name, -1, "the store cannot rename")
	}
	return renamer.Rename(ctx, s.temporary, s.name)
}

// Abort removes the image.
func (s *Stage) Abort(ctx context.Context) {
	_ = s.Device.Close() // what it held is not wanted
	_ = s.remove(ctx)
}

// remove takes the temporary name away, also when ctx has ended.
func (s *Stage) remove(ctx context.Context) error {
	return s.store.Remove(context.WithoutCancel(ctx), s.temporary)
}
