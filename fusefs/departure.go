package fusefs

import (
	"encoding/binary"
	"fmt"
	"path/filepath"

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
	fs.control.Lock()
	defer fs.control.Unlock()
	f := fs.tree.named(name)
	if f == nil {
		if d := fs.departures[name]; d != nil {
			return d, nil
		}
		_, err := fs.find("remove file", name)
		return nil, err
	}
	if f.pass.active() {
		force = false
	}
	if n, ok := f.opens.shut(force); !ok {
		return nil, block.Errorf(block.Busy, "remove file", name, -1, "%s", inUse(n, f.pass.active()))
	}
	fs.tree.hide(f)
	if fs.state == serving {
		fs.tellDeleted(f)
	}
	if force {
		f.ended.end()
	}
	return fs.await(f), nil
}

// inUse says why a file cannot be removed.
func inUse(openings int, passthrough bool) string {
	text := "it is open"
	if openings > 1 {
		text = fmt.Sprintf("it is open %d times", openings)
	}
	if passthrough {
		text += ", and the kernel does not take passthrough back: its users have to close it"
	}
	return text
}

// await lets no more requests of a file in and frees its device when the last
// one has left.
func (fs *FS) await(f *file) *departure {
	d := &departure{file: f, done: make(chan struct{})}
	fs.departures[f.Name] = d
	fs.departed.Go(func() {
		_ = f.gate.Close(func() error { return nil })
		f.pass.release(fs.loop.dev, f)
		fs.tree.forget(f)
		close(d.done)
		fs.control.Lock()
		defer fs.control.Unlock()
		if fs.departures[f.Name] == d {
			delete(fs.departures, f.Name)
		}
	})
	return d
}

// tellDeleted makes the kernel forget a file's name, attributes and pages. The
// kernel may know nothing of it, which is no failure. The caller holds control.
func (fs *FS) tellDeleted(f *file) {
	var head [24]byte // struct fuse_notify_delete_out
	binary.NativeEndian.PutUint64(head[0:], rootID)
	binary.NativeEndian.PutUint64(head[8:], f.ID)
	binary.NativeEndian.PutUint32(head[16:], uint32(len(f.Name)))
	_ = fs.loop.dev.notify(notifyDelete, head[:], []byte(f.Name), []byte{0})
	fs.tellChanged(f, 0)
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
func (fs *FS) Resized(name string) error {
	fs.control.Lock()
	defer fs.control.Unlock()
	f, err := fs.find("resize", name)
	if err != nil {
		return err
	}
	size := f.Device.Info().Size
	before := f.size.Swap(size)
	f.touch()
	if fs.state != serving {
		return nil
	}
	from := int64(-1) // the attributes alone
	if size < before {
		from = 0
	}
	fs.tellChanged(f, from)
	// The kernel knows the new size when it has asked for it; so make it ask.
	var st unix.Statx_t
	_ = unix.Statx(unix.AT_FDCWD, filepath.Join(fs.cfg.Dir, name), unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &st)
	return nil
}
