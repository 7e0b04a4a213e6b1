package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/fusefs"
)

// Names in the service manager's store.
const (
	storedMount = "fuse"       // the FUSE connection
	storedState = "fuse-state" // a memory file with what Resume needs
)

// files is the FUSE mount; a nil one is none.
type files struct {
	fs      *fusefs.FS
	d       *daemon
	dir     string // as the configuration has it
	resumed bool
	// lost is closed when somebody else has unmounted it, gone when all that
	// waited for its clients has ended then.
	lost, gone chan struct{}

	saving sync.Mutex // guards all below, and memory's content; who ends the mount comes after mount and needs no lock
	device string     // of the mount, as mountinfo writes it; "" when not known
	left   bool       // what memory holds is the next process'
	memory *memory    // nil: nothing is kept for the next process
}

// mountRecord is what the memory file holds.
type mountRecord struct {
	Dir    string          `json:"dir"`
	Device string          `json:"device"` // the mount's, as mountinfo writes it
	State  json.RawMessage `json:"state"`
}

// openFiles takes the mount over from the process before, or mounts.
func (d *daemon) openFiles(context.Context) error {
	if d.Config.FUSE != "" {
		d.Config.FUSE = filepath.Clean(d.Config.FUSE) // it is compared
	}
	fd, mem := d.stored(storedMount), d.stored(storedState)
	f := d.newFiles()
	if fd != nil && mem != nil {
		err := f.resume(fd, mem)
		if err == nil {
			d.files.Store(f)
			return nil
		}
		d.Log.Error("the FUSE mount of the process before cannot be taken over", "err", err)
	}
	d.forget(fd, mem)
	if d.Config.FUSE == "" {
		return nil
	}
	return f.mount()
}

func (d *daemon) newFiles() *files {
	return &files{d: d, dir: d.Config.FUSE, lost: make(chan struct{}), gone: make(chan struct{})}
}

// mount mounts, and lets the service manager keep the mount where it does.
func (f *files) mount() error {
	d := f.d
	if err := d.cleanUp(f.dir); err != nil {
		return err
	}
	var err error
	if f.fs, err = fusefs.Mount(d.mountConfig()); err != nil {
		return err
	}
	d.files.Store(f) // from here on close unmounts, and others save
	if !d.stores() {
		return nil
	}
	m, err := newMemory()
	if err != nil {
		return err
	}
	err = errors.Join(d.notifier.StoreFD(storedMount, f.fs.FD()), d.notifier.StoreFD(storedState, m.fd()))
	if err != nil {
		for _, name := range []string{storedMount, storedState} { // one of them may be there
			d.tell(d.notifier.RemoveFD(name))
		}
		return errors.Join(err, m.close())
	}
	f.keep(m) // and not before: without it, the mount ends with the process
	f.save()
	return nil
}

// keep has save write into that memory.
func (f *files) keep(m *memory) {
	device := mountedAt(f.fs.Dir()).device
	f.saving.Lock()
	defer f.saving.Unlock()
	f.device, f.memory = device, m
}

func (d *daemon) mountConfig() fusefs.Config {
	return fusefs.Config{Dir: d.Config.FUSE, Logger: d.Log, AllowOther: d.Config.FUSEOptions.AllowOther}
}

// stored takes the descriptor of that name out of what was handed over; the last
// one is the newest.
func (d *daemon) stored(name string) *os.File {
	list := d.keeper.handed.Files[name]
	if len(list) == 0 {
		return nil
	}
	d.keeper.handed.Files[name] = list[:len(list)-1]
	return list[len(list)-1]
}

// forget gives up a mount that is not taken over: nobody shall find it again, and
// its clients get errors.
func (d *daemon) forget(fd, mem *os.File) {
	for name, f := range map[string]*os.File{storedMount: fd, storedState: mem} {
		if f == nil {
			continue
		}
		d.tell(d.notifier.RemoveFD(name))
		_ = f.Close()
		for _, older := range d.keeper.handed.Files[name] {
			_ = older.Close()
		}
		delete(d.keeper.handed.Files, name)
	}
}

// resume takes over a mount. When it fails, both descriptors are still the
// caller's.
func (f *files) resume(fd, mem *os.File) error {
	m, err := openMemory(mem)
	if err != nil {
		return err
	}
	var rec mountRecord
	if err := json.Unmarshal(m.content, &rec); err != nil {
		return block.Errorf(block.Corrupt, "read", storedState, -1, "%w", err)
	}
	if err := f.takeOver(fd, rec); err != nil {
		f.d.putAway(fd, rec)
		return err
	}
	f.memory, f.resumed, f.device = m, true, rec.Device
	return fd.Close()
}

// takeOver goes on with the mount of a record.
func (f *files) takeOver(fd *os.File, rec mountRecord) error {
	if rec.Dir != f.d.Config.FUSE {
		return block.Errorf(block.Invalid, "resume", rec.Dir, -1, "the configuration has another folder now, or none")
	}
	own, err := unix.FcntlInt(fd.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if f.fs, err = fusefs.Resume(f.d.mountConfig(), own, rec.State); err != nil {
		return errors.Join(err, unix.Close(own))
	}
	return nil
}

// save puts what the next process needs into the memory file, until leave has begun:
// the files that go then are not gone for the next process.
func (f *files) save() {
	if !f.mounted() {
		return
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	if f.memory == nil || f.left {
		return
	}
	state, err := f.fs.State()
	if err == nil {
		var text []byte
		if text, err = json.Marshal(mountRecord{Dir: f.fs.Dir(), Device: f.device, State: state}); err == nil {
			err = f.memory.write(text)
		}
	}
	if err != nil {
		f.d.Log.Error("the FUSE mount will not survive a restart", "err", err)
	}
}

// serve lets requests in that have waited since the process before ended.
func (f *files) serve() error {
	if f == nil || !f.resumed {
		return nil
	}
	return f.fs.Serve()
}

// kept reports whether the service manager keeps the mount for the next process.
func (f *files) kept() bool {
	if !f.mounted() {
		return false
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	return f.memory != nil
}

// detachWait is how long the end waits for requests of FUSE clients, where the next
// process answers those that take longer.
const detachWait = 2 * time.Second

// leave ends serving: for good, or, where the service manager keeps the mount, until
// the next process goes on. Devices are free when it returns, except those that
// hang.
func (f *files) leave(ctx context.Context) error {
	if !f.mounted() {
		return nil
	}
	if f.memory != nil {
		f.save()
		f.saving.Lock()
		f.left = true
		f.saving.Unlock()
		ctx, done := context.WithTimeout(ctx, detachWait)
		defer done()
		if err := f.fs.Detach(ctx); err != nil {
			f.d.Log.Warn("the next process answers what is left", "err", err)
		}
		return nil
	}
	return f.fs.CloseWithin(ctx)
}

// close gives up what leave has left.
func (f *files) close() error {
	if !f.mounted() || f.memory == nil {
		return nil
	}
	return errors.Join(f.fs.Close(), f.memory.close())
}
