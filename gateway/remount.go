package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/spec"
)

// Unmounted is told when somebody else has unmounted the files: exports go on
// without. It does not wait for anything.
func (g *Gateway) Unmounted() {
	g.files.Store(nil)
	g.Announce(Event{Kind: Unmounted, Detail: g.cfg.Files.Dir()})
}

// unmounted says why an export has no file; empty where there never was a mount.
func (g *Gateway) unmounted() string {
	if g.cfg.Files == nil {
		return ""
	}
	return fmt.Sprintf("%s was unmounted; reload the daemon to mount it again", g.cfg.Files.Dir())
}

// Remounted is told of the mount that takes the place of the unmounted one, at the
// same folder, and puts the files of all exports into it, those that are being
// opened included. The error names each export that has none.
//
// Called again with the same mount it makes the files that are missing, such as
// those of exports that were busy before, for as long as ctx lasts; every reload does
// that. Where somebody has unmounted that mount meanwhile, it does nothing.
func (g *Gateway) Remounted(ctx context.Context, files *fusefs.FS) error {
	g.mu.Lock()
	fresh := g.mount != files
	if fresh {
		g.mount = files
		g.files.Store(files) // exports that are opened from here on see to themselves
	}
	g.mu.Unlock()
	if g.files.Load() != files {
		return nil
	}
	var mu sync.Mutex
	var failed []error
	var working sync.WaitGroup
	for _, e := range g.all() {
		working.Go(func() {
			err := block.Wrap(e.refile(ctx, files), "make the FUSE file of", e.name, -1)
			mu.Lock()
			failed = append(failed, err)
			mu.Unlock()
		})
	}
	working.Wait()
	if fresh {
		g.Announce(Event{Kind: Mounted, Detail: files.Dir()})
	}
	return errors.Join(failed...)
}

// refile makes the file of an export in a mount, where it has none. One whose image
// is not open, and that had no file before it is, makes it when it opens. Who does
// something to an export that needs no file is not waited for.
func (e *export) refile(ctx context.Context, files *fusefs.FS) error {
	if _, dev := e.unfiled(files); dev == nil {
		return nil
	}
	if err := e.control.lock(ctx); err != nil {
		return err
	}
	defer e.control.unlock()
	s, dev := e.unfiled(files)
	if dev == nil {
		return nil // it was opened in between, or has ended
	}
	if err := e.addFile(s, dev); err != nil {
		return err
	}
	e.filesChanged(s)
	return nil
}

// unfiled gives what the file of an export that has none is to be made of; no Device
// where it has one, or needs none now.
func (e *export) unfiled(files *fusefs.FS) (spec.Spec, block.Device) {
	e.mu.Lock()
	s, waiting, st, gone := e.spec, e.awaited, e.stack, e.gone
	e.mu.Unlock()
	if gone || s.NoFUSE {
		return s, nil
	}
	if _, err := files.ID(s.Name); err == nil {
		return s, nil
	}
	switch {
	case waiting != nil:
		return s, waiting
	case st != nil:
		return s, st.top
	}
	return s, nil
}
