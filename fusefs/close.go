package fusefs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// Close unmounts and returns when no request is in any device. A file system that
// is in use goes out of the way at once: requests in flight are waited for, later
// ones fail. The devices stay open, and are not flushed. A second Close does
// nothing.
func (fs *FS) Close() error {
	fs.control.Lock()
	if fs.state == closed {
		fs.control.Unlock()
		return nil
	}
	was := fs.state
	fs.state = closed
	fs.control.Unlock()
	var err error
	if was != detached {
		err = fs.leaveMount(was)
	}
	fs.emptyOut()
	fs.loop.end()
	fs.interrupts.end()
	fs.departed.Wait()
	_ = unix.Close(fs.loop.dev.fd) // all there was to say has been said
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
	return fs.unmount(unix.MNT_FORCE | unix.MNT_DETACH)
}

// emptyOut takes all files away.
func (fs *FS) emptyOut() {
	fs.control.Lock()
	defer fs.control.Unlock()
	for _, f := range fs.tree.all() {
		_, _ = f.opens.shut(true) // nobody is refused
		fs.tree.hide(f)
		f.ended.end()
		fs.await(f)
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

// end makes the readers end and waits for them. Whatever they do not read stays
// with the kernel.
func (l *loop) end() {
	if l.finished == nil {
		return // they were never started
	}
	l.leaving.Store(true)
	poked := make(chan bool, 1)
	var late <-chan time.Time
	for poking := false; l.alive.Load() > 0; {
		if !poking && late == nil && l.waiting.Load() > 0 {
			poking = true
			// Not waited for: when the reader that waited takes something else
			// first, nobody is left for the poke. It stays with the kernel then,
			// until the next process answers it or this one ends.
			go func() { poked <- l.poke() }()
		}
		select {
		case <-l.left:
		case reached := <-poked:
			if poking = false; !reached {
				// The end of the connection, after an unmount, wakes them too,
				// unless the mount is in another namespace as well.
				late = time.After(wakeWait)
			}
		case <-late:
			l.endDeaf()
			return
		}
	}
	l.running.Wait()
}

// wakeWait is how long readers have to notice that their connection has ended.
const wakeWait = time.Second

// endDeaf waits for the readers that are at work. Those that cannot be woken are
// left behind: what they read later they drop, and the kernel sends it to the next
// process again.
func (l *loop) endDeaf() {
	l.deaf.Store(true)
	for l.alive.Load() > l.waiting.Load() {
		<-l.left
	}
}

// poke makes the kernel send a request, which one reader answers, and then ends.
// (FUSE_NOTIFY_RETRIEVE would do without the mount's place in the tree, but kernels
// refuse it for folders.) It reports whether it got there: somebody may have mounted
// something else at the folder.
func (fs *FS) poke() bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, fs.cfg.Dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_TYPE, &st)
	return err == nil && (fs.mountDev == 0 || unix.Mkdev(st.Dev_major, st.Dev_minor) == fs.mountDev)
}
