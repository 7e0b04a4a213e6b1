package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sluice/block"
	"sluice/fusefs"
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
func (g *Gateway) Remounted(ctx context.Context, files *fusefs.FS) error {
	g.files.Store(files) // exports that are opened from here on see to themselves
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
	g.Announce(Event{Kind: Mounted, Detail: files.Dir()})
	return errors.Join(failed...)
}

// refile makes the file of an export in a new mount. One that is still being opened
// when ctx ends makes its file itself.
func (e *export) refile(ctx context.Context, files *fusefs.FS) error {
	if e.control.lock(ctx) != nil {
		return nil
	}
	defer e.control.unlock()
	e.mu.Lock()
	s, waiting, st, gone := e.spec, e.awaited, e.stack, e.gone
	e.mu.Unlock()
	if gone || s.NoFUSE {
		return nil
	}
	if _, err := files.ID(s.Name); err == nil {
		return nil // it was opened in between
	}
	var dev block.Device
	switch {
	case waiting != nil:
		dev = waiting
	case st != nil:
		dev = st.top
	default:
		return nil
	}
	if err := e.addFile(s, dev); err != nil {
		return err
	}
	e.filesChanged(s)
	return nil
}
