package httpapi

import (
	"context"
	"sync"

	"sluice/block"
	"sluice/gateway/spec"
)

// turns lets one change of an export follow another: a change that keeps what it
// was not told to change reads first and writes then. Exports do not wait for
// each other.
type turns struct {
	mu     sync.Mutex // held for a moment only
	queues map[string]*turn
}

type turn struct {
	token chan struct{} // whoever has put one in has the turn
	users int           // with the turn or waiting for it; guarded by turns.mu
}

// take waits for the turn until ctx ends.
func (t *turns) take(ctx context.Context, name string) (release func(), err error) {
	t.mu.Lock()
	if t.queues == nil {
		t.queues = map[string]*turn{}
	}
	q := t.queues[name]
	if q == nil {
		q = &turn{token: make(chan struct{}, 1)}
		t.queues[name] = q
	}
	q.users++
	t.mu.Unlock()
	select {
	case q.token <- struct{}{}:
		return func() { <-q.token; t.leave(name, q) }, nil
	case <-ctx.Done():
		t.leave(name, q)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(name string, q *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(t.queues, name)
	}
}

// change takes the turn for an export that a request names.
func (s *Server) change(ctx context.Context, name string) (release func(), err error) {
	if err := spec.CheckName(name); err != nil {
		return nil, err
	}
	release, err = s.turns.take(ctx, name)
	return release, block.Wrap(err, "change export", name, -1)
}
