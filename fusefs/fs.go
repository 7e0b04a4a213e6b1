package fusefs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sluice/block"
)

// Config says where a file system is mounted and how it works.
type Config struct {
	// Dir is the folder to mount at: it exists, is empty, and nothing is mounted
	// there.
	Dir string

	// Logger may be nil.
	Logger *slog.Logger

	// AllowOther lets users in other than the one who mounts; each file's mode and
	// owner then say who may do what. Root's mounts always do. For an ordinary user
	// /etc/fuse.conf must have user_allow_other.
	AllowOther bool

	// FSName is what /proc/mounts shows as the source; "sluice" when empty.
	FSName string

	// Workers is how many requests of one file may wait in its device at a time; 0
	// means 64.
	Workers int

	// MaxHeld bounds the bytes of one file's writes that wait for their turn; 0
	// means 4 GiB, as much as the kernel lets wait asynchronously. Beyond it writes
	// fail with ENOMEM.
	MaxHeld int64
}

const (
	fsType         = "sluice"
	defaultWorkers = 64
	maxWrite       = 1 << 20

	// maxBackground is how many asynchronous requests the kernel lets the whole
	// mount have in flight. A file whose device hangs uses up those of its clients,
	// so it is larger than any queue of theirs.
	maxBackground = 4096

	defaultHeld = maxBackground * maxWrite
)

// FS is a mounted file system. Its methods may be called by many goroutines at
// once.
type FS struct {
	cfg     Config
	log     *slog.Logger
	loop    loop
	tree    *tree
	era     uint32        // in the handles that this process gives out
	handles atomic.Uint32 // given out so far
	agreed  agreement     // with the kernel, when it was mounted

	interrupts interrupts

	// control guards the rest and is held while the kernel is told of changes; no
	// request ever waits for it.
	control    sync.Mutex
	state      state
	handedOn   bool                  // by Detach: what the kernel has got is the next process'
	mountDev   uint64                // st_dev of the mount; 0 when not known
	departures map[string]*departure // files that are being taken away, by name
	left       map[uint64]bool       // IDs of those that were open when they were taken away
	resumed    bool                  // files may be open that this process has not opened
	departed   sync.WaitGroup
	telling    sync.WaitGroup // see tell; added to with control held, while serving
}

// state is the life of an FS.
type state int

const (
	prepared state = iota // resumed; files are added, nothing is served yet
	serving
	detached
	closed
)

func newFS(cfg Config) *FS {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FSName == "" {
		cfg.FSName = fsType
	}
	if cfg.Workers <= 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.MaxHeld <= 0 {
		cfg.MaxHeld = defaultHeld
	}
	fs := &FS{cfg: cfg, log: cfg.Logger.With("mount", cfg.Dir), tree: newTree(), era: newEra(), departures: map[string]*departure{},
		left: map[uint64]bool{}}
	fs.interrupts.noted, fs.interrupts.stop = map[uint64]int{}, make(chan struct{})
	fs.loop.data, fs.loop.signal = fs.handle, fs.interrupted
	fs.loop.fail = func(what string, err error) { fs.log.Error("FUSE: "+what, "err", err) }
	return fs
}

// options are what go-fuse needs to know to answer for us. Locks are left to
// the kernel, which then keeps them for all clients of the mount: QEMU's image
// locks work, and no request is made for them.
func (fs *FS) options(maxWrite int) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name: fsType, MaxWrite: maxWrite, MaxBackground: maxBackground, MaxStackDepth: 1,
		Logger: slog.NewLogLogger(fs.log.Handler(), slog.LevelDebug),
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_HAS_RESEND |
			fuse.CAP_NO_EXPORT_SUPPORT,
	}
}

func (fs *FS) newProtocol(maxWrite int) *fuse.ProtocolServer {
	m := &metadata{RawFileSystem: fuse.NewDefaultRawFileSystem(), fs: fs}
	return fuse.NewProtocolServer(m, fs.options(maxWrite))
}

