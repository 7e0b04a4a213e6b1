package fusefs

import (
	"sync"
	"sync/atomic"

	"sluice/block/buffer"
)

// work bounds how many requests of a file wait in its device at a time. A
// device that hangs holds so many goroutines, and buffers for them; what comes
// beyond waits in a queue, without one. Other files notice nothing.
//
// It also knows these requests by their numbers, to let go the clients that are
// being killed (interrupts.go).
type work struct {
	mu      sync.Mutex
	busy    jobs // in the device, each with a place
	queue   jobs
	max     int   // places
	held    int64 // bytes of the writes in the queue
	maxHeld int64

	// abandoned counts changes in the device whose clients have been let go. Until
	// they have ended nothing else begins: whoever uses the file after such a
	// client must not meet its writes later.
	abandoned atomic.Int32
}

// job is a request that may wait, in a file's device or for its turn.
type job struct {
	req        request
	data       *buffer.Buffer // of a write in the queue: a copy, as long as the write is
	signalled  bool           // its client may be dying; see interrupts
	abandoned  bool           // counted in work.abandoned
	prev, next *job
}

// take makes a request the job. The client of a flush is looked at in any case.
func (j *job) take(req request) { j.req, j.signalled = req, req.code == opFlush }

// jobs is a list of them, in the order in which they came.
type jobs struct {
	first, last *job
	n           int
}

func (l *jobs) push(j *job) {
	j.prev, j.next = l.last, nil
	if l.last == nil {
		l.first = j
	} else {
		l.last.next = j
	}
	l.last = j
	l.n++
}

func (l *jobs) remove(j *job) {
	if j.prev == nil {
		l.first = j.next
	} else {
		j.prev.next = j.next
	}
	if j.next == nil {
		l.last = j.prev
	} else {
		j.next.prev = j.prev
	}
	j.prev, j.next = nil, nil
	l.n--
}

func (l *jobs) find(unique uint64) *job {
	for j := l.first; j != nil; j = j.next {
		if j.req.unique == unique {
			return j
		}
	}
	return nil
}

// turn is what becomes of a request.
type turn int

const (
	begun  turn = iota // it has a place
	queued             // somebody who has a place carries it out later
	full               // the queue holds too much
)

// begin takes a place; false when the request has to be queued.
func (w *work) begin(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open() {
		return false
	}
	w.busy.push(j)
	return true
}

// open reports whether a job may begin. The caller holds mu.
func (w *work) open() bool { return w.busy.n < w.max && w.abandoned.Load() == 0 }

// fenced: nothing may begin, places or not.
func (w *work) fenced() bool { return w.abandoned.Load() > 0 }

// enqueue puts a job in line, or takes a place for it when one has become free.
func (w *work) enqueue(j *job) turn {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := int64(len(j.req.data))
	switch {
	case w.open():
		w.busy.push(j)
		return begun
	case n > 0 && w.held > 0 && w.held+n > w.maxHeld:
		return full
	}
	w.held += n
	w.queue.push(j)
	return queued
}

// next ends a job and gives the one whose turn it is to the holder of its place;
// with none, the place is given up. idle is how many more of the queue have a
// place and nobody who carries them out: they had to wait for an abandoned job.
func (w *work) next(done *job) (j *job, idle int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy.remove(done)
	done.signalled = false
	if done.abandoned {
		done.abandoned = false
		if w.abandoned.Add(-1) == 0 {
			idle = max(min(w.max-w.busy.n, w.queue.n)-1, 0) // one is the caller's
		}
	}
	return w.pop(), idle
}

// another gives a place to the next of the queue, if both are there.
func (w *work) another() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pop()
}

func (w *work) pop() *job {
	j := w.queue.first
	if j == nil || !w.open() {
		return nil
	}
	w.queue.remove(j)
	w.held -= int64(len(j.req.data))
	w.busy.push(j)
	return j
}

// signalled marks the jobs whose numbers are in noted, takes those out of it, and
// hands on all that are marked.
func (w *work) signalled(noted map[uint64]int, each func(unique uint64, pid uint32)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range [...]*jobs{&w.busy, &w.queue} {
		for j := list.first; j != nil; j = j.next {
			if _, is := noted[j.req.unique]; is {
				delete(noted, j.req.unique)
				j.signalled = true
			}
			if j.signalled {
				each(j.req.unique, j.req.pid)
			}
		}
	}
}

// abandon lets go the client of a job. One that has not begun is taken out of the
// queue and is the caller's; one in the device stays there, and its reply will
// find nobody. ok is false when the client has to wait on.
func (w *work) abandon(unique uint64) (dropped *job, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.queue.find(unique); j != nil {
		w.queue.remove(j)
		w.held -= int64(len(j.req.data))
		return j, true
	}
	j := w.busy.find(unique)
	if j == nil || j.req.code == opCopyFileRange { // it changes another file, which nothing keeps others from
		return nil, false
	}
	j.signalled = false
	if j.req.changes() && !j.abandoned {
		j.abandoned = true
		w.abandoned.Add(1)
	}
	return nil, true
}
