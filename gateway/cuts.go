package gateway

import (
	"context"
	"sync"
)

// cuts sends away the clients of exports whose storage is away while the gateway
// ends, be that found before or meanwhile. Whose cut has ended may be cut once more:
// requests of its file may come later.
type cuts struct {
	mu    sync.Mutex             // guards all below; nothing is locked under it
	ctx   func() context.Context // bounds the cuts; nil before the end
	stop  context.CancelFunc
	under map[*export]*cutting
	over  bool // none begins any more
}

// cutting is one export's.
type cutting struct {
	again bool // it was found to be away once more
	done  chan struct{}
}

// begin makes of what is told from here on. The bound is that of the first call.
func (c *cuts) begin(bound func() (context.Context, context.CancelFunc)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		ctx, stop := bound()
		c.ctx, c.stop, c.under = func() context.Context { return ctx }, stop, make(map[*export]*cutting)
	}
}

// of tells that requests of an export wait for its storage. It waits for nothing.
func (c *cuts) of(e *export) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.over {
		return
	}
	if under := c.under[e]; under != nil {
		under.again = true
		return
	}
	c.under[e] = &cutting{done: make(chan struct{})}
	go c.run(e, c.under[e])
}

func (c *cuts) run(e *export, under *cutting) {
	defer close(under.done)
	for again := true; again; {
		e.cut(c.ctx())
		c.mu.Lock()
		if again = under.again && !c.over; !again {
			delete(c.under, e)
		}
		under.again = false
		c.mu.Unlock()
	}
}

// wait returns when none is under way.
func (c *cuts) wait() {
	for {
		c.mu.Lock()
		var next *cutting
		for _, next = range c.under {
			break
		}
		c.mu.Unlock()
		if next == nil {
			return
		}
		<-next.done
	}
}

// end has those that are under way end at once, and lets no more begin.
func (c *cuts) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.stop != nil {
		c.stop()
	}
}
