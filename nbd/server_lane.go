package nbd

import (
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/block"
)

// lane carries out the writes to a device that orders them anyway, those of all
// its connections, one at a time: two that wait for each other in the device
// would only spin. The connections take turns. Its goroutine runs while there are
// writes that a receiving goroutine has not carried out itself (server_inline.go).
//
// Replies are held back, for each connection, until they are as many as its
// writes that still wait: a wake-up of the client for each write costs more than
// the write, but it should come before the lane runs dry, and not later than
// holdTime when a write takes long.
type lane struct {
	mu      sync.Mutex
	first   *laned // connections with writes, in turn
	last    *laned
	running bool     // somebody is writing: the goroutine, or inline
	holding []*laned // connections with held replies
	inline  inlineWrite
	ticking bool // timer is running

	run   func()      // loop, made once so that starting it allocates nothing
	timer *time.Timer // calls tick
	ended *sync.WaitGroup
	users int // connections; guarded by lanes.mu
}

// holdTime is how long a reply is held back at most.
const holdTime = time.Millisecond

// laned is a connection's place in the lane. The lane's mutex guards it.
type laned struct {
	lane    *lane // nil: writes go to the workers
	conn    *serverConn
	next    *laned         // in turn
	queue   jobQueue       // its writes
	done    jobQueue       // answered writes that are held back
	pending sync.WaitGroup // writes that the lane is not done with
}

// add queues a write.
func (c *laned) add(j *job) {
	c.pending.Add(1)
	j.laned = c
	l := c.lane
	l.mu.Lock()
	if c.queue.n == 0 {
		l.append(c)
	}
	c.queue.push(j)
	start := !l.running
	l.running = true
	l.mu.Unlock()
	if start {
		l.ended.Add(1)
		go l.run()
	}
}

// append puts a connection at the end of the turn.
func (l *lane) append(c *laned) {
	c.next = nil
	if l.first == nil {
		l.first = c
	} else {
		l.last.next = c
	}
	l.last = c
}

// loop works until there is nothing to do.
func (l *lane) loop() {
	defer l.ended.Done()
	for {
		j := l.next()
		if j == nil {
			return
		}
		c := j.laned
		ready := c.conn.execute(c.conn.context(), j)
		if due := l.done(c, ready); due.n > 0 {
			// A client that does not take its replies must not stop the others.
			c.conn.put(due, impatient)
		}
		c.pending.Done()
	}
}

// next takes a write from the connection whose turn it is.
func (l *lane) next() *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.first
	if c == nil {
		l.running = false
		return nil
	}
	l.first = c.next
	j := c.queue.pop()
	if c.queue.n > 0 {
		l.append(c)
	}
	return j
}

// done takes a reply, nil for none, and returns those that are to be sent now.
func (l *lane) done(c *laned, ready *job) (due jobQueue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := c.done.n > 0
	if ready != nil {
		c.done.push(ready)
	}
	switch {
	case c.done.n > c.queue.n:
		due, c.done = c.done, jobQueue{}
		if held {
			i := slices.Index(l.holding, c)
			l.holding = slices.Delete(l.holding, i, i+1)
		}
	case c.done.n > 0 && !held:
		l.holding = append(l.holding, c)
		l.wind()
	}
	return due
}

// wind makes sure that tick comes.
func (l *lane) wind() {
	if l.ticking {
		return
	}
	l.ticking = true
	l.ended.Add(1)
	if l.timer == nil {
		l.timer = time.AfterFunc(holdTime, l.tick)
	} else {
		l.timer.Reset(holdTime)
	}
}

// tick sends what is held back, and looks after the write that is carried out by
// a receiver.
func (l *lane) tick() {
	defer l.ended.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ticking = false
	for len(l.holding) > 0 {
		c := l.holding[len(l.holding)-1]
		l.holding = l.holding[:len(l.holding)-1]
		due := c.done
		c.done = jobQueue{}
		c.pending.Add(1) // it has a write in the queue, so nobody has stopped waiting
		l.mu.Unlock()
		c.conn.put(due, impatient)
		c.pending.Done()
		l.mu.Lock()
	}
	if l.inline.look() {
		l.wind()
	}
}

// lanes are the lanes of a server, one for each device in use that wants one.
type lanes struct {
	mu    sync.Mutex
	table map[any]*lane
	ended sync.WaitGroup // the lanes' goroutines
}

// take gives a connection the lane of its device, nil when it needs none.
func (ls *lanes) take(dev *block.Resolved) *lane {
	if !dev.Info.Has(block.CapSerialWrites) {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	key := laneKey(dev)
	l := ls.table[key]
	if l == nil {
		l = &lane{ended: &ls.ended}
		l.run = l.loop
		if ls.table == nil {
			ls.table = make(map[any]*lane)
		}
		ls.table[key] = l
	}
	l.users++
	return l
}

// give takes it back; l may be nil.
func (ls *lanes) give(l *lane, dev *block.Resolved) {
	if l == nil {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(ls.table, laneKey(dev))
	}
}

// laneKey is the device itself. One of a type that cannot be compared has a lane
// for each connection.
func laneKey(dev *block.Resolved) any {
	if reflect.ValueOf(dev.Device).Comparable() {
		return dev.Device
	}
	return dev
}
