package fusefs

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Close unmounts and returns when no request is in any device. A file system that
// is in use goes out of the way at once: requests in flight are told to give up, and
// waited for; later ones fail. The devices stay open, and are not flushed. A second
// Close does nothing.
func (fs *FS) Close() error {
	now, end := context.WithCancel(context.Background())
	end()
	return fs.close(now)
}

// close is Close that tells requests in flight to give up when ctx ends.
func (fs *FS) close(ctx context.Context) error {
	fs.control.Lock()
	if fs.state == closed {
		fs.control.Unlock()
		return nil
	}
	was := fs.state
	fs.state = closed
	fs.control.Unlock()
	defer context.AfterFunc(ctx, fs.giveUp)()
	if ctx.Err() != nil || fs.unserved() { // not some time later
		fs.giveUp()
	}
	var err error
	if was != detached {
		err = fs.leaveMount(was)
	}
	fs.emptyOut()
	fs.departed.Wait()
	fs.telling.Wait()
	fs.loop.end()
	fs.interrupts.end()
	_ = unix.Close(fs.loop.dev.fd) // all there was to say has been said
	if fs.loop.finished != nil {
		fs.loop.stop.close()
	}
	return block.Wrap(err, "unmount", fs.cfg.Dir, -1)
}

// leaveMount unmounts, by force when it is in use: that ends what clients wait
// for, so everything in the devices is waited for first.
func (fs *FS) leaveMount(was state) error {
	if !fs.ours() {
		return nil
	}
	err := fs.unmount(0)
	if err != unix.EBUSY && was == serving {
		return err
	}
	fs.emptyOut()
	fs.departed.Wait()
	if !fs.ours() { // somebody else has unmounted it meanwhile
		return nil
	}
	return fs.unmount(unix.MNT_FORCE | unix.MNT_DETACH)
}

// emptyOut takes all files away.
func (fs *FS) emptyOut() {
	fs.control.Lock()
	defer fs.control.Unlock()
	for _, f := range fs.tree.all() {
		_, _ = f.opens.shut(true) // nobody is refused
		fs.tree.hide(f)
		fs.await(f)
	}
}

// unserved reports whether nobody reads requests any more, and nobody waits for the
// answers.
func (fs *FS) unserved() bool {
	select {
	case <-fs.loop.finished: // nil, and never, before the first is read
		return true
	default:
		return false
	}
}

// giveUp tells all requests in flight to end.
func (fs *FS) giveUp() {
	for _, f := range fs.tree.known() {
		f.ended.end()
	}
}

// ours reports whether what is mounted at the folder is still this.
func (fs *FS) ours() bool {
	dev, err := deviceOf(fs.cfg.Dir)
	if err == unix.ENOTCONN { // its connection was aborted
		return true
	}
	return err == nil && (fs.mountDev == 0 || dev == fs.mountDev)
}

func (fs *FS) unmount(flags int) error {
	if os.Geteuid() != 0 {
		return detachByHelper(fs.cfg.Dir)
	}
	return unix.Unmount(fs.cfg.Dir, flags)
}
