package nbd

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for the sockets of silent connections.
//
// A socketStream keeps its descriptor out of the runtime's poller: there it would
// wake up a second thread for every request that arrives, although nobody waits
// for it. So it comes into an epoll set of ours, armed for one event at a time.
// The set's own descriptor lies in the runtime's poller, so that waiting takes no
// thread.
//
// The server owns the poller and closes it after the last connection; run's
// goroutine ends then.
type poller struct {
	set  *os.File
	raw  syscall.RawConn
	done chan struct{} // closed when run has ended

	mu      sync.Mutex
	waiting map[int32]*watch // by descriptor
}

// watch is one descriptor's place in the set. Its owner waits for one event at a
// time.
type watch struct {
	fd    int
	added bool
	fired chan struct{} // holds one
}

func newWatch(fd int) watch { return watch{fd: fd, fired: make(chan struct{}, 1)} }

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// os.NewFile gives only non-blocking descriptors to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	p := &poller{set: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), waiting: make(map[int32]*watch)}
	if p.raw, err = p.set.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.set.Close())
	}
	go p.run()
	return p, nil
}

// wait returns when one of the events, an error or a hang-up is there.
func (p *poller) wait(w *watch, events uint32) error {
	op := unix.EPOLL_CTL_MOD
	if !w.added {
		op = unix.EPOLL_CTL_ADD
	}
	p.mu.Lock()
	p.waiting[int32(w.fd)] = w
	p.mu.Unlock()
	event := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(w.fd)}
	var failed error
	err := p.raw.Control(func(set uintptr) { failed = unix.EpollCtl(int(set), op, w.fd, &event) })
	if err = errors.Join(err, failed); err != nil {
		p.mu.Lock()
		delete(p.waiting, int32(w.fd))
		p.mu.Unlock()
		return err
	}
	w.added = true
	<-w.fired
	return nil
}

// run hands out the events until the set is closed.
func (p *poller) run() {
	defer close(p.done)
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := p.raw.Read(func(set uintptr) bool {
			n, _ = unix.EpollWait(int(set), events[:], 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		for _, e := range events[:n] {
			if w := p.waiting[e.Fd]; w != nil {
				delete(p.waiting, e.Fd)
				w.fired <- struct{}{} // has room: the owner takes it before it waits again
			}
		}
		p.mu.Unlock()
	}
}

// close ends run and waits for it. Nobody may be waiting.
func (p *poller) close() {
	_ = p.set.Close()
	<-p.done
}
