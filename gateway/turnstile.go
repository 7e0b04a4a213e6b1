package gateway

import (
	"context"

	"sluice/block"
)

// turnstile is a lock that can be given up waiting for: who has it may be waiting
// for a storage that does not answer.
type turnstile chan struct{}

func newTurnstile() turnstile { return make(turnstile, 1) }

// lock fails with Canceled when ctx ends first; where it has ended already, also if
// the lock is free: nobody is there any more who wants what is about to be done.
func (t turnstile) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return block.Errorf(block.Canceled, "wait for the export", "", -1, "whoever asked has gone: %w", err)
	}
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		if ctx.Err() == nil { // both may come true at once
			return nil
		}
		t.unlock()
	case <-ctx.Done():
	}
	return block.Errorf(block.Canceled, "wait for the export", "", -1, "something else is being done to it: %w", ctx.Err())
}

// take is lock for one that nobody else knows yet.
func (t turnstile) take() { t <- struct{}{} }

func (t turnstile) unlock() { <-t }
