package state

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// lockWait is how long a process that was killed may take to be gone.
const lockWait = 2 * time.Second

// lockFolder takes the folder for this process. The lock ends with the file.
func lockFolder(dir string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, block.Wrap(causeOf(err), "open state", dir, -1)
	}
	// A lock's end is no event that one could wait for with a limit.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(wait); ; <-tick.C {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return nil, errors.Join(block.Wrap(err, "lock state", dir, -1), f.Close())
		case time.Now().After(end):
			return nil, errors.Join(block.Errorf(block.Busy, "open state", dir, -1,
				"another daemon uses this folder (each needs its own: --state DIR)"), f.Close())
		}
	}
}
