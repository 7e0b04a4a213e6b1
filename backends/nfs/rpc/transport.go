package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/block"
)

// Config says whom to call and how.
type Config struct {
	// Dial makes a connection. The context ends it.
	Dial             func(ctx context.Context) (net.Conn, error)
	Program, Version uint32
	Cred             *Cred // nil: AUTH_NONE

	// Patience is how long a call waits for a broken connection to come back: then
	// it fails with a LostError, and so do those that come, until it is back. 0: not
	// at all; negative: for ever.
	Patience time.Duration
	// Silence is how long the server may say nothing while calls are outstanding
	// before the connection counts as broken. Half way the server is asked whether
	// it is there. 0: ten seconds.
	Silence time.Duration
	// MaxReply is the longest reply in bytes that is accepted.
	MaxReply int

	// Revive, if set, is called with a new connection before calls are sent over
	// it; also the first time.
	Revive func(ctx context.Context, link *Link) error
	// Answer, if set, answers a call that the server makes: it gets what follows the
	// xid and returns the same of the reply. Without it such calls are ignored.
	Answer func(call []byte) []byte

	Object string       // the server, for errors and the log
	Logger *slog.Logger // nil: nobody is told
}

// Transport is a place for calls to a server.
type Transport struct {
	cfg    Config
	header []byte // of all calls

	closing chan struct{} // closed by Close
	end     context.CancelFunc
	running sync.WaitGroup
	once    sync.Once

	calls atomic.Pointer[[]*Call] // by index; replaced under mu

	mu      sync.Mutex
	idle    sync.Cond // writing has become false
	link    *Link
	dead    error // why there is no connection, nor soon will be
	writing bool
	seq     uint64
	queue   []*Call
	head    int       // queue[:head] is sent
	answers [][]byte  // to calls of the server's, to be sent
	why     error     // the last attempt to connect failed, or why the connection broke
	down    time.Time // since when there is no connection

	out batch // the writer's

	takeOver chan struct{} // the writer's role for writeOn; room for one
	flight   atomic.Int64  // calls submitted and not answered
	heard    atomic.Int64  // when the last reply came or the first call after a rest went, on the clock of now
	long     atomic.Int64  // calls in flight whose payload is worth a system call
	lost     atomic.Uint64 // connections lost so far
}

const (
	indexBits = 12
	maxCalls  = 1 << indexBits

	ownBatches = 4 // batches that a caller writes before it lets go

	defaultSilence = 10 * time.Second
)

// Open connects.
func Open(ctx context.Context, cfg Config) (*Transport, error) {
	if cfg.Silence <= 0 {
		cfg.Silence = defaultSilence
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Transport{
		cfg:      cfg,
		header:   header(cfg.Program, cfg.Version, cfg.Cred),
		closing:  make(chan struct{}),
		takeOver: make(chan struct{}, 1),
		queue:    make([]*Call, 0, 64),
	}
	t.idle.L = &t.mu
	t.calls.Store(new([]*Call))
	t.out.init()
	link, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	t.end = end
	t.link = link
	t.running.Go(func() { t.run(life, link) })
	t.running.Go(t.writeOn)
	ping := t.NewCall()
	t.running.Go(func() { t.watch(ping) })
	return t, nil
}

// NewCall makes a Call for use with this Transport, to which it belongs for good.
// nil means that there are too many (4094).
func (t *Transport) NewCall() *Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.calls.Load()
	if len(old) >= maxCalls-1 { // the last place is Link.Call's
		return nil
	}
	c := &Call{index: uint32(len(old)), gen: rand.Uint32(), done: make(chan struct{}, 1)}
	calls := append(slices.Clip(old), c)
	t.calls.Store(&calls)
	if need := 2 * len(calls); cap(t.queue) < need {
		t.queue = append(make([]*Call, 0, 2*need), t.queue...)
	}
	return c
}

// Start appends the beginning of a call of a procedure to b[:0]: what precedes its
// arguments.
func (t *Transport) Start(b []byte, procedure uint32) []byte {
	b = append(b[:0], t.header...)
	b[procedureAt], b[procedureAt+1], b[procedureAt+2], b[procedureAt+3] =
		byte(procedure>>24), byte(procedure>>16), byte(procedure>>8), byte(procedure)
	return b
}

