package lab

import (
	"net"
	"strconv"
	"sync"
	"time"
)

// Cutter is a TCP proxy in front of a server that does to connections what a bad
// network, a firewall or a failing server does. It has a loopback address of its own
// and keeps its port. Its methods may be called by any goroutine.
//
// It owns a goroutine that accepts and five for each connection (link.go); all end
// with the test.
type Cutter struct {
	t    TB
	addr string
	all  sync.WaitGroup

	mu       sync.Mutex
	target   string
	listener net.Listener // nil: connections are refused
	links    map[*link]struct{}
	accepted int
	stalled  bool
	closed   bool
	delay    time.Duration
	changed  chan struct{} // closed and replaced when something above changed
	passed   [2]int64
	cuts     [2]plannedCut
}

// Direction is one way through a proxy.
type Direction int

// The ways through a proxy.
const (
	ToServer Direction = iota
	ToClient
)

// How is the way in which a connection is cut.
type How int

// Ways to cut a connection, on both its ends. What the proxy still holds is lost.
const (
	RST How = iota // at once, as by a host that was started again
	FIN            // closed, as by a process that has ended; what arrives later is taken and thrown away
)

// plannedCut is a cut that comes when a direction's count of passed bytes is at.
type plannedCut struct {
	at   int64
	how  How
	done chan struct{} // nil: none is planned
}

// Cut starts a proxy in front of target, a host and port. It ends with the test.
func Cut(t TB, target string) *Cutter {
	t.Helper()
	return CutAt(t, Loopback(), target)
}

// CutAt is Cut on a given loopback address, for one of several ports of a server that
// clients expect on one address.
func CutAt(t TB, host, target string) *Cutter {
	t.Helper()
	c := &Cutter{
		t: t, addr: net.JoinHostPort(host, strconv.Itoa(freePort(t, host))), target: target,
		links: map[*link]struct{}{}, changed: make(chan struct{}),
	}
	c.Accept()
	t.Cleanup(c.close)
	return c
}

// Addr returns host and port of the proxy.
func (c *Cutter) Addr() string { return c.addr }

// Accept lets connections come in again after Refuse.
func (c *Cutter) Accept() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil || c.closed {
		return
	}
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatalf("proxy: %v", err)
	}
	c.listener = l
	c.all.Go(func() { c.accept(l) })
}

// Refuse makes connecting to the proxy fail, as if nobody listened. Connections that
// there are stay.
func (c *Cutter) Refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		_ = c.listener.Close() // which fails only when it is closed already
		c.listener = nil
	}
}

// Retarget sends connections that come in from now on to another server.
func (c *Cutter) Retarget(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = addr
}

// Stall lets nothing more pass, in either direction, but what is being passed right
// now; connections are accepted, and stay. Resume delivers what came meanwhile.
func (c *Cutter) Stall() { c.change(func() { c.stalled = true }) }

// Resume ends a Stall.
func (c *Cutter) Resume() { c.change(func() { c.stalled = false }) }

// Delay makes what comes in from now on arrive so much later, in each direction.
func (c *Cutter) Delay(d time.Duration) { c.change(func() { c.delay = d }) }

// CutAll cuts all connections that there are and returns how many those were.
func (c *Cutter) CutAll(how How) int {
	c.mu.Lock()
	var links []*link
	for l := range c.links {
		links = append(links, l)
	}
	c.mu.Unlock()
	n := 0
	for _, l := range links {
		if l.cut(how) {
			n++
		}
	}
	return n
}

// CutAfter cuts a connection as soon as n more bytes have passed in the direction,
// over all connections together: that one which brought the last of them. With FIN
// exactly so many arrive, with RST the receiver may see fewer. What it returns is
// closed when that has happened. There is one such cut for each direction at a time.
func (c *Cutter) CutAfter(d Direction, n int64, how How) <-chan struct{} {
	done := make(chan struct{})
	c.change(func() { c.cuts[d] = plannedCut{at: c.passed[d] + n, how: how, done: done} })
	return done
}

// Conns returns how many connections there are that were not cut.
func (c *Cutter) Conns() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for l := range c.links {
		if !l.isCut() {
			n++
		}
	}
	return n
}

// Accepted returns how many connections came in so far.
func (c *Cutter) Accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

// Passed returns how many bytes went through in a direction so far.
func (c *Cutter) Passed(d Direction) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed[d]
}

// Await waits until cond holds, which is asked each time that a connection has come
// in, has gone or has passed bytes. It fails the test after a minute; what says in
// words what was waited for.
func (c *Cutter) Await(what string, cond func(*Cutter) bool) {
	c.t.Helper()
	deadline := time.NewTimer(lineTimeout)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if cond(c) {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			c.t.Fatalf("proxy: %v passed before %s", lineTimeout, what)
		}
	}
}

// change changes fields under the lock and wakes those who wait for that.
func (c *Cutter) change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	close(c.changed)
	c.changed = make(chan struct{})
}

// accept takes connections until the listener is closed.
func (c *Cutter) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		link := newLink(c, conn.(*net.TCPConn))
		c.change(func() {
			if c.closed || c.listener != l {
				link.cut(RST)
				return
			}
			c.accepted++
			c.links[link] = struct{}{}
			target := c.target
			c.all.Go(func() { link.run(target) })
		})
	}
}

// remove forgets a connection that is over.
func (c *Cutter) remove(l *link) { c.change(func() { delete(c.links, l) }) }

// close ends everything.
func (c *Cutter) close() {
	c.Refuse()
	c.change(func() { c.closed = true })
	c.mu.Lock()
	links := make([]*link, 0, len(c.links))
	for l := range c.links {
		links = append(links, l)
	}
	c.mu.Unlock()
	for _, l := range links {
		l.cut(RST)
		l.close()
	}
	c.all.Wait()
}

// open waits until something may pass: false when dead was closed first.
func (c *Cutter) open(dead <-chan struct{}) bool {
	for {
		c.mu.Lock()
		stalled, changed := c.stalled, c.changed
		c.mu.Unlock()
		if !stalled {
			return true
		}
		select {
		case <-changed:
		case <-dead:
			return false
		}
	}
}

// pass counts up to n bytes that are about to pass and returns how many of them may
// do so; cut says what is to be done behind them.
func (c *Cutter) pass(d Direction, n int) (may int, cut plannedCut) {
	c.change(func() {
		may = n
		if p := c.cuts[d]; p.done != nil && c.passed[d]+int64(n) >= p.at {
			may, cut = int(p.at-c.passed[d]), p
			c.cuts[d] = plannedCut{}
		}
		c.passed[d] += int64(may)
	})
	return may, cut
}

// due returns when what comes in now is to arrive.
func (c *Cutter) due() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.delay)
}
