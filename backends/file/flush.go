package file

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// syncer makes writes durable and remembers when that once failed.
//
// The kernel tells a descriptor of failed write-back once, whichever sync asks
// first, and may have thrown the pages away by then. So nobody may return
// success while another's sync is about to return the error: a flush holds mu
// alone, and FUA writes, which share it, look at witness before they return.
//
// A FUA write that fails leaves open whether its own bytes were not taken in, or
// its sync was the one to be told that others' bytes are gone. witness knows: it
// is another opening of the file, through which nothing is ever synced, so that
// the kernel keeps the news for it until somebody looks. Who looks and who marks
// the loss is one step under looking; whoever comes later finds the mark.
type syncer struct {
	mu      sync.RWMutex
	started atomic.Uint64 // flushes begun; changed under mu
	lost    atomic.Pointer[block.Error]

	looking sync.Mutex
	witness int // -1 on a Device that takes no writes
}

// Flush makes the completed writes durable. Flushes that wait for one another
// share one fdatasync.
func (d *Device) Flush(context.Context) error {
	if err := d.enter("flush", 0, 0); err != nil {
		return err
	}
	defer d.gate.Leave()
	if d.info.ReadOnly {
		return nil
	}
	return d.sync("flush", -1)
}

// sync makes durable what was written before the call.
func (d *Device) sync(op string, off int64) error {
	s := &d.syncs
	seen := s.started.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.lost.Load(); e != nil {
		return again(e, op, off)
	}
	if s.started.Load() > seen { // one that began after this call came has just ended well
		return nil
	}
	s.started.Add(1)
	if err := retry(func() error { return d.kern.fdatasync(d.fd) }); err != nil {
		return d.lose(op, off, err)
	}
	return nil
}

// writeDurable is a write with FUA.
func (d *Device) writeDurable(p []byte, off int64) error {
	err := d.writeSynced(p, off)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := d.write(p, off, false); err != nil { // no RWF_DSYNC here
		return err
	}
	return d.sync("write", off)
}

// writeSynced writes with RWF_DSYNC.
func (d *Device) writeSynced(p []byte, off int64) error {
	s := &d.syncs
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.lost.Load(); e != nil {
		return again(e, "write", off)
	}
	err := d.write(p, off, true)
	if err != nil && !refused(err) {
		return d.lose("write", off, err)
	}
	if lost := d.look(off); lost != nil {
		return lost
	}
	return err
}

// look asks the witness whether write-back of any page failed, since the image
// was opened or somebody last looked, and marks the loss. A write that returned
// before the call is answered for.
func (d *Device) look(off int64) error {
	s := &d.syncs
	s.looking.Lock()
	defer s.looking.Unlock()
	if e := s.lost.Load(); e != nil {
		return again(e, "write", off)
	}
	if err := retry(func() error { return d.kern.writeBackError(s.witness, off) }); err != nil {
		return d.lose("write", off, err)
	}
	return nil
}

// refused tells the errors of a write whose bytes were not taken in: where the
// witness knows of no loss, nothing that was acknowledged is gone, and the write
// may be repeated. All others may come from the sync, among them those of a
// failed flush of the medium's own cache, of which the witness does not hear.
func refused(err error) bool {
	for _, e := range [...]error{
		unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.ENOMEM, unix.EINVAL, unix.EPERM, unix.EOPNOTSUPP,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lose remembers the first error of a sync for good. Its kind is IO whatever the
// cause: where there was no room for writes that had been acknowledged, making
// room and trying again does not bring them back.
func (d *Device) lose(op string, off int64, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	e := &block.Error{Kind: block.IO, Op: op, Object: d.path, Off: off, Err: err}
	d.syncs.lost.CompareAndSwap(nil, e)
	return e
}

func again(e *block.Error, op string, off int64) error {
	return block.Errorf(e.Kind, op, e.Object, off, "an earlier flush failed, acknowledged writes may be lost; open the image again: %w", e.Err)
}
