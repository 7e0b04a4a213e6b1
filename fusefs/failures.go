package fusefs

import (
	"log/slog"
	"sync"
	"syscall"
	"time"

	"sluice/block"
)

// errnoOf is what a client gets for a device's error. Canceled means that the
// file is being taken away: no signal has interrupted the client, and EINTR
// would make it try again.
func errnoOf(err error) syscall.Errno {
	kind := block.KindOf(err)
	if kind == block.Canceled {
		return syscall.EIO
	}
	return kind.Errno()
}

// failureLog lets one line a second through: a full disk fails every write.
type failureLog struct {
	mu     sync.Mutex
	next   time.Time
	hidden int
}

// admit reports whether to log now, and how many failures were kept silent
// since the last line.
func (f *failureLog) admit(at time.Time) (hidden int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.Before(f.next) {
		f.hidden++
		return 0, false
	}
	hidden, f.hidden = f.hidden, 0
	f.next = at.Add(time.Second)
	return hidden, true
}

// warn logs, if it is time to.
func (f *failureLog) warn(log *slog.Logger, text string, args ...any) {
	if hidden, ok := f.admit(time.Now()); ok {
		log.Warn(text, append(args, "more_before", hidden)...)
	}
}
