package gateway

import "net"

// returner is a listener that was there before somebody asked for it, and goes back to
// where it came from, still listening: clients may be waiting there.
type returner interface{ PutBack() error }

// putBack is close for sockets that were never served, because the export could not be
// opened: the next attempt takes them again.
func (o *ownSockets) putBack() {
	if o == nil {
		return
	}
	if o.srv != nil {
		_ = o.srv.Close()
	}
	for _, l := range o.listeners {
		_ = returned(l)
	}
}

func returned(l net.Listener) error {
	if r, ok := l.(returner); ok {
		return r.PutBack()
	}
	return l.Close()
}
