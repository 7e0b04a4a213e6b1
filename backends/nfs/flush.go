package nfs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
)

// commits is what a Device knows of the COMMITs of its file.
type commits struct {
	turn chan struct{} // room for one: who is at it

	changes atomic.Uint64 // changes that needed a COMMIT, so far
	durable atomic.Uint64 // so many of them are durable; changed by who has the turn

	// verifier is the last one that the server gave, if known.
	verifier atomic.Uint64
	known    atomic.Bool
	instance atomic.Uint64 // counts the instances of the server that this Device met

	// The committer's.
	wake    chan struct{} // room for one: something is to be written again
	end     context.CancelFunc
	running sync.WaitGroup
}

func (c *commits) init() {
	c.turn, c.wake = make(chan struct{}, 1), make(chan struct{}, 1)
}

// start begins the committer, which ends soon after cancel and the file's Close.
func (c *commits) start(d *Device) {
	life, end := context.WithCancel(context.Background())
	c.end = end
	c.running.Go(func() { d.commitAhead(life) })
}

func (c *commits) cancel() {
	if c.end != nil {
		c.end()
	}
}

// take waits for the turn, which give ends.
func (c *commits) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *commits) give() { <-c.turn }

// changed counts a change that package unstable has got since the instance was the
// given one, and that needs a COMMIT. Where the server became another one meanwhile it
// may be that the old one had the change, and that it came too late to be written again
// with what was lost.
func (d *Device) changed(instance uint64) {
	d.commits.changes.Add(1)
	if d.commits.instance.Load() != instance {
		d.log.NewInstance()
	}
}

// saw takes note of the server's verifier.
func (d *Device) saw(v remote.Verifier) {
	c := &d.commits
	if c.known.Load() && c.verifier.Load() == uint64(v) {
		return
	}
	if c.learn(v) {
		d.renewed()
		c.rouse()
	}
}

// learn takes note of the verifier and reports whether it was another one.
func (c *commits) learn(v remote.Verifier) (changed bool) {
	before := c.verifier.Swap(uint64(v))
	return c.known.Swap(true) && before != uint64(v)
}

// renewed says that the server may have lost all that it had not committed.
func (d *Device) renewed() {
	d.commits.instance.Add(1) // first: who looks and does not see it is in the log
	d.log.NewInstance()
}

func (c *commits) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Flush makes the completed changes durable.
func (d *Device) Flush(ctx context.Context) error {
	if err := d.enter("flush", 0, 0); err != nil {
		return err
	}
	defer d.gate.Leave()
	if d.info.ReadOnly {
		return nil
	}
	return d.sync(ctx, "flush", -1)
}

// sync makes durable what was changed before the call. Where a COMMIT that began
// after it came has ended well, that was this one's, too.
func (d *Device) sync(ctx context.Context, op string, off int64) error {
	c := &d.commits
	want := c.changes.Load()
	if c.durable.Load() >= want {
		return nil
	}
	if err := c.take(ctx); err != nil {
		return d.fail(op, off, err)
	}
	defer c.give()
	if c.durable.Load() >= want {
		return nil
	}
	return d.fail(op, off, d.commit(ctx))
}

// commitTries is how often a server may turn out to be another one during a flush.
const commitTries = 8

// commit makes durable what has been changed until now. The caller has the turn.
func (d *Device) commit(ctx context.Context) error {
	c := &d.commits
	for range commitTries {
		if d.log.Stale() {
			if err := d.log.Rewrite(ctx, again{d}, d.wsize); err != nil {
				return fmt.Errorf("writing again what the server lost: %w", err)
			}
		}
		changes := c.changes.Load()
		mark := d.log.Mark()
		v, err := d.file.Commit(ctx)
		if err != nil {
			d.log.CommitFailed()
			return err
		}
		d.saw(v)
		if d.log.Committed(mark, unstable.Verifier(v)) {
			c.durable.Store(changes)
			return nil
		}
	}
	return fmt.Errorf("the server has lost writes %d times in a row: %w", commitTries, block.Transient)
}

// current sees to it that the server has all that was acknowledged, where it is
// known not to.
func (d *Device) current(ctx context.Context) error {
	if d.log == nil || !d.log.Stale() {
		return nil
	}
	if err := d.commits.take(ctx); err != nil {
		return err
	}
	defer d.commits.give()
	if !d.log.Stale() {
		return nil
	}
	return d.commit(ctx)
}

// commitAhead is the committer: it makes room before somebody waits for it, and
// writes again what is known to be lost before somebody reads it. Where it cannot, those
// who wait for room are told why, and their next attempt wakes it again.
func (d *Device) commitAhead(life context.Context) {
	failing := false
	for {
		select {
		case <-life.Done():
			return
		case <-d.log.Pressing():
		case <-d.commits.wake:
		}
		err := d.tidy(life)
		if life.Err() != nil {
			return
		}
		if err != nil {
			d.log.Refuse(err)
			if !failing {
				slog.Warn("NFS writes could not be committed", "image", d.url, "cause", err)
			}
		}
		failing = err != nil
	}
}

// tidy is one round of the committer.
func (d *Device) tidy(ctx context.Context) error {
	if err := d.commits.take(ctx); err != nil {
		return err
	}
	defer d.commits.give()
	if d.log.Kept() == 0 && !d.log.Stale() {
		return nil
	}
	return d.commit(ctx)
}
