package gateway

import (
	"context"
	"errors"
	"time"

	"sluice/block"
	"sluice/filters/hold"
)

// lastFlush is the flush with which an export ends. A storage that is away must not
// keep it from ending. export.mu guards it.
type lastFlush struct {
	hold    *hold.Device
	limited bool               // by DrainTimeout
	cancel  context.CancelFunc // of the flush

	patience *time.Timer // while the storage is away
}

// release flushes and closes a stack. A storage that is away must not keep the
// process from ending, though who cuts clients off still wants the flush.
func (e *export) release(ctx context.Context, st *stack) error {
	ctx, done := e.gw.limited(context.WithoutCancel(ctx))
	defer done()
	_, limited := ctx.Deadline()
	e.mu.Lock()
	e.flushing = &lastFlush{hold: st.hold, limited: limited, cancel: done}
	e.flushing.storage(e.away)
	e.mu.Unlock()
	var err error
	if !st.top.Info().ReadOnly {
		err = block.Wrap(st.top.Flush(ctx), "flush", e.name, -1)
	}
	e.mu.Lock()
	e.flushing.storage(false)
	e.flushing = nil
	e.mu.Unlock()
	return errors.Join(err, block.Wrap(st.top.Close(), "close", e.name, -1))
}

// storage says whether the storage is away; once it is back, time does not count any
// more.
func (f *lastFlush) storage(away bool) {
	switch {
	case f == nil:
	case away && f.patience == nil:
		f.patience = time.AfterFunc(patienceHeld, f.giveUp)
	case !away && f.patience != nil:
		f.patience.Stop()
		f.patience = nil
	}
}

// giveUp has the flush wait no longer. An attempt that is being made may be the one
// that works, and goes on for as long as a flush may take.
func (f *lastFlush) giveUp() {
	if !f.limited {
		time.AfterFunc(flushLimit, f.cancel)
	}
	f.hold.GiveUp()
}

// changed is told by the hold filter that the storage went away or came back. That
// it is full is another thing: it answers, and a flush needs no room.
func (e *export) changed(now hold.State) {
	e.mu.Lock()
	e.away = now.Status == hold.Held && block.KindOf(now.Err) == block.Transient
	e.flushing.storage(e.away)
	e.mu.Unlock()
	if now.Status == hold.Held {
		e.gw.cuts.of(e) // at the end nobody waits for that
	}
	st := e.status()
	e.gw.events.publish(Event{Kind: ExportState, Export: e.name, Status: &st})
}
