package daemon

import (
	"context"
	"fmt"
	"path/filepath"

	"sluice/block"
)

// mounted reports whether there is a mount, as far as anybody knows.
func (f *files) mounted() bool {
	if f == nil {
		return false
	}
	select {
	case <-f.lost:
		return false
	default:
		return true
	}
}

// problem says what is wrong with the mount and what to do; empty when nothing is.
func (f *files) problem() string {
	if f == nil || f.mounted() {
		return ""
	}
	return fmt.Sprintf("%s was unmounted; reload the daemon (SIGHUP) to mount it again", f.dir)
}

// guard waits for the end of a mount. When that comes from outside, the exports go
// on without it.
func (d *daemon) guard(f *files) {
	if f == nil {
		return
	}
	d.serving.Go(func() {
		select {
		case <-d.ending:
			return
		case <-f.fs.Done():
		}
		d.losing.Lock()
		defer d.losing.Unlock()
		select {
		case <-d.ending: // it was us
		default:
			f.lose()
		}
	})
}

// lose gives up a mount that is gone. What is still in a device is not waited for.
func (f *files) lose() {
	close(f.lost)
	f.d.Log.Error("the FUSE mount was unmounted from outside; exports go on without files, a reload (SIGHUP) mounts it again", "mount", f.dir)
	f.d.gw.Unmounted()
	if f.memory != nil {
		for _, name := range []string{storedMount, storedState} {
			f.d.tell(f.d.notifier.RemoveFD(name))
		}
	}
	go func() {
		defer close(f.gone)
		if err := f.fs.Close(); err != nil {
			f.d.Log.Warn("what is left of the FUSE mount cannot be given up", "mount", f.dir, "err", err)
		}
		if f.memory != nil {
			_ = f.memory.close()
		}
	}()
}

// remount mounts again what somebody else has unmounted, where the configuration
// still has it; in a mount that is there, it makes the files that are missing. The
// caller holds reloading.
func (d *daemon) remount(ctx context.Context) error {
	old := d.files.Load()
	if old == nil || d.Config.FUSE == "" || filepath.Clean(d.Config.FUSE) != old.dir {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, openWait)
	defer done()
	if old.mounted() {
		return d.gw.Remounted(ctx, old.fs)
	}
	select {
	case <-old.gone: // before: it could take the new mount for its own
	case <-ctx.Done():
		return block.Errorf(block.Busy, "mount", old.dir, -1, "requests of the mount before are still in a device; reload again when it answers")
	}
	d.Config.FUSE = old.dir
	f, err := d.mountInsteadOf(old)
	if err != nil || f == nil {
		return err
	}
	err = d.gw.Remounted(ctx, f.fs)
	d.guard(f)
	d.Log.Info("mounted again", "mount", f.dir)
	return err
}

// mountInsteadOf mounts, unless the daemon is about to end: it gives nil then.
func (d *daemon) mountInsteadOf(old *files) (*files, error) {
	d.losing.Lock()
	defer d.losing.Unlock()
	select {
	case <-d.ending:
		return nil, nil
	default:
	}
	f := d.newFiles()
	err := f.mount()
	if err != nil && d.files.CompareAndSwap(f, old) { // it is mounted, but not kept
		_ = f.fs.Close()
	}
	return f, err
}
