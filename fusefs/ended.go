package fusefs

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// What is to be done with a mount whose other side does not go on: its connection
// has ended, or what its clients asked for does not end.

// Ended reports whether the connection of a descriptor that FD gave has ended: the
// mount was taken away for good, or aborted.
func Ended(fd int) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != unix.EINTR {
			return err != nil || p[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0
		}
	}
}

// closeWait is how long Close has when no more time is left for requests.
const closeWait = 500 * time.Millisecond

// CloseWithin is Close for a process that is about to end. Requests in flight have
// until ctx ends, and are told to give up then. When half a second has not helped, it
// fails with Canceled: requests are still in a device, and so is Close, which goes on
// by itself. The mount is taken away all the same, so that clients get errors and
// nothing dead is left behind; one that was detached stays for the next process.
func (fs *FS) CloseWithin(ctx context.Context) error {
	fs.control.Lock()
	leaves := fs.state != detached && fs.state != closed
	fs.control.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- fs.close(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(closeWait)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
	}
	if leaves && fs.ours() {
		_ = fs.unmount(unix.MNT_FORCE | unix.MNT_DETACH) // the other error is the one to tell
	}
	return block.Errorf(block.Canceled, "unmount", fs.cfg.Dir, -1, "requests are still in a device: %w", ctx.Err())
}
