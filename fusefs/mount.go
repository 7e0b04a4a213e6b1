package fusefs

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sluice/block"
)

// Mount mounts an empty file system and begins to serve it. It fails with
// NotFound, Invalid (no folder), Exists (not empty) or Busy (something is mounted
// there, or was and its server is gone), and then nothing has been changed.
func Mount(cfg Config) (*FS, error) {
	dir, err := absolute(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if err := checkMountPoint(dir); err != nil {
		return nil, err
	}
	fs := newFS(cfg)
	fd, err := fs.attach()
	if err != nil {
		return nil, block.Wrap(err, "mount", dir, -1)
	}
	fs.loop.dev = device{fd}
	if err := fs.begin(); err != nil {
		_ = fs.unmount(unix.MNT_DETACH) // the first error is the one to tell
		_ = unix.Close(fd)
		return nil, block.Wrap(err, "mount", dir, -1)
	}
	fs.state = serving
	fs.refusePoll()
	fs.mountDev, _ = deviceOf(dir) // 0: not known
	return fs, nil
}

// begin speaks with the kernel for the first time.
func (fs *FS) begin() error {
	if err := fs.greet(); err != nil {
		return err
	}
	if err := unix.SetNonblock(fs.loop.dev.fd, true); err != nil {
		return err
	}
	return fs.loop.start()
}

// refusePoll lets the kernel ask once whether files can be polled, and hear that
// they cannot. Otherwise it would ask when a Go program opens a file and its
// runtime adds it to epoll, in a system call that holds one of the threads which
// run goroutines. In this very process those may be what has to answer.
func (fs *FS) refusePoll() {
	fd, err := unix.Open(fs.cfg.Dir+"/.go-fuse-epoll-hack", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fs.log.Debug("poll was not refused", "err", err)
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) // its answer is the point, not what it says
	_ = unix.Close(fd)
}

// attach mounts and gives the descriptor by which the kernel is talked to.
func (fs *FS) attach() (fd int, err error) {
	if os.Geteuid() != 0 {
		return fs.attachByHelper()
	}
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/fuse: %w (is the kernel's module fuse loaded?)", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d,default_permissions,allow_other",
		fd, os.Geteuid(), os.Getegid(), maxWrite)
	err = unix.Mount(fs.cfg.FSName, fs.cfg.Dir, "fuse."+fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, options)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// agreement is what the kernel and the server told each other when the file
// system was mounted, which is said only once: a process that takes over needs it.
type agreement struct {
	Version int              `json:"version"`
	Init    []byte           `json:"init"`    // the kernel's FUSE_INIT
	Reply   []byte           `json:"reply"`   // our answer, without header
	Dev     uint64           `json:"dev"`     // st_dev of the mount
	Backing map[uint64]local `json:"backing"` // what the kernel has of passthrough files, by their ID
}

// greet answers the kernel's first request.
func (fs *FS) greet() error {
	r := &reader{buf: make([]byte, lead+maxWrite)}
	n, err := fs.loop.dev.read(r.buf[lead-writeHeader:])
	if err != nil {
		return err
	}
	in := r.buf[lead-writeHeader:][:n]
	if n < inHeaderSize || at[fuse.InHeader](in).Opcode != opInit {
		return fmt.Errorf("the kernel's first request is not FUSE_INIT")
	}
	reply, err := fs.agree(in, maxWrite)
	if err != nil {
		return err
	}
	return fs.loop.dev.reply(reply)
}

// agree lets go-fuse answer FUSE_INIT and keeps what came of it.
func (fs *FS) agree(in []byte, most int) (reply []byte, err error) {
	fs.loop.protocol = fs.newProtocol(most)
	reply = make([]byte, 4096)
	n, status := fs.loop.protocol.HandleRequest([][]byte{in}, [][]byte{reply})
	out := at[fuse.InitOut](reply[outHeaderSize:])
	switch {
	case !status.Ok():
		return nil, syscall.Errno(status)
	case n < outHeaderSize+64 || at[fuse.OutHeader](reply).Status != 0:
		return nil, fmt.Errorf("the kernel's FUSE is too old (its protocol is version %d.%d)",
			at[fuse.InitIn](in).Major, at[fuse.InitIn](in).Minor)
	}
	fs.loop.maxWrite = int(out.MaxWrite)
	fs.agreed.Version, fs.agreed.Init, fs.agreed.Reply = 1, append([]byte(nil), in...), reply[outHeaderSize:n]
	return reply[:n], nil
}

// deviceOf gives the number of the file system that a folder is on. It asks the
// kernel alone, not whoever serves the file system.
func deviceOf(dir string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, 0, &st)
	return unix.Mkdev(st.Dev_major, st.Dev_minor), err
}

// newEra is a number that the processes which serve a mount one after the other
// do not share. 0 is no era, so that no handle is 0.
func newEra() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return binary.NativeEndian.Uint32(b[:]) | 1
}
