package fusefs

import (
	"context"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A client that waits for a reply and gets a signal makes the kernel send one
// FUSE_INTERRUPT, for the first signal whatever it is. Of a later one, which may be
// the deadly one, nothing is heard; and the client stays until there is a reply.
// Signals that do not kill must change nothing: reads and writes of files do not
// fail with EINTR. So the requests of which an interrupt told are looked at every
// now and then: when the client's thread is being killed, it gets its reply.
//
// Of the flush of a close nothing is heard at all when the close is part of the
// client's end: the kernel has taken its signals away by then. So flushes that wait
// are looked at without an interrupt.
//
// The stages: the reader that gets an interrupt notes the request's number; a
// goroutine, there only while something is noted, finds the requests among those
// that wait (work.go) and asks /proc for their threads; letGo answers.

const (
	interruptLook = 250 * time.Millisecond
	// interruptLooks is how many times a number is looked for. An interrupt may be
	// read before the reader of its request has put that among those that wait, or
	// when the request has been answered already.
	interruptLooks = 8
)

// interrupts are the numbers of the requests whose clients got a signal. mu is
// held while they are looked for, which takes tree.mu and work.mu.
type interrupts struct {
	mu      sync.Mutex
	noted   map[uint64]int // and how many looks are left
	on      bool           // somebody looks
	over    bool
	stop    chan struct{}
	looking sync.WaitGroup
}

// interrupted notes that the client of a request got a signal.
func (fs *FS) interrupted(unique uint64) {
	i := &fs.interrupts
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over {
		return
	}
	i.noted[unique] = interruptLooks
	fs.look()
}

// flushWaits has the client of a flush looked at, which is in the file's work and
// marked there.
func (fs *FS) flushWaits() {
	fs.interrupts.mu.Lock()
	defer fs.interrupts.mu.Unlock()
	fs.look()
}

// look starts the looking. The caller holds interrupts.mu.
func (fs *FS) look() {
	if i := &fs.interrupts; !i.on && !i.over {
		i.on = true
		i.looking.Go(fs.watchClients)
	}
}

// end makes the looking end and waits for it. A second one does nothing.
func (i *interrupts) end() {
	i.mu.Lock()
	if !i.over {
		i.over = true
		close(i.stop)
	}
	i.mu.Unlock()
	i.looking.Wait()
}

// watchClients looks until there is nothing to look at. Who gets an answer in time
// is not looked at.
func (fs *FS) watchClients() {
	tick := time.NewTicker(interruptLook)
	defer tick.Stop()
	for more := true; more; more = fs.lookAtClients() {
		select {
		case <-tick.C:
		case <-fs.interrupts.stop:
			return
		}
	}
}

// client is who waits for a request.
type client struct {
	file   *file
	unique uint64
	pid    uint32 // its thread; 0 when it is not of this machine's processes
}

// lookAtClients lets those go that are being killed; false when there is nothing
// more to look at.
func (fs *FS) lookAtClients() bool {
	waiting, more := fs.signalledClients()
	for _, c := range waiting {
		if dying(c.pid) {
			fs.letGo(c)
		}
	}
	return more
}

func (fs *FS) signalledClients() (waiting []client, more bool) {
	i := &fs.interrupts
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range fs.tree.known() {
		f.work.signalled(i.noted, func(unique uint64, pid uint32) {
			waiting = append(waiting, client{f, unique, pid})
		})
	}
	for unique, looks := range i.noted {
		if looks--; looks > 0 {
			i.noted[unique] = looks
		} else {
			delete(i.noted, unique)
		}
	}
	i.on = len(waiting) > 0 || len(i.noted) > 0
	return waiting, i.on
}

// letGo answers a client that is being killed.
func (fs *FS) letGo(c client) {
	j, ok := c.file.work.abandon(c.unique)
	if !ok {
		return
	}
	// When the device answers at the same time, the kernel takes the first reply.
	head := fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(unix.EINTR), Unique: c.unique}
	fs.loop.send(bytesOf(&head))
	if j != nil {
		c.file.count(&j.req, j.req.n, context.Canceled)
		j.drop()
		c.file.leave()
	}
}
