package daemon

import (
	"context"
	"errors"
	"time"

	"sluice/block"
)

// Nothing that the end waits for can keep the process longer than twice
// shutdown_timeout and some seconds: once for clients, and once more, in the
// gateway, for what was written. A device that does not even notice that it is told
// to give up is left to the end of the process; what was flushed is safe.

// lastWait is how long each part of the end may take when its time is over: all is
// told to end by then.
const lastWait = time.Second

// close ends what open has begun, as far as it came. All of it together has the
// time that the configuration gives it.
func (d *daemon) close(cut context.Context) error {
	ctx, done := d.limited(cut)
	defer done()
	d.losing.Lock()
	close(d.ending)
	d.losing.Unlock()
	files := d.files.Load()
	apiGone := make(chan struct{})
	go func() { // beside the rest: what it does for clients may wait for exports
		defer close(apiGone)
		if d.api != nil {
			d.api.Close()
		}
	}()
	if d.keeper != nil && d.stores() {
		d.keeper.leave()
	}
	left := make(chan error, 1)
	go func() { left <- d.within(ctx, "the mount", func() error { return files.leave(ctx) }) }()
	if d.gw != nil && !files.kept() { // those of one that is kept must not be answered first
		d.gw.SendAway(ctx)
	}
	errs := []error{<-left}
	if d.gw != nil {
		errs = append(errs, d.gw.Close(ctx))
	}
	errs = append(errs, d.within(ctx, "the API", func() error { <-apiGone; return nil }))
	errs = append(errs, d.within(ctx, "the mount", files.close))
	for i := len(d.undo) - 1; i >= 0; i-- {
		errs = append(errs, d.within(ctx, "the rest", d.undo[i]))
	}
	errs = append(errs, d.within(ctx, "a reload", func() error { d.serving.Wait(); return nil }))
	return errors.Join(errs...)
}

// limited is the time that the configuration gives the end. It takes no lock that a
// reload holds: that may be waiting for a device.
func (d *daemon) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if limit := time.Duration(d.limit.Load()); limit > 0 {
		return context.WithTimeout(ctx, limit)
	}
	return context.WithCancel(ctx)
}

// within runs a part of the end and leaves it behind when it takes longer than ctx
// and lastWait.
func (d *daemon) within(ctx context.Context, what string, end func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(lastWait)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return block.Errorf(block.Canceled, "stop", what, -1, "it does not end, and is left to the end of the process")
	}
}
