package daemon

import (
	"context"
	"net"
	"slices"
	"strconv"

	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
)

// unitSocket is a unit's socket that is one export's own.
type unitSocket struct{ net.Listener }

// claimSockets puts the sockets of units aside that exports have as their own: else
// the gateway would serve them, with every export. That is before any export is
// opened, in whatever order that comes.
func (d *daemon) claimSockets(ctx context.Context) error {
	records, err := d.state.All()
	if err != nil {
		return err
	}
	exports := slices.Clone(d.Config.Exports)
	for _, r := range records {
		exports = append(exports, r.Spec)
	}
	ctx, done := context.WithTimeout(ctx, openWait) // host names are looked up
	defer done()
	d.keeper.claim(ctx, exports, d.Config.NBD)
	return nil
}

// claim makes the sockets of units that exports have as their own as good as stored
// ones. What the gateway is told to listen at itself is its own.
func (k *keeper) claim(ctx context.Context, exports []spec.Spec, gateways []string) {
	for _, s := range exports {
		for _, text := range s.NBD {
			a, err := endpoint.Parse(text)
			if err != nil || slices.Contains(gateways, text) {
				continue // who opens it says what is wrong
			}
			k.claimOne(ctx, a)
		}
	}
}

func (k *keeper) claimOne(ctx context.Context, a endpoint.Address) {
	i := slices.IndexFunc(k.handed.NBD, func(l net.Listener) bool { return mayListenAt(l, a) && listensAt(l, a, k.resolve(ctx, a)) })
	if i < 0 {
		return
	}
	l := unitSocket{k.handed.NBD[i]}
	k.handed.NBD = slices.Delete(k.handed.NBD, i, i+1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.handed.Stored = append(k.handed.Stored, endpoint.Stored{Listener: l, Name: storedName(a)})
}

// mayListenAt is listensAt without looking up host names, which takes its time.
func mayListenAt(l net.Listener, a endpoint.Address) bool {
	if at, ok := l.Addr().(*net.TCPAddr); ok && a.Network == "tcp" {
		return strconv.Itoa(at.Port) == a.Port
	}
	return place(l) == a.String()
}
