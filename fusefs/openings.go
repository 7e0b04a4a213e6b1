package fusefs

import "sync"

// A handle is what the kernel sends along with a request on an open file:
//
//	bits 32-63  era: which process gave it out
//	bits  0-31  number, counted up
//
// Nothing is looked up by it, so that a handle of an era before this one is as
// good as any. The era only serves to count such files as open once they are
// seen again.
type handle uint64

func newHandle(era uint32, number uint32) handle { return handle(uint64(era)<<32 | uint64(number)) }

func (h handle) era() uint32 { return uint32(h >> 32) }

// openings counts how many times a file is open.
type openings struct {
	mu   sync.Mutex
	now  int                 // opened in this era
	seen map[handle]struct{} // of eras before, seen in this one
	gone bool                // the file is being taken away
}

// open counts one more; false when the file is being taken away.
func (o *openings) open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.gone {
		o.now++
	}
	return !o.gone
}

// shut lets nobody open the file any more. Unless forced it refuses while the
// file is open, and says how many times.
func (o *openings) shut(force bool) (open int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if open = o.now + len(o.seen); open > 0 && !force {
		return open, false
	}
	o.gone = true
	return open, true
}

// meet counts a handle of an era before; true when it was not known yet.
func (o *openings) meet(h handle) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[h]; known {
		return false
	}
	if o.seen == nil {
		o.seen = map[handle]struct{}{}
	}
	o.seen[h] = struct{}{}
	return true
}

// close takes an opening away; false when it had not been counted.
func (o *openings) close(h handle, own bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if own {
		o.now--
		return true
	}
	_, known := o.seen[h]
	delete(o.seen, h)
	return known
}

func (o *openings) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now + len(o.seen)
}
