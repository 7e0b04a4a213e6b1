package unstable

import "sluice/block/buffer"

// Mark gives the present point: a COMMIT that is sent after it covers all that ended
// before.
func (l *Log) Mark() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Committed takes the reply of a COMMIT that was sent after Mark gave m. Of what ended
// until then, what has the verifier v is durable; what has another one is lost. ok means
// that nothing is.
func (l *Log) Committed(m Mark, v Verifier) (ok bool) {
	gone := l.committed(m, v, &ok)
	for i, b := range gone {
		b.Release()
		gone[i] = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if cap(gone) > cap(l.spare) {
		l.spare = gone[:0]
	}
	return ok
}

// committed is Committed; it gives the bytes to be released, which take a while.
func (l *Log) committed(m Mark, v Verifier, ok *bool) (gone []*buffer.Buffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*ok = true
	n := 0
	for n < len(l.entries) && l.entries[n].mark <= m {
		e := &l.entries[n]
		e.lost = e.kind != mask && (e.lost || e.verifier != v)
		*ok = *ok && !e.lost
		n++
	}
	gone, l.spare = l.spare[:0], nil
	for i := range l.entries[:n] {
		e := &l.entries[i]
		if b := e.bytes; !e.lost && b != nil && l.readers == 0 {
			gone, e.bytes = append(gone, b), nil
		}
		switch {
		case *ok:
			l.drop(e)
		case !e.lost:
			l.hide(e)
		}
	}
	if *ok {
		l.forget(n)
	}
	l.settle()
	l.admit()
	return gone
}

// forget takes the first n entries, which were dropped, out of the list.
func (l *Log) forget(n int) {
	rest := copy(l.entries, l.entries[n:])
	clear(l.entries[rest:])
	l.entries = l.entries[:rest]
}

// hide makes an entry that is durable a mask.
func (l *Log) hide(e *entry) {
	l.discard(e.bytes)
	l.kept.Add(entryCost - e.cost)
	e.kind, e.bytes, e.cost, e.lost = mask, nil, entryCost, false
}

// drop is for an entry that goes.
func (l *Log) drop(e *entry) {
	l.discard(e.bytes)
	l.kept.Add(-e.cost)
	e.bytes = nil
}

// discard gives bytes back, as soon as nobody can read them.
func (l *Log) discard(b *buffer.Buffer) {
	switch {
	case b == nil:
	case l.readers > 0:
		l.limbo = append(l.limbo, b)
	default:
		b.Release()
	}
}

// settle finds out whether an entry is lost.
func (l *Log) settle() {
	lost := false
	for i := range l.entries {
		if lost = l.entries[i].lost; lost {
			break
		}
	}
	l.stale.Store(lost)
}

// CommitFailed says that a COMMIT failed, or that its reply was lost: all counts as lost.
func (l *Log) CommitFailed() { l.NewInstance() }

// NewInstance says that the server is another instance, whatever its verifier: all counts
// as lost.
func (l *Log) NewInstance() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losses++
	for i := range l.entries {
		l.entries[i].lost = l.entries[i].kind != mask
	}
	l.settle()
}

// Truncate forgets what lies at size or behind it.
func (l *Log) Truncate(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.entries[:0]
	for i := range l.entries {
		e := l.entries[i]
		if e.off >= size {
			l.drop(&e)
			continue
		}
		e.end = min(e.end, size)
		rest = append(rest, e)
	}
	clear(l.entries[len(rest):])
	l.entries = rest
	l.settle()
	l.admit()
}
