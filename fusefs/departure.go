package fusefs

import (
	"encoding/binary"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// departure is a file on its way out: done is closed when its device is free.
type departure struct {
	file *file
	done chan struct{}
}

// depart begins to take a file away, or finds that this has begun.
func (fs *FS) depart(name string, force bool) (*departure, error) {
	f := fs.tree.named(name)
	if f == nil {
		fs.control.Lock()
		defer fs.control.Unlock()
		return fs.departing(name, force)
	}
	var sure answer
	if f.opens.doubt && (!force || f.pass.active()) {
		sure = fs.askOpen(f)
		defer sure.end()
	}
	fs.control.Lock()
	defer fs.control.Unlock()
	if fs.tree.named(name) != f { // somebody else was faster
		return fs.departing(name, force)
	}
	if err := fs.shut(f, force, sure); err != nil {
		return nil, err
	}
	fs.tree.hide(f)
	if force {
		// Before the kernel is told: who waits in the device holds its locks.
		f.ended.end()
	}
	return fs.await(f), nil
}

// InUse reports whether a file, which may have been taken away, is open or has
// requests in its device. After Detach it is not: they are the next process' to answer.
func (fs *FS) InUse(name string) bool {
	fs.control.Lock()
	defer fs.control.Unlock()
	return slices.ContainsFunc(fs.filesOf(name), func(f *file) bool { return f.gate.Inside() > 0 || f.opens.count() > 0 })
}

// GiveUp tells a file's requests to end, for a process that is about to end.
func (fs *FS) GiveUp(name string) {
	fs.control.Lock()
	defer fs.control.Unlock()
	for _, f := range fs.filesOf(name) {
		f.ended.end()
	}
}

// filesOf gives the file of a name and the one that is being taken away, those that are
// there. The caller holds control.
func (fs *FS) filesOf(name string) (list []*file) {
	if fs.handedOn {
		return nil
	}
	if d := fs.departures[name]; d != nil {
		list = append(list, d.file)
	}
	if f := fs.tree.named(name); f != nil {
		list = append(list, f)
	}
	return list
}

// departing finds a departure that has begun, and tells what it waits for to end
// where that is not what it began with. The caller holds control.
func (fs *FS) departing(name string, force bool) (*departure, error) {
	if d := fs.departures[name]; d != nil {
		if force {
			d.file.ended.end()
		}
		return d, nil
	}
	return nil, block.Errorf(block.NotFound, "remove file", name, -1, "there is no such file in %s", fs.cfg.Dir)
}

// shut lets nobody open a file any more, or refuses with Busy. sure is what the
// kernel said, if it was asked. The caller holds control.
func (fs *FS) shut(f *file, force bool, sure answer) error {
	why := ""
	if f.pass.active() && !fs.handedOn {
		force, why = false, "; the kernel moves its bytes (passthrough) until its clients close it"
	}
	refuse := func(format string, args ...any) error {
		return block.Errorf(block.Busy, "remove file", f.Name, -1, format+why, args...)
	}
	if sure.known && sure.open {
		return refuse("a client has it open")
	}
	if sure.err != nil && f.opens.doubt && !force {
		return refuse("a client may have it open, since before the server was started; that cannot be found out (%v)", sure.err)
	}
	n, ok := f.opens.shut(force || sure.known)
	switch {
	case !ok && n > 1:
		return refuse("it is open %d times", n)
	case !ok:
		return refuse("it is open")
	case sure.known:
		delete(fs.left, f.ID)
	case n > 0:
		fs.left[f.ID] = true
	}
	return nil
}

// await lets no more requests of a file in and frees its device when the last
// one has left. The caller holds control; the kernel is told without it, since
// that may have to wait for clients of other files.
func (fs *FS) await(f *file) *departure {
	d := &departure{file: f, done: make(chan struct{})}
	fs.departures[f.Name] = d
	fs.departed.Go(func() {
		fs.tell(func() { fs.tellDeleted(f) })
		_ = f.gate.Close(func() error { return nil })
		for range f.opens.drop() { // those that are still open are closed without us
			f.Observer.Open(-1)
		}
		// Not before: what is in the device holds locks that this takes.
		fs.tell(func() { fs.tellChanged(f, 0) })
		fs.control.Lock()
		defer fs.control.Unlock()
		if fs.handedOn {
			f.pass.leave(f) // the next process has the kernel's number for it
		} else {
			f.pass.release(fs.loop.dev, f)
		}
		fs.tree.forget(f)
		close(d.done)
		if fs.departures[f.Name] == d {
			delete(fs.departures, f.Name)
		}
	})
	return d
}

// tell tells the kernel something, unless the mount is being left. Who leaves it waits
// for that before serving ends, since the kernel may have to ask us for it.
func (fs *FS) tell(notify func()) {
	fs.control.Lock()
	now := fs.state == serving
	if now {
		fs.telling.Add(1)
	}
	fs.control.Unlock()
	if now {
		defer fs.telling.Done()
		notify()
	}
}

// tellDeleted makes the kernel forget a file's name. The kernel may know nothing of
// it, which is no failure. (FUSE_NOTIFY_DELETE would also wait for who writes to the
// file, and keep the folder locked meanwhile.)
func (fs *FS) tellDeleted(f *file) {
	var head [16]byte // struct fuse_notify_inval_entry_out
	binary.NativeEndian.PutUint64(head[0:], rootID)
	binary.NativeEndian.PutUint32(head[8:], uint32(len(f.Name)))
	_ = fs.loop.dev.notify(notifyInvalEntry, head[:], []byte(f.Name), []byte{0})
}

// tellChanged makes the kernel ask for a file's attributes again; from 0 on, it
// also gives up its pages (of mmap), after writing the dirty ones.
func (fs *FS) tellChanged(f *file, from int64) {
	var msg [24]byte // struct fuse_notify_inval_inode_out; length 0 is all
	binary.NativeEndian.PutUint64(msg[0:], f.ID)
	binary.NativeEndian.PutUint64(msg[8:], uint64(from))
	_ = fs.loop.dev.notify(notifyInvalInode, msg[:])
}

// Resized tells clients of the size that the file's device has now. When it
// returns they see it, open files included.
//
// A smaller file's pages are written first (of mmap), which waits for its device;
// nothing but Resized does.
func (fs *FS) Resized(name string) error {
	f, before, err := fs.takeSize(name)
	if err != nil {
		return err
	}
	from := int64(-1) // the attributes alone
	if f.size.Load() < before {
		from = 0
	}
	fs.tell(func() {
		fs.tellChanged(f, from)
		// The kernel knows the new size when it has asked for it; so make it ask.
		var st unix.Statx_t
		_ = unix.Statx(unix.AT_FDCWD, filepath.Join(fs.cfg.Dir, name), unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &st)
	})
	return nil
}

// takeSize gives a file the size of its device.
func (fs *FS) takeSize(name string) (f *file, before int64, err error) {
	fs.control.Lock()
	defer fs.control.Unlock()
	if f, err = fs.find("resize", name); err != nil {
		return nil, 0, err
	}
	before = f.size.Swap(f.Device.Info().Size)
	f.touch()
	return f, before, nil
}
