package v4

import (
	"context"
	"errors"
	"time"

	"sluice/backends/nfs/nfsstat"
	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/rpc"
)

// keep is the goroutine that makes sessions and opens files again.
func (c *Client) keep(life context.Context) {
	for {
		select {
		case <-life.Done():
			return
		case <-c.wake:
		}
		c.mend(life)
	}
}

const (
	firstRecovery = 20 * time.Millisecond
	mostRecovery  = 2 * time.Second
)

// mend does what there is to do until there is a session and every file is open.
func (c *Client) mend(life context.Context) {
	delay := time.Duration(0)
	if !c.last.proven.Load() { // not one call went well in it
		delay = min(max(2*c.delay, firstRecovery), mostRecovery)
	}
	for life.Err() == nil {
		if c.current.Load() != nil {
			c.delay = delay
			if !c.reopenLost(life) {
				return
			}
			continue
		}
		if delay > 0 && !sleep(life, delay) {
			return
		}
		if err := c.recover(life); err != nil {
			c.mu.Lock()
			c.why = err
			c.mu.Unlock()
			c.cfg.Logger.Warn("NFS session not recovered yet", "server", c.server, "cause", err)
		}
		delay = min(max(2*delay, firstRecovery), mostRecovery)
	}
}

// recover makes the next session, and all that is open part of it.
func (c *Client) recover(life context.Context) error {
	c.recoveries.Add(1)
	if c.last.spoiled.Load() {
		// Its calls that nobody waits for must not be carried out later. Where the
		// session is gone already, or the server minds the connection, so be it.
		if err := c.plain(life, c.bare, destroySession(c.last.id)); errors.As(err, new(*rpc.LostError)) {
			return err
		}
	}
	c.forgotten = c.forgotten || c.last.reclaim.Load()
	next, fresh, err := c.nextSession(life)
	if err != nil {
		return err
	}
	c.install(next)
	if fresh {
		err = c.reclaim(life, next)
	}
	if err != nil {
		return err
	}
	c.publish(next)
	c.cfg.Logger.Info("NFS session made again", "server", c.server, "new client", fresh)
	return nil
}

// nextSession makes a session; fresh: for a client id that has no state.
func (c *Client) nextSession(life context.Context) (s *session, fresh bool, err error) {
	if !c.forgotten {
		s, err = c.createSession(life)
		switch statusOf(err) {
		case nfsstat.StaleClientID, nfsstat.SeqMisordered, nfsstat.BadSession, nfsstat.Expired:
		default:
			return s, false, err
		}
	}
	before := c.clientID
	if err := c.identify(life); err != nil {
		return nil, false, c.named(err)
	}
	c.forgotten = c.forgotten || c.clientID != before
	s, err = c.createSession(life)
	return s, c.forgotten, err
}

// reclaim opens all files with a new client id, and has written again what the server
// may have lost.
func (c *Client) reclaim(life context.Context, s *session) error {
	files := c.openFiles()
	var late []*File
	for _, f := range files {
		if f.left.Load() { // the server has forgotten it
			c.forget(f)
			continue
		}
		err := c.now(life, s, f.opening(claimPrevious))
		if err == nil {
			err = f.adopt()
		}
		switch {
		case err == nil:
			f.restarted = true
		case passing(err):
			return err
		default: // NFS4ERR_NO_GRACE, or whatever it has against it
			late = append(late, f)
		}
	}
	if err := c.now(life, s, reclaimComplete()); err != nil && statusOf(err) != nfsstat.CompleteAlready {
		return err
	}
	for _, f := range late {
		if err := c.reopen(life, s, f); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := c.restore(life, s, f); err != nil {
			return err
		}
		f.restarted = false
	}
	c.forgotten = false
	return nil
}

// reopen opens a file by its handle. A refusal is the file's end; an error that may
// pass is returned.
func (c *Client) reopen(life context.Context, s *session, f *File) error {
	err := c.now(life, s, f.opening(claimFH))
	if err == nil {
		if err = f.adopt(); err != nil {
			_ = c.now(life, s, f.closeOf(func() stateID { return f.got.state }))
		}
	}
	if err == nil || passing(err) {
		return err
	}
	c.cfg.Logger.Error("NFS file is lost", "server", c.server, "file", f.path, "cause", err)
	f.fail(lostFile(err))
	return nil
}

// restore has written again what may be lost.
func (c *Client) restore(life context.Context, s *session, f *File) error {
	if f.opts.Kept == nil || f.left.Load() || f.failed() != nil {
		return nil
	}
	var err error
	w := rawFile{c: c, s: s, f: f}
	if f.restarted {
		err = f.opts.Kept.Restore(life, w)
	} else {
		err = f.opts.Kept.Verify(life, w)
	}
	if err != nil && passing(err) {
		return err
	}
	if err != nil { // a flush will try again, and tell
		c.cfg.Logger.Error("NFS writes could not be repeated", "server", c.server, "file", f.path, "cause", err)
	}
	return nil
}