// Do makes the call and waits for its outcome. A nil error means that Reply holds
// the results; a *ReplyError that the server did not carry it out; a *LostError that
// there was no connection; a *ProtocolError that the reply made no sense. After the
// context's error the Call is the caller's again only where left is false; else
// Drained is called when it is.
func (t *Transport) Do(ctx context.Context, c *Call) (left bool, err error) {
	t.submit(c)
	canceled, forsake := ctx.Done(), c.Forsake
	for {
		select {
		case <-c.done:
			return false, t.result(c)
		case <-canceled:
			canceled, err = nil, ctx.Err()
		case <-forsake:
			forsake, err = nil, block.Closed
		}
		free, gone := t.giveUp(c)
		if free || gone {
			return gone, err
		}
		if forsake == nil && c.Forsake != nil {
			t.forsake(c)
		}
	}
}

// result ends the call for its caller.
func (t *Transport) result(c *Call) error {
	c.release()
	return c.err
}

// submit queues the call and, when nobody is writing, writes.
func (t *Transport) submit(c *Call) {
	c.reset()
	if t.flight.Load() == 0 { // before it is counted: watch may look at once
		t.heard.Store(now())
	}
	t.flight.Add(1)
	t.mu.Lock()
	if t.dead != nil {
		c.err = t.dead
		t.mu.Unlock()
		c.busy.Store(filling)
		t.fail(c)
		return
	}
	t.number(c)
	if t.writing || t.link == nil {
		t.mu.Unlock()
		return
	}
	t.writing = true
	if t.flight.Load() > 1 {
		// Whoever was woken by the replies that came together with this caller's last
		// is about to make the next call, too: one system call for all of them.
		t.mu.Unlock()
		runtime.Gosched()
		t.mu.Lock()
	}
	t.write(ownBatches)
}

// Queue queues a call, to be sent with Kick at the latest, whose end c.Ended is told. It
// is not taken where there is no connection.
func (t *Transport) Queue(c *Call) bool {
	ended := c.Ended
	c.reset()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil || t.dead != nil {
		return false
	}
	c.Ended = ended
	if t.flight.Load() == 0 { // see submit
		t.heard.Store(now())
	}
	t.flight.Add(1)
	t.number(c)
	return true
}

// Kick sends what is queued, if nobody does.
func (t *Transport) Kick() {
	t.mu.Lock()
	if t.writing || t.link == nil || !t.waits() {
		t.mu.Unlock()
		return
	}
	t.writing = true
	t.write(ownBatches)
}

// Abandon ends a call that was queued, soon at least: nobody wants its outcome any more.
// Nothing happens to one that has ended already, nor to what c is used for since then.
func (t *Transport) Abandon(c *Call) {
	t.mu.Lock()
	ended := c.told
	if ended == nil || !c.queued && c.live.Load() == 0 {
		t.mu.Unlock()
		return
	}
	lost := &LostError{Cause: block.Closed}
	if c.queued && !c.sent {
		t.unqueue(c)
		t.mu.Unlock()
		t.flight.Add(-1)
		c.release()
		push(ended.CallEnded(lost, false))
		return
	}
	if !c.toldChange && c.leave() {
		t.mu.Unlock()
		push(ended.CallEnded(lost, true))
		return
	}
	t.forsakeAndUnlock(c)
}

// unqueue takes a call out of the queue. The lock is held.
func (t *Transport) unqueue(c *Call) {
	i := slices.Index(t.queue[t.head:], c) + t.head
	t.queue = slices.Delete(t.queue, i, i+1)
	c.queued = false
}

// submitQuietly queues the call and leaves the writing to others. Its outcome comes
// to done.
func (t *Transport) submitQuietly(c *Call) {
	c.reset()
	t.flight.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead != nil {
		c.err = t.dead
		c.busy.Store(filling)
		t.fail(c)
		return
	}
	t.number(c)
	t.wakeWriter()
}

