package align

import "sync"

// rangeLock keeps changing requests on the same blocks apart. Who comes first
// goes first; ranges that do not overlap, or that are both shared, do not wait
// for each other. A caller holds one range at most.
type rangeLock struct {
	mu      sync.Mutex
	freed   sync.Cond // L is mu
	held    []held    // granted and waiting, in order of arrival
	ticket  uint64    // the latest given out
	waiting int
}

type held struct {
	lo, hi int64 // [lo, hi)
	ticket uint64
	alone  bool
}

// lock waits until the range is free and returns the ticket for unlock.
func (l *rangeLock) lock(lo, hi int64, alone bool) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ticket++
	mine := held{lo: lo, hi: hi, ticket: l.ticket, alone: alone}
	l.held = append(l.held, mine)
	for l.blocked(mine) {
		l.waiting++
		l.freed.Wait()
		l.waiting--
	}
	return mine.ticket
}

// blocked reports whether an earlier request stands in the way.
func (l *rangeLock) blocked(mine held) bool {
	for _, h := range l.held {
		if h.ticket == mine.ticket {
			return false
		}
		if h.lo < mine.hi && mine.lo < h.hi && (h.alone || mine.alone) {
			return true
		}
	}
	return false
}

func (l *rangeLock) unlock(ticket uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range l.held {
		if h.ticket == ticket {
			l.held = append(l.held[:i], l.held[i+1:]...)
			break
		}
	}
	if l.waiting > 0 {
		l.freed.Broadcast()
	}
}