// Dir is where the file system is mounted.
func (fs *FS) Dir() string { return fs.cfg.Dir }

// Done is closed when the file system is served no more: after Close or Detach,
// or because somebody unmounted it; requests may still be in devices, until Close
// returns. Not before Serve has been called, where that is needed.
func (fs *FS) Done() <-chan struct{} { return fs.loop.finished }

// Add puts a file into the folder. It fails with Exists when the name or the ID
// is taken, and with Invalid for a device that takes whole blocks only.
func (fs *FS) Add(f File) error {
	if err := checkFile(f); err != nil {
		return err
	}
	n := newFile(f, fs.cfg.Workers)
	n.work.maxHeld = fs.cfg.MaxHeld
	fs.control.Lock()
	defer fs.control.Unlock()
	if fs.state > serving {
		return block.Errorf(block.Closed, "add file", f.Name, -1, "%s is not served any more", fs.cfg.Dir)
	}
	if err := fs.tree.free(f); err != nil {
		return err
	}
	n.opens.first, n.opens.doubt = newHandle(fs.era, fs.handles.Load()+1), fs.resumed || fs.left[f.ID]
	fs.passThrough(n)
	fs.tree.add(n)
	return nil
}

// passThrough gives a file to the kernel where that is wanted and can be. The caller
// holds control.
func (fs *FS) passThrough(f *file) {
	known := fs.agreed.Backing[f.ID]
	delete(fs.agreed.Backing, f.ID) // it ends with this file
	if f.Passthrough {
		if err := f.pass.register(fs.loop.dev, f, known); err != nil {
			fs.log.Info("no passthrough: the file is served in the ordinary way", "file", f.Name, "err", err)
		}
	}
	if now, on := f.pass.backing(); known.ID != 0 && (!on || now != known) {
		if on {
			fs.log.Warn("the image is another file than before: clients that have it open from before go on with that one", "file", f.Name)
		}
		fs.loop.dev.closeBacking(known.ID)
	}
}

// find looks a file up for a method of FS.
func (fs *FS) find(op, name string) (*file, error) {
	if f := fs.tree.named(name); f != nil {
		return f, nil
	}
	return nil, block.Errorf(block.NotFound, op, name, -1, "there is no such file in %s", fs.cfg.Dir)
}

// ID gives a file's inode number.
func (fs *FS) ID(name string) (uint64, error) {
	f, err := fs.find("look up", name)
	if err != nil {
		return 0, err
	}
	return f.ID, nil
}

// Has reports whether there is a file of that name, which nobody takes away.
func (fs *FS) Has(name string) bool { return fs.tree.named(name) != nil }

// OpenCount is how many times a file is open. After Resume an opening from before
// counts from its first use on; Remove knows of all.
func (fs *FS) OpenCount(name string) (int, error) {
	f, err := fs.find("count openings of", name)
	if err != nil {
		return 0, err
	}
	return f.opens.count(), nil
}

// Passthrough reports whether the kernel reads and writes the file by itself.
func (fs *FS) Passthrough(name string) bool {
	f := fs.tree.named(name)
	return f != nil && f.pass.active()
}

// Remove takes a file out of the folder and returns when nothing uses its device
// any more. It fails with Busy when the file is open, unless force is set: then
// what clients do with it fails from now on, except requests that have reached
// the device, which are told to end and waited for. A file with passthrough is Busy
// even so: the kernel does not take back what it has given.
//
// Whether a file is open from before, of a process that has served the mount or of
// an earlier file with its ID, is asked of the kernel; where it does not say (not
// root, and the file is another user's), the file counts as open.
//
// When ctx ends first, Remove fails with Canceled and the file is gone from the
// folder, but its device is still in use; Remove called again goes on waiting.
func (fs *FS) Remove(ctx context.Context, name string, force bool) error {
	d, err := fs.depart(name, force)
	if err != nil {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return block.Errorf(block.Canceled, "remove file", name, -1, "requests are still in its device: %w", ctx.Err())
	}
}