// passing reports whether an error says nothing about the file.
func passing(err error) bool {
	return errors.Is(err, errSessionGone) || errors.Is(err, context.Canceled) || errors.As(err, new(*rpc.LostError)) ||
		errors.As(err, new(*rpc.ProtocolError))
}

var errSessionGone = errors.New("the session ended during recovery")

// now carries an operation out in a session that is not published, before all others.
func (c *Client) now(ctx context.Context, s *session, op operation) error {
	var pause patience
	for {
		v, err := c.attempt(ctx, s, op, how{first: true, closing: ctx.Done()})
		switch v {
		case gone:
			return errors.Join(errSessionGone, err)
		case later:
			// No limit but the session's life: the grace period has to pass.
			if !pause.wait(ctx, -1) {
				return ctx.Err()
			}
		case over:
			return err
		}
	}
}

// openFiles lists them.
func (c *Client) openFiles() []*File {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := make([]*File, 0, len(c.files))
	for f := range c.files {
		files = append(files, f)
	}
	return files
}

// reopenLost opens the files again whose stateid the server does not know any more,
// while the session lives. It reports whether there is more to do.
func (c *Client) reopenLost(life context.Context) (more bool) {
	s := c.current.Load()
	if s == nil {
		return true
	}
	if s.revoked.Swap(false) {
		c.findRevoked(life, s)
	}
	for _, f := range c.openFiles() {
		var err error
		switch {
		case f.left.Load():
			err = c.bury(life, s, f)
		case f.isLost():
			if err = c.reopen(life, s, f); err == nil {
				err = c.restore(life, s, f)
			}
		}
		if err != nil {
			if errors.Is(err, errSessionGone) {
				c.lose(s)
			}
			return life.Err() == nil && sleep(life, firstRecovery)
		}
	}
	return false
}

// bury closes a file at the server that could not be closed when its owner was done.
func (c *Client) bury(life context.Context, s *session, f *File) error {
	if err := c.now(life, s, f.closeOp()); err != nil && passing(err) {
		return err
	}
	c.forget(f)
	return nil
}

// forget takes a file out of the table.
func (c *Client) forget(f *File) {
	c.mu.Lock()
	delete(c.files, f)
	c.mu.Unlock()
	f.tell(nil)
}

// findRevoked asks which stateids the server has revoked, and lets it forget them.
func (c *Client) findRevoked(life context.Context, s *session) {
	for _, f := range c.openFiles() {
		id := f.stateID()
		var status uint32
		if err := c.now(life, s, testStateID(id, &status)); err != nil || status == 0 {
			continue
		}
		_ = c.now(life, s, freeStateID(id))
		f.lose(id)
	}
}

// attend looks at what a SEQUENCE said besides.
func (c *Client) attend(s *session, got sequenced) {
	if got.target != s.target.Swap(got.target) {
		c.slots.grant(int(min(got.target, s.fore.maxSlots-1)) + 1)
	}
	switch {
	case got.flags&flagReclaimNeeded != 0:
		// Its state is gone although the session is not: begin anew.
		s.reclaim.Store(true)
		s.spoiled.Store(true)
		c.lose(s)
	case got.flags&flagsStateRevoked != 0:
		if second := time.Now().Unix(); s.looked.Swap(second) != second {
			s.revoked.Store(true)
			c.rouse()
		}
	}
}

// renew is the goroutine that keeps the lease while nothing else is asked.
func (c *Client) renew(life context.Context) {
	ticker := time.NewTicker(max(c.lease/3, 100*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-ticker.C:
			_ = c.do(life, &chain{})
		}
	}
}

// rawFile implements remote.RawWriter in a session that is not published.
type rawFile struct {
	c *Client
	s *session
	f *File
}

func (w rawFile) Write(ctx context.Context, p []byte, off int64) (remote.Written, error) {
	op := getWrite(w.f, p[:min(len(p), w.f.limits.Write)], off, false)
	defer putWrite(op)
	err := w.c.now(ctx, w.s, op)
	return op.written, err
}

func (w rawFile) Zero(ctx context.Context, off, n int64) (remote.Verifier, error) {
	return 0, w.c.now(ctx, w.s, w.f.allocation(opDeallocate, off, n))
}

func (w rawFile) Commit(ctx context.Context) (remote.Verifier, error) {
	op := getCommit(w.f)
	defer putCommit(op)
	err := w.c.now(ctx, w.s, op)
	return op.verifier, err
}
