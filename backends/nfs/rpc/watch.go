package rpc

import "time"

// watch notices a server that is silent. Half way through the time that it has, it
// is asked whether it is there: a slow disk does not answer a COMMIT for long, but a
// call of the null procedure it does.
func (t *Transport) watch() {
	ping := t.NewCall()
	asked := false
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
			case silent > t.cfg.Silence/2 && !asked:
				asked = true
				ping.Head = t.Start(ping.Head, 0)
				t.submitQuietly(ping)
			}
		}
	}
}
