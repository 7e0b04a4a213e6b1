package main

import (
	"context"
	"log/slog"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
	"sluice/filters/align"
	"sluice/imagecopy"
)

// target is where copy writes: a stage, which becomes an image when it is whole,
// or a device that exists.
type target struct {
	device block.Device
	store  block.Store
	stage  *imagecopy.Stage // nil: written in place
	old    block.Device     // the image that the stage replaces, held by its lock
}

// fresh reports whether nothing of the destination was there before.
func (t *target) fresh() bool { return t.stage != nil }

// replaces reports whether an older image stays until the copy is whole.
func (t *target) replaces() bool { return t.old != nil }

// openTarget finds out what the destination is.
func (f *copyFlags) openTarget(ctx context.Context, url string, bytes int64) (*target, error) {
	if err := formatGiven(f.format).Check("create", url); err != nil {
		return nil, err
	}
	if err := checkNewName(url); err != nil {
		return nil, err
	}
	t := &target{}
	store, name, err := backends.Locate(ctx, url)
	switch {
	case block.KindOf(err) == block.Unsupported: // an export, or RAM
		return t, f.openInPlace(ctx, t, url, bytes)
	case err != nil:
		return nil, err
	}
	if _, err = store.Stat(ctx, name); block.KindOf(err) != block.NotFound {
		t.old, err = f.openExisting(ctx, url)
		if err != nil || t.old == nil {
			_ = store.Close()
			if err == nil {
				err = f.openInPlace(ctx, t, url, bytes)
			}
			return t, err
		}
	}
	t.store = store
	if err := f.openStage(ctx, t, name, bytes); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openExisting looks at a destination that is there. It gives nil for one to be
// written in place: a device of a fixed size, or a file with --in-place.
// Otherwise the image is to be replaced; as long as it is open, its lock keeps
// others from using it.
func (f *copyFlags) openExisting(ctx context.Context, url string) (block.Device, error) {
	if f.inPlace {
		return nil, nil
	}
	old, err := backends.Open(ctx, url, block.OpenOptions{})
	if err != nil {
		return nil, advise(err, block.Busy, "end the program that uses it")
	}
	if !old.Info().Has(block.CapResize) {
		return nil, old.Close()
	}
	if f.force {
		return old, nil
	}
	_ = old.Close()
	err = block.Errorf(block.Exists, "create", location.Redact(url), -1, "the file exists")
	return nil, advise(err, block.Exists, "--force replaces it, --in-place writes into it")
}

// openInPlace opens a destination that exists.
func (f *copyFlags) openInPlace(ctx context.Context, t *target, url string, bytes int64) error {
	dev, err := openImage(ctx, f.connected(url), f.format, block.OpenOptions{Direct: f.direct})
	if err != nil {
		return err
	}
	if has := dev.Info().Size; has < bytes {
		_ = dev.Close()
		return block.Errorf(block.NoSpace, "copy to", location.Redact(url), -1, "it has %d bytes, the source %d", has, bytes)
	}
	t.device = fit(dev, bytes)
	return nil
}

// openStage makes the new image.
func (f *copyFlags) openStage(ctx context.Context, t *target, name string, bytes int64) error {
	create := block.CreateOptions{Size: bytes, Private: t.replaces()}
	if f.allocated {
		create.Preallocate = block.PreallocateFalloc
	}
	stage, err := imagecopy.NewStage(ctx, t.store, name, create, block.OpenOptions{Direct: f.direct})
	if err != nil {
		return err
	}
	if t.replaces() {
		if err := stage.Inherit(ctx); err != nil {
			stage.Abort(ctx)
			return advise(err, block.Permission, "--in-place writes into it and keeps them")
		}
	}
	t.stage = stage
	t.device = fit(stage.Device, bytes)
	stage.Device = t.device
	return nil
}

// fit lets a source that ends inside a block of the destination be written.
func fit(dev block.Device, bytes int64) block.Device {
	if least := dev.Info().Block.Min; least > 1 && bytes%least != 0 {
		return align.New(dev)
	}
	return dev
}

// end finishes a copy that ended with err: it publishes the new image or takes
// it away.
func (t *target) end(ctx context.Context, err error) error {
	defer t.close()
	switch {
	case t.stage == nil:
		if e := t.device.Close(); err == nil {
			err = e
		}
		return err
	case err != nil:
		t.stage.Abort(ctx)
		return err
	}
	err = t.stage.Commit(ctx, t.old != nil)
	if t.stage.Left != "" {
		slog.Warn("the temporary name could not be removed, the image is complete", "name", t.stage.Left)
	}
	return err
}

// close gives back everything but the device.
func (t *target) close() {
	if t.old != nil {
		_ = t.old.Close() // nothing was written through it
	}
	if t.store != nil {
		_ = t.store.Close()
	}
}
