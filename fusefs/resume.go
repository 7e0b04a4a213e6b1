package fusefs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sluice/block"
)

// A mount outlives the process that serves it as long as somebody has its
// descriptor of /dev/fuse open (the service manager's fd store). Clients then
// wait. What they asked for and nobody has read stays in the kernel; what the
// process had read and not answered the kernel is told to send again. Requests
// name files by their IDs, and handles are not looked up, so that a new process
// can go on if it gives the files the same IDs.

// FD is the descriptor that keeps the mount alive. It stays the FS's.
func (fs *FS) FD() int { return fs.loop.dev.fd }

// State is what Resume needs beside the descriptor. It changes only when a file
// with Passthrough is added or removed.
func (fs *FS) State() ([]byte, error) {
	fs.control.Lock()
	defer fs.control.Unlock()
	s := fs.agreed
	s.Dev, s.Backing = fs.mountDev, map[uint64]local{}
	maps.Copy(s.Backing, fs.agreed.Backing) // of files that are not there yet
	for _, f := range fs.tree.all() {
		if l, ok := f.pass.backing(); ok {
			s.Backing[f.ID] = l
		}
	}
	text, err := json.Marshal(s)
	return text, block.Wrap(err, "store the state of", fs.cfg.Dir, -1)
}

// Resume takes over a mount that another process has served: fd and state are
// what its FD and State gave; cfg.Dir is where it is mounted. The files have to be
// added, with the IDs that they had, before Serve is called; until then clients
// wait. fd belongs to the FS unless Resume fails.
func Resume(cfg Config, fd int, state []byte) (*FS, error) {
	dir, err := absolute(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	fs := newFS(cfg)
	if err := json.Unmarshal(state, &fs.agreed); err != nil {
		return nil, block.Errorf(block.Corrupt, "resume", dir, -1, "the stored state cannot be read: %w", err)
	}
	if err := fs.recall(fd); err != nil {
		return nil, block.Wrap(err, "resume", dir, -1)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, block.Wrap(err, "resume", dir, -1)
	}
	fs.loop.dev = device{fd}
	fs.mountDev, fs.resumed = fs.agreed.Dev, true
	return fs, nil
}

// recall brings go-fuse to where it was after FUSE_INIT, with what was agreed
// then and not what would be agreed today.
func (fs *FS) recall(fd int) error {
	a := fs.agreed
	if a.Version != 1 || len(a.Init) < inHeaderSize+16 || len(a.Reply) < 64 || at[fuse.InHeader](a.Init).Opcode != opInit {
		return block.Errorf(block.Corrupt, "resume", fs.cfg.Dir, -1, "the stored state is not of this program")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 229) {
		return block.Errorf(block.Invalid, "resume", fs.cfg.Dir, -1, "descriptor %d is not /dev/fuse", fd)
	}
	if Ended(fd) {
		return block.Errorf(block.Closed, "resume", fs.cfg.Dir, -1, "its connection has ended: it was unmounted, or aborted")
	}
	most := int(at[fuse.InitOut](a.Reply).MaxWrite)
	if most < 4096 || most > 64<<20 {
		return block.Errorf(block.Corrupt, "resume", fs.cfg.Dir, -1, "the stored state has requests of %d bytes", most)
	}
	_, err := fs.agree(a.Init, most)
	fs.agreed = a
	if err == nil && fs.loop.maxWrite < most {
		err = fmt.Errorf("requests of %d bytes were agreed, %d are possible now (sysctl fs.fuse.max_pages_limit)", most, fs.loop.maxWrite)
	}
	return err
}

// Serve begins to serve after Resume. What the process before had taken and not
// answered is asked for again.
func (fs *FS) Serve() error {
	fs.control.Lock()
	defer fs.control.Unlock()
	if fs.state != prepared {
		return block.Errorf(block.Invalid, "serve", fs.cfg.Dir, -1, "it is served already, or not any more")
	}
	// Before anything is read: that would be sent again as well.
	if err := fs.loop.dev.notify(notifyResend); err != nil {
		fs.log.Error("the kernel does not send again what was in flight: some clients may wait for ever", "err", err)
	}
	if err := fs.loop.start(); err != nil {
		return block.Wrap(err, "serve", fs.cfg.Dir, -1)
	}
	fs.state = serving
	return nil
}

// Detach stops to serve without unmounting, so that another process can go on:
// what was read from the kernel is answered, the rest stays there. When it returns
// no device is in use. When ctx ends first the requests that are still in a device
// are not answered any more, and will be sent to the next process again. A mount
// that was resumed and is not served yet is left as it is.
func (fs *FS) Detach(ctx context.Context) error {
	fs.control.Lock()
	if fs.state == prepared {
		fs.state, fs.handedOn = detached, true
		fs.control.Unlock()
		return nil
	}
	if fs.state != serving {
		fs.control.Unlock()
		return block.Errorf(block.Invalid, "detach", fs.cfg.Dir, -1, "it is not served")
	}
	fs.state, fs.handedOn = detached, true
	fs.control.Unlock()
	ended := make(chan struct{})
	fs.departed.Go(func() {
		defer close(ended)
		fs.telling.Wait()
		fs.loop.end()
		fs.interrupts.end()
		for _, f := range fs.tree.all() {
			f.pass.leave(f)
		}
	})
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		fs.loop.mute.Store(true) // before anybody tells the devices to give up
		return block.Errorf(block.Canceled, "detach", fs.cfg.Dir, -1, "requests are still in a device: %w", ctx.Err())
	}
}
