package daemon

import (
	"context"
	"net"
	"os"
	"slices"

	"sluice/gateway"
	"sluice/gateway/endpoint"
)

// tidy gives up stored sockets that no export wants any more, whenever one is removed
// by whomever: an export that was never open has not taken its own. It ends with the
// gateway.
func (d *daemon) tidy() {
	for ev := range d.gw.Subscribe(context.Background(), 0) {
		if ev.Kind != gateway.ExportRemoved && ev.Kind != gateway.EventsLost {
			continue
		}
		d.reloading.Lock() // an export that it replaces comes back
		d.keeper.dropStored(d.gw.List())
		d.reloading.Unlock()
	}
}

// dropStored gives up our own sockets of before that no export wants any more, also
// none that is still being opened. Exports that come while it runs find them there, or
// their places free.
func (k *keeper) dropStored(exports []gateway.Status) {
	var all []endpoint.Address
	for _, st := range exports {
		for _, text := range st.Spec.NBD {
			if a, err := endpoint.Parse(text); err == nil {
				all = append(all, a)
			}
		}
	}
	wanted := func(s endpoint.Stored) bool { // host names may not be known yet: rather too many
		return slices.ContainsFunc(all, func(a endpoint.Address) bool { return s.Name == storedName(a) || mayListenAt(s, a) })
	}
	k.turn.Lock()
	defer k.turn.Unlock()
	for _, s := range k.unwanted(wanted) {
		_ = k.notifier.RemoveFD(s.Name) // it may have come from a socket unit
		if at, ok := s.Addr().(*net.UnixAddr); ok {
			_ = os.Remove(at.Name)
		}
		_ = s.Close()
	}
}

// unwanted takes stored sockets out, none when the daemon is about to end: the next
// process finds them. Those of units stay: the manager listens at them anyway.
func (k *keeper) unwanted(wanted func(endpoint.Stored) bool) (list []endpoint.Stored) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending || k.ends() {
		return nil
	}
	k.handed.Stored = slices.DeleteFunc(k.handed.Stored, func(s endpoint.Stored) bool {
		if _, units := s.Listener.(unitSocket); units || wanted(s) {
			return false
		}
		list = append(list, s)
		return true
	})
	return list
}
