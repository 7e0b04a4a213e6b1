package nfs

import (
	"context"
	"fmt"
	"sync/atomic"

	"sluice/backends/nfs/remote"
	"sluice/block"
)

// Copies inside the server. Nothing is kept of them that could be written again, so a
// COMMIT follows each, and where its verifier is not the one from before, the copy is
// made anew.

// copyMost is how much one COPY is asked for: a server answers when it is done.
const copyMost = 64 << 20

// copying is a copy inside the server.
type copying struct {
	from            block.Device
	fromOff, off, n int64
	missing         *atomic.Bool // the server turned out not to do it
	do              func(from remote.File) (done int64, err error)
}

// CloneRange implements block.Copier by CLONE (RFC 7862, section 15.13).
func (d *Device) CloneRange(ctx context.Context, from block.Device, fromOff, off, n int64) error {
	_, err := d.copy(ctx, copying{from, fromOff, off, n, &d.noClone, func(src remote.File) (int64, error) {
		return n, d.copier.Clone(ctx, src, fromOff, off, n)
	}})
	return err
}

// CopyRange implements block.Copier by COPY (RFC 7862, section 15.2).
func (d *Device) CopyRange(ctx context.Context, from block.Device, fromOff, off, n int64) (int64, error) {
	n = min(n, copyMost)
	return d.copy(ctx, copying{from, fromOff, off, n, &d.noCopy, func(src remote.File) (int64, error) {
		done, _, err := d.copier.Copy(ctx, src, fromOff, off, n)
		if err == nil && (done <= 0 || done > n) {
			err = fmt.Errorf("the server says that it has copied %d of %d bytes: %w", done, n, block.IO)
		}
		return done, err
	}})
}

// copy checks the ranges and has the copy made.
func (d *Device) copy(ctx context.Context, c copying) (done int64, err error) {
	const op = "copy"
	if err := d.enterChange(op, c.off, c.n, 0, 0); err != nil {
		return 0, err
	}
	defer d.gate.Leave()
	src, ok := c.from.(*Device)
	if !ok || d.copier == nil || src == d || src.client != d.client || c.missing.Load() {
		return 0, block.Errorf(block.Unsupported, op, d.url, c.off, "not within one server")
	}
	if err := src.enter(op, c.fromOff, c.n); err != nil {
		return 0, err
	}
	defer src.gate.Leave()
	if c.n == 0 {
		return 0, nil
	}
	if err := src.current(ctx); err != nil {
		return 0, d.fail(op, c.off, err)
	}
	done, err = d.copyAlone(ctx, c, src.file)
	switch block.KindOf(err) {
	case block.Unsupported:
		c.missing.Store(true)
	case block.Invalid: // the range is not one that the server can do
		return 0, block.Errorf(block.Unsupported, op, d.url, c.off, "%w", err)
	}
	return done, d.fail(op, c.off, err)
}

// copyAlone makes the copy while nothing else changes the range.
func (d *Device) copyAlone(ctx context.Context, c copying, from remote.File) (int64, error) {
	change, err := d.log.Begin(ctx, c.off, c.n, 0)
	if err != nil {
		return 0, err
	}
	done, err := d.untilDurable(ctx, func() (int64, error) { return c.do(from) })
	if err != nil {
		change.Failed()
		return 0, err
	}
	change.StableFirst(done)
	return done, nil
}

// untilDurable does what a COMMIT is to make durable, until one has the verifier of the
// one from before.
func (d *Device) untilDurable(ctx context.Context, do func() (int64, error)) (n int64, err error) {
	before, err := d.verifier(ctx)
	for range commitTries {
		if err != nil {
			return n, err
		}
		instance := d.commits.instance.Load()
		if n, err = do(); err != nil {
			return n, err
		}
		var after remote.Verifier
		if after, err = d.file.Commit(ctx); err != nil {
			d.log.CommitFailed()
			return n, err
		}
		if after == before && d.commits.instance.Load() == instance {
			return n, nil
		}
		d.saw(after)
		before = after
	}
	return n, fmt.Errorf("the server has lost changes %d times in a row: %w", commitTries, block.Transient)
}
