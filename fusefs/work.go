package fusefs

import (
	"sync"

	"sluice/block/buffer"
)

// work bounds how many requests of a file wait in its device at a time. A
// device that hangs holds so many goroutines, and buffers for them; what comes
// beyond waits in a queue, without one. Other files notice nothing.
type work struct {
	mu          sync.Mutex
	running     int
	max         int
	first, last *job
}

// job is a request that waits for its turn.
type job struct {
	req  request
	data *buffer.Buffer // of a write: a copy, as long as the write is
	next *job
}

// begin takes a place; false when the request has to be queued.
func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running >= w.max {
		return false
	}
	w.running++
	return true
}

// queue puts a job in line, or takes a place for it when one has become free.
func (w *work) queue(j *job) (begun bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running < w.max {
		w.running++
		return true
	}
	if w.last == nil {
		w.first = j
	} else {
		w.last.next = j
	}
	w.last = j
	return false
}

// next gives the job whose turn it is to the holder of a place; with none, the
// place is given up.
func (w *work) next() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.first
	if j == nil {
		w.running--
		return nil
	}
	if w.first = j.next; w.first == nil {
		w.last = nil
	}
	j.next = nil
	return j
}

// held bounds the bytes of writes that wait in queues, of all files together.
type held struct {
	mu    sync.Mutex
	freed sync.Cond
	bytes int64
	max   int64
}

// take waits until n more bytes may be held. It reports whether it had to.
func (h *held) take(n int64) (waited bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.bytes > 0 && h.bytes+n > h.max {
		waited = true
		h.freed.Wait()
	}
	h.bytes += n
	return waited
}

func (h *held) give(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes -= n
	h.freed.Broadcast()
}
