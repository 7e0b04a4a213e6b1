package gateway

import (
	"context"
	"sync"
	"time"
)

// kept is how many events are remembered for readers that come late or are slow.
const kept = 1024

// events hands events to those who subscribed. A subscriber has a goroutine, which
// takes what it has not sent yet out of the ring; nobody who publishes ever waits.
type events struct {
	mu      sync.Mutex
	ring    [kept]Event
	first   uint64        // sequence numbers from here on are this process'
	last    uint64        // of the newest
	news    chan struct{} // closed and replaced when there is one
	over    chan struct{} // closed at the end
	readers sync.WaitGroup
}

// newEvents begins to count at the time, so that a number from before a restart is
// never that of another event.
func newEvents() *events {
	now := uint64(time.Now().UnixMicro())
	return &events{news: make(chan struct{}), over: make(chan struct{}), first: now, last: now}
}

func (e *events) publish(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	ev.Seq, ev.Time = e.last, time.Now()
	e.ring[e.last%kept] = ev
	close(e.news)
	e.news = make(chan struct{})
}

// subscribe: see Gateway.Subscribe.
func (e *events) subscribe(ctx context.Context, after uint64) <-chan Event {
	out := make(chan Event)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended() {
		close(out)
		return out
	}
	if after == 0 {
		after = e.oldest()
	}
	e.readers.Go(func() {
		defer close(out)
		e.pump(ctx, after, out)
	})
	return out
}

// pump sends the events after a sequence number until ctx or the events end.
func (e *events) pump(ctx context.Context, after uint64, out chan<- Event) {
	for {
		ev, news := e.next(after)
		send := out
		if news != nil {
			send = nil // there is nothing yet
		}
		select {
		case send <- ev:
			after = ev.Seq
		case <-news:
		case <-ctx.Done():
			return
		case <-e.over:
			return
		}
	}
}

// next gives the event after that number, or what to wait for.
func (e *events) next(after uint64) (ev Event, news <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if after == e.last {
		return Event{}, e.news
	}
	if ev = e.ring[(after+1)%kept]; ev.Seq == after+1 {
		return ev, nil
	}
	// Overwritten, or of another process.
	return Event{Seq: e.oldest(), Time: time.Now(), Kind: EventsLost}, nil
}

// oldest is the number before the oldest event that is known; mu is held.
func (e *events) oldest() uint64 {
	if e.last-e.first > kept {
		return e.last - kept
	}
	return e.first
}

func (e *events) ended() bool {
	select {
	case <-e.over:
		return true
	default:
		return false
	}
}

// close ends all subscriptions and waits for them.
func (e *events) close() {
	e.mu.Lock()
	close(e.over)
	e.mu.Unlock()
	e.readers.Wait()
}