// wakeWriter has writeOn send what is queued, if nobody is at it. The lock is held.
func (t *Transport) wakeWriter() {
	if !t.writing && t.link != nil {
		t.writing = true
		t.takeOver <- struct{}{} // never blocks: there is one role
	}
}

// number gives the call its xid and its place in the queue. The lock is held.
func (t *Transport) number(c *Call) {
	c.xid = c.nextXID()
	t.seq++
	c.seq, c.queued = t.seq, true
	c.told, c.toldChange = c.Ended, c.Changes
	c.busy.Store(0)
	t.enqueue(c)
}

// fail hands a call back that the Transport failed. No one else can any more.
func (t *Transport) fail(c *Call) {
	t.flight.Add(-1)
	push(c.handBack())
}

// enqueue appends to the queue. What is sent makes room: no more calls wait than
// there are, which is half of what the queue holds, so it does not grow and is moved
// seldom.
func (t *Transport) enqueue(c *Call) {
	if len(t.queue) == cap(t.queue) && t.head > 0 {
		n := copy(t.queue, t.queue[t.head:])
		clear(t.queue[n:])
		t.queue, t.head = t.queue[:n], 0
	}
	t.queue = append(t.queue, c)
}

// giveUp lets the caller of a call leave, if that is possible. free: the call was
// not sent, and is the caller's again. gone: it was, and changes nothing: its reply
// will be thrown away. What changes something and was sent may be carried out, so
// its caller has to wait for the outcome; so has one whose payload may have to be sent
// again.
func (t *Transport) giveUp(c *Call) (free, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.queued && !c.sent {
		t.unqueue(c)
		t.flight.Add(-1)
		c.release()
		return true, false
	}
	if c.Changes || len(c.Data) > 0 || c.Drained == nil || !c.leave() {
		return false, false
	}
	return false, true // it may be in use again from here on: see drained
}

// forsakenTime is how long a server has to answer a call that nobody waits for.
const forsakenTime = time.Second

// forsake sees to it that the call ends soon, whatever the server does.
func (t *Transport) forsake(c *Call) {
	t.mu.Lock()
	t.forsakeAndUnlock(c)
}

func (t *Transport) forsakeAndUnlock(c *Call) {
	c.forsaken = true
	queued, xid := c.queued, c.xid
	if queued {
		t.unqueue(c)
		c.err = &LostError{Cause: block.Closed, Unresolved: c.sent}
	}
	t.mu.Unlock()
	if queued {
		t.drop([]*Call{c})
		return
	}
	time.AfterFunc(forsakenTime, func() {
		if c.live.Load() == xid {
			t.Break()
		}
	})
}

// drained ends a call whose caller has left.
func (t *Transport) drained(c *Call) {
	t.flight.Add(-1)
	c.release()
	c.Drained()
}

// Break ends the connection, if there is one: what is in flight is sent again over
// the next.
func (t *Transport) Break() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link != nil {
		t.link.close()
	}
}

// Losses is how many connections were lost.
func (t *Transport) Losses() uint64 { return t.lost.Load() }

// Connected reports whether there is a connection.
func (t *Transport) Connected() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.link != nil
}

// Away says since when there is no connection, and why; the zero time where there is
// one.
func (t *Transport) Away() (since time.Time, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link != nil {
		return time.Time{}, nil
	}
	return t.down, t.why
}

// Close ends the connection and fails what is under way with kind Closed.
func (t *Transport) Close() error {
	t.once.Do(func() {
		t.mu.Lock()
		// Both at once: who finds the Transport closing fails what is queued for the
		// last time.
		close(t.closing)
		t.dead = block.Closed
		if t.link != nil {
			t.link.close()
		}
		t.mu.Unlock()
		t.end()
	})
	t.running.Wait()
	return nil
}

func (t *Transport) isClosing() bool {
	select {
	case <-t.closing:
		return true
	default:
		return false
	}
}

var began = time.Now()

// now is a clock that never goes back, in nanoseconds.
func now() int64 { return int64(time.Since(began)) }
