package rpc

import "time"

// overdueTimes is how many times Silence a server has for an answer while it gives
// others. It may not drop a call (RFC 8881, section 2.9.2), but some have; a COMMIT of
// much to a slow disk takes long, too, and bears being asked again.
const overdueTimes = 6

// watch notices a server that is silent. Half way through the time that it has, it
// is asked whether it is there: a slow disk does not answer a COMMIT for long, but a
// call of the null procedure it does.
func (t *Transport) watch(ping *Call) {
	asked := false
	old := map[*Call]waiting{}
	ticker := time.NewTicker(max(t.cfg.Silence/8, time.Millisecond))
	defer ticker.Stop()
	defer func() {
		if asked {
			<-ping.done // Close fails what is under way
		}
	}()
	for {
		select {
		case <-t.closing:
			return
		case <-ping.done:
			asked = false
		case <-ticker.C:
			silent := time.Duration(now() - t.heard.Load())
			switch {
			case t.flight.Load() == 0 || !t.Connected():
			case silent > t.cfg.Silence:
				t.cfg.Logger.Warn("NFS server is silent", "server", t.cfg.Object, "for", silent.Round(time.Millisecond))
				t.heard.Store(now())
				t.Break()
			case t.overdue(old):
				t.cfg.Logger.Warn("NFS server does not answer a call", "server", t.cfg.Object, "for", overdueTimes*t.cfg.Silence)
				t.Break()
			case silent > t.cfg.Silence/2 && !asked:
				asked = true
				ping.Head = t.Start(ping.Head, 0)
				t.submitQuietly(ping)
			}
		}
	}
}

// waiting is since when a call was seen to be under way, by its xid.
type waiting struct {
	xid   uint32
	since int64
}

// overdue reports whether a call has been without an answer for too long. old is what it
// has seen so far.
func (t *Transport) overdue(old map[*Call]waiting) bool {
	late := false
	for _, c := range *t.calls.Load() {
		xid := c.live.Load()
		switch w := old[c]; {
		case xid == 0:
			if w.xid != 0 {
				delete(old, c)
			}
		case w.xid != xid:
			old[c] = waiting{xid, now()}
		case time.Duration(now()-w.since) > overdueTimes*t.cfg.Silence:
			old[c] = waiting{xid, now()}
			late = true
		}
	}
	return late
}
