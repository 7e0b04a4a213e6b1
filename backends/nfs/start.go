package nfs

import (
	"sync"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/unstable"
	"sluice/block"
)

// Requests that are started and not waited for: block.Starter. They go where nothing is
// amiss; everything else is for ReadAt and WriteAt (io.go).

// startMax is the longest request that is started. Longer ones are few, and who sends
// them has the time to copy their bytes.
const startMax = 256 << 10

// started is a request under way.
type started struct {
	d        *Device
	done     block.Done
	p        []byte
	change   *unstable.Change // of a write
	stable   bool
	instance uint64
}

var startedPool = sync.Pool{New: func() any { return new(started) }}

// StartRead implements block.Starter.
func (d *Device) StartRead(p []byte, off int64, done block.Done) bool {
	if !d.startable(p, off) {
		return false
	}
	st := startedPool.Get().(*started)
	*st = started{d: d, done: done, p: p}
	if d.starter.StartRead(p, off, st) {
		return true
	}
	st.end()
	return false
}

// startable lets a request in that can be started.
func (d *Device) startable(p []byte, off int64) bool {
	if len(p) == 0 || len(p) > startMax || !d.gate.Enter() {
		return false
	}
	if block.CheckRange(d.Info(), "", off, int64(len(p))) != nil || d.log != nil && d.log.Stale() {
		d.gate.Leave()
		return false
	}
	return true
}

// end forgets a request.
func (st *started) end() (done block.Done) {
	done = st.done
	d := st.d
	*st = started{}
	startedPool.Put(st)
	d.gate.Leave()
	return done
}

// ReadDone implements remote.ReadDone.
func (st *started) ReadDone(n int, err error) block.Pusher {
	if err == nil && n < len(st.p) {
		err = block.Transient // ReadAt reads the rest
	}
	return st.end().Done(err)
}

// StartWrite implements block.Starter.
func (d *Device) StartWrite(p []byte, off int64, flags block.Flags, done block.Done) bool {
	if d.log == nil || flags&^block.FUA != 0 || !d.startable(p, off) {
		return false
	}
	stable, keep := flags&block.FUA != 0, int64(0)
	if !stable {
		keep = int64(len(p))
	}
	change := d.log.TryBegin(off, int64(len(p)), keep)
	if change == nil {
		d.gate.Leave()
		return false
	}
	st := startedPool.Get().(*started)
	*st = started{d: d, done: done, p: p, change: change, stable: stable, instance: d.commits.instance.Load()}
	if d.starter.StartWrite(p, off, stable, st) {
		return true
	}
	change.Failed()
	st.end()
	return false
}

// WriteDone implements remote.WriteDone: see Device.write.
func (st *started) WriteDone(w remote.Written, err error) block.Pusher {
	d := st.d
	switch {
	case err != nil:
		st.change.Failed()
	case w.N < len(st.p), st.stable && !w.Durable, w.Durable && d.commits.instance.Load() != st.instance:
		st.change.Failed()
		err = block.Transient // WriteAt does it again
	case w.Durable:
		st.change.Stable()
	default:
		st.change.Unstable(st.p, unstable.Verifier(w.Verifier))
		d.changed(st.instance)
		d.saw(w.Verifier)
	}
	return st.end().Done(err)
}

// Kick implements block.Starter.
func (d *Device) Kick() { d.starter.Kick() }
