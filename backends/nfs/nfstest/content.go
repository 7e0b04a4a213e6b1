package nfstest

const (
	pageSize = 4096
	// maxSize is the largest file; pages are kept one by one, so it costs nothing.
	maxSize = 1 << 46
	// maxReserve bounds what one ALLOCATE may take, and with it the server's memory.
	maxReserve = 1 << 30
)

type page [pageSize]byte

// reserved is the page that ALLOCATE gives: data, all zero, never written to.
var reserved page

// layer is the bytes of a file at one level of safety. A page that is not there is a
// hole. What lies behind size in the last page is zero.
type layer struct {
	pages map[int64]*page
	size  int64
}

// content is a sparse file twice: as clients see it and as it would be after a crash.
// Pages that are the same in both are shared and copied before a change.
type content struct {
	now, safe layer
	dirty     map[int64]struct{} // pages that may differ between the two
}

func newContent() *content {
	return &content{
		now:   layer{pages: map[int64]*page{}},
		safe:  layer{pages: map[int64]*page{}},
		dirty: map[int64]struct{}{},
	}
}

// owned is page n of l, copied if the other layer has it too.
func (l *layer) owned(n int64, other *layer) *page {
	p := l.pages[n]
	switch {
	case p == nil:
		p = new(page)
	case p == &reserved || p == other.pages[n]:
		fresh := *p
		p = &fresh
	default:
		return p
	}
	l.pages[n] = p
	return p
}

// span calls do for the part of each page that [offset, offset+length) covers.
func span(offset, length int64, do func(n int64, from, to int)) {
	for length > 0 {
		from := int(offset % pageSize)
		to := min(pageSize, from+int(min(length, pageSize)))
		do(offset/pageSize, from, to)
		offset, length = offset+int64(to-from), length-int64(to-from)
	}
}

func (l *layer) write(p []byte, offset int64, other *layer) {
	span(offset, int64(len(p)), func(n int64, from, to int) {
		p = p[copy(l.owned(n, other)[from:to], p):]
	})
}

// zero makes whole pages of a range holes and clears parts of pages.
func (l *layer) zero(offset, length int64, other *layer) {
	end := min(offset+length, (l.size+pageSize-1)/pageSize*pageSize)
	edge := func(n int64, from, to int) {
		switch {
		case to-from == pageSize:
			delete(l.pages, n)
		case l.pages[n] != nil:
			clear(l.owned(n, other)[from:to])
		}
	}
	if (end-offset)/pageSize <= int64(len(l.pages)) {
		span(offset, end-offset, edge)
		return
	}
	for n := range l.pages { // far fewer pages than the range has
		from, to := max(offset, n*pageSize), min(end, (n+1)*pageSize)
		if from < to {
			edge(n, int(from-n*pageSize), int(to-n*pageSize))
		}
	}
}

func (l *layer) truncate(size int64, other *layer) {
	if size < l.size {
		l.zero(size, l.size-size, other)
		for n := range l.pages {
			if n*pageSize >= size {
				delete(l.pages, n)
			}
		}
	}
	l.size = size
}

// bytes is a copy of what lies in a range, cut at the end of the file.
func (l *layer) bytes(offset, length int64) []byte {
	length = max(0, min(length, l.size-offset))
	out := make([]byte, length)
	rest := out
	span(offset, length, func(n int64, from, to int) {
		if p := l.pages[n]; p != nil {
			copy(rest, p[from:to])
		}
		rest = rest[to-from:]
	})
	return out
}

// write puts bytes where clients see them and, if stable, also where a crash leaves
// them: exactly those bytes, and nothing else of their pages.
func (c *content) write(p []byte, offset int64, stable bool) {
	c.mark(offset, int64(len(p)))
	c.now.write(p, offset, &c.safe)
	c.now.size = max(c.now.size, offset+int64(len(p)))
	if stable {
		c.safe.write(p, offset, &c.now)
		c.safe.size = max(c.safe.size, offset+int64(len(p)))
	}
}

// mark notes that the pages of a range may differ.
func (c *content) mark(offset, length int64) {
	span(offset, length, func(n int64, _, _ int) { c.dirty[n] = struct{}{} })
}

// punch makes a range a hole, as far as the file goes.
func (c *content) punch(offset, length int64) {
	for n := range c.now.pages {
		if (n+1)*pageSize > offset && n*pageSize < offset+length {
			c.dirty[n] = struct{}{}
		}
	}
	c.now.zero(offset, length, &c.safe)
}

// reserve makes holes of a range data, and the file long enough for it.
func (c *content) reserve(offset, length int64) {
	c.mark(offset, length)
	span(offset, length, func(n int64, _, _ int) {
		if c.now.pages[n] == nil {
			c.now.pages[n] = &reserved
		}
	})
	c.now.size = max(c.now.size, offset+length)
}

// resize is durable at once, as SETATTR has to be.
func (c *content) resize(size int64) {
	c.now.truncate(size, &c.safe)
	c.safe.truncate(size, &c.now)
}

// commit makes the pages of a range durable, and the size. A length of 0 is all from
// offset on.
func (c *content) commit(offset, length int64) {
	for n := range c.dirty {
		if (n+1)*pageSize <= offset || length > 0 && n*pageSize >= offset+length {
			continue
		}
		delete(c.dirty, n)
		if p := c.now.pages[n]; p != nil {
			c.safe.pages[n] = p
		} else {
			delete(c.safe.pages, n)
		}
	}
	c.safe.size = c.now.size
}

// lose forgets what is not durable.
func (c *content) lose() {
	c.now = layer{pages: make(map[int64]*page, len(c.safe.pages)), size: c.safe.size}
	for n, p := range c.safe.pages {
		c.now.pages[n] = p
	}
	clear(c.dirty)
}

// seek is the first offset from offset on that is data or a hole, and the size when
// there is none.
func (c *content) seek(offset int64, data bool) int64 {
	first := c.now.size
	if data {
		for n := range c.now.pages {
			if (n+1)*pageSize > offset {
				first = min(first, max(offset, n*pageSize))
			}
		}
		return first
	}
	for n := offset / pageSize; n*pageSize < c.now.size; n++ {
		if c.now.pages[n] == nil {
			return max(offset, n*pageSize)
		}
	}
	return first
}

// used is how many bytes are not holes.
func (c *content) used() uint64 { return uint64(len(c.now.pages)) * pageSize }
