package nbd

import (
	"sync"

	"sluice/block"
	"sluice/block/buffer"
)

// Where the device can start requests (block.Starter), the receiver starts small reads
// and writes itself and goes on receiving: all that one receive brought leave for the
// storage together, and what the storage answers together leaves for the client
// together. No goroutine is woken in between. A request that cannot be started, or
// that did not work out so, goes to the workers.

// startMax is the longest request that is started. The payload of a longer write is
// worth a worker, which may wait until the storage takes it.
const startMax = 128 << 10

// starting is what a connection has started and not answered.
type starting struct {
	device block.Starter // nil: requests are not started
	kick   bool          // the receiver's: something waits for Kick

	under sync.WaitGroup // jobs under way, or answered and not pushed

	mu    sync.Mutex
	ended jobQueue // answered when pushed
}

// startRead begins a read; false: the workers are to do it.
func (c *serverConn) startRead(req request) bool {
	if c.starting.device == nil || req.length > startMax || c.mayHaveHoles(req) {
		return false
	}
	n := int64(req.length)
	if c.budget.tight(n) {
		c.push()
	}
	j := c.begin(req, OpRead, n)
	j.buf = buffer.Get(int(n))
	j.conn = c
	c.starting.under.Add(1)
	c.obs.InFlight(OpRead, +1)
	if c.starting.device.StartRead(j.buf.B, int64(req.offset), j) {
		c.starting.kick = true
		return true
	}
	j.buf.Release()
	j.buf = nil
	c.obs.InFlight(OpRead, -1)
	c.submit(j)
	c.starting.under.Done()
	return true
}

// startWrite begins a write whose payload is in the job; false: it is to be submitted.
func (c *serverConn) startWrite(j *job) bool {
	flags, after := c.deviceFlags(j.req)
	if c.starting.device == nil || after || j.req.length > startMax {
		return false
	}
	j.conn = c
	c.starting.under.Add(1)
	c.obs.InFlight(OpWrite, +1)
	if c.starting.device.StartWrite(j.buf.B, int64(j.req.offset), flags, j) {
		c.starting.kick = true
		return true
	}
	c.obs.InFlight(OpWrite, -1)
	c.starting.under.Done()
	return false
}

// kickStarted sends off what the receiver has started.
func (c *serverConn) kickStarted() {
	if c.starting.kick {
		c.starting.kick = false
		c.starting.device.Kick()
	}
}

// Done implements block.Done.
func (j *job) Done(err error) block.Pusher {
	c := j.conn
	if err != nil {
		defer c.starting.under.Done()
		if j.op == OpRead {
			j.buf.Release()
			j.buf = nil
		}
		c.obs.InFlight(j.op, -1)
		c.submit(j)
		return nil
	}
	if j.op == OpRead {
		j.data = j.buf.B
		j.hlen = c.readHeaderSize()
		c.putReadHeader(j.hdr[:], j.req)
	}
	c.finish(j, nil)
	st := &c.starting
	st.mu.Lock()
	st.ended.push(j)
	st.mu.Unlock()
	return c
}

// Push implements block.Pusher: it sends the answers to what has ended.
func (c *serverConn) Push() {
	st := &c.starting
	st.mu.Lock()
	done := st.ended
	st.ended = jobQueue{}
	st.mu.Unlock()
	if n := done.n; n > 0 {
		c.put(done, impatient)
		st.under.Add(-n)
	}
}
