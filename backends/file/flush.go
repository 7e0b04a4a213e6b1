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
// alone, FUA writes share it, and lost is looked at after the sync as well.
type syncer struct {
	mu      sync.RWMutex
	started atomic.Uint64 // flushes begun; changed under mu
	lost    atomic.Pointer[block.Error]
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
	s := &d.syncs
	err := func() error {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if e := s.lost.Load(); e != nil {
			return again(e, "write", off)
		}
		err := d.write(p, off, true)
		if err != nil && lostData(err) {
			return d.lose("write", off, err)
		}
		if e := s.lost.Load(); err == nil && e != nil {
			return again(e, "write", off)
		}
		return err
	}()
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := d.write(p, off, false); err != nil { // no RWF_DSYNC here
		return err
	}
	return d.sync("write", off)
}

// lostData tells an error of write-back from one of taking the bytes in. A file
// system that reports a lack of space only in write-back (NFS) is not told
// apart: its error goes to this write alone.
func lostData(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

// lose remembers the first error of a sync for good.
func (d *Device) lose(op string, off int64, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	e := &block.Error{Kind: block.IO, Op: op, Object: d.path, Off: off, Err: err}
	if k := block.KindOf(err); k == block.NoSpace {
		e.Kind = k
	}
	d.syncs.lost.CompareAndSwap(nil, e)
	return e
}

func again(e *block.Error, op string, off int64) error {
	return block.Errorf(e.Kind, op, e.Object, off, "an earlier flush failed, acknowledged writes may be lost; open the image again: %w", e.Err)
}
