package unstable

import "sluice/block/buffer"

const (
	// chunkSize is the memory that short changes share.
	chunkSize = 256 << 10
	// short is the longest change that shares it.
	short = chunkSize / 4
)

// chunk is memory for the bytes of one long or several short changes. It is given back
// when none of them needs it any more.
type chunk struct {
	buf  *buffer.Buffer
	used int // bytes handed out
	refs int // changes under way and entries, and the Log as long as it is the current one
}

// reserve gives n bytes of memory. The lock is held.
func (l *Log) reserve(n int) (*chunk, []byte) {
	if n > short {
		c := l.newChunk(n)
		return c, c.buf.B[:n:n]
	}
	if l.current == nil || l.current.used+n > chunkSize {
		if l.current != nil {
			l.unref(l.current)
		}
		l.current = l.newChunk(chunkSize) // its first reference is the Log's
	}
	c := l.current
	p := c.buf.B[c.used : c.used+n : c.used+n]
	c.used += n
	c.refs++
	return c, p
}

// newChunk makes a chunk with one reference. The lock is held.
func (l *Log) newChunk(n int) *chunk {
	var c *chunk
	if last := len(l.chunks) - 1; last >= 0 {
		c, l.chunks = l.chunks[last], l.chunks[:last]
	} else {
		c = new(chunk)
	}
	c.buf, c.used, c.refs = buffer.Get(n), 0, 1
	return c
}

// unref gives a reference up. The lock is held.
func (l *Log) unref(c *chunk) {
	if c == nil {
		return
	}
	if c.refs--; c.refs > 0 {
		return
	}
	if l.readers > 0 { // somebody still reads what is kept
		l.limbo = append(l.limbo, c.buf)
	} else {
		c.buf.Release()
	}
	c.buf = nil
	l.chunks = append(l.chunks, c)
}

// read lets memory that is given up stay as it is until unread.
func (l *Log) read() {
	l.mu.Lock()
	l.readers++
	l.mu.Unlock()
}

func (l *Log) unread() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers--; l.readers == 0 {
		for i, b := range l.limbo {
			b.Release()
			l.limbo[i] = nil
		}
		l.limbo = l.limbo[:0]
	}
}
