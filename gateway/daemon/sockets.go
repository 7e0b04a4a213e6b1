package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"sluice/gateway/endpoint"
)

// keeper opens the sockets that the daemon listens on. Those that the service
// manager handed over come first; new ones are given to it to keep, where it
// does, so that a client never finds nobody listening while the daemon is
// restarted.
type keeper struct {
	notifier *endpoint.Notifier
	handed   *endpoint.Handed

	over <-chan struct{} // closed when the daemon is about to end

	turn   sync.Mutex // held to take a socket that was handed over, and to drop some; before mu
	mu     sync.Mutex // guards all below, and handed.Stored
	room   int        // how many more descriptors the manager keeps
	ending bool       // sockets stay as they are
	closed bool       // handed is
}

// reserved is how many descriptors of the manager's store are not for sockets.
const reserved = 4

// storeSize is how many descriptors the service manager keeps for us: what it says
// in FDSTORE, which systemd sets from version 254 on and our unit before that.
func storeSize() int {
	n, err := strconv.Atoi(os.Getenv("FDSTORE"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// stores reports whether the service manager keeps descriptors.
func (d *daemon) stores() bool { return d.notifier.Managed() && storeSize() >= reserved }

func (d *daemon) takeSockets(context.Context) error {
	handed, err := endpoint.ActivatedNamed()
	if err != nil {
		return err
	}
	d.keeper = &keeper{notifier: d.notifier, handed: handed, over: d.ending}
	if d.stores() {
		d.keeper.room = storeSize() - reserved
	}
	d.later(d.keeper.close)
	return nil
}

// close closes what nobody has taken.
func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return k.handed.Close()
}

// take gives the socket of that address out of those that were handed over: our
// own of before, and those of socket units; nil when there is none. It gives it the
// name that it has in the manager's store. An address does not always read as its
// socket's does (localhost, 0.0.0.0, port 0), so our own are known by their names;
// but a configuration may also write the same place in another way than before.
func (k *keeper) take(ctx context.Context, units *[]net.Listener, a endpoint.Address) (net.Listener, string) {
	hosts := k.resolve(ctx, a)
	k.turn.Lock() // the place of one that is being dropped is free afterwards
	defer k.turn.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.handed.Stored, func(s endpoint.Stored) bool { return s.Name == storedName(a) })
	if i < 0 {
		i = slices.IndexFunc(k.handed.Stored, func(s endpoint.Stored) bool { return listensAt(s, a, hosts) })
	}
	if i >= 0 {
		s := k.handed.Stored[i]
		k.handed.Stored = slices.Delete(k.handed.Stored, i, i+1)
		return s.Listener, s.Name
	}
	if i := slices.IndexFunc(*units, func(l net.Listener) bool { return listensAt(l, a, hosts) }); i >= 0 {
		l := (*units)[i]
		*units = slices.Delete(*units, i, i+1)
		return l, storedName(a)
	}
	return nil, ""
}

// resolve gives the IP addresses of a TCP address. Without any, opening it will tell
// what is wrong.
func (k *keeper) resolve(ctx context.Context, a endpoint.Address) []net.IPAddr {
	if a.Network != "tcp" {
		return nil
	}
	hosts, _ := net.DefaultResolver.LookupIPAddr(ctx, a.Host)
	return hosts
}

// listensAt reports whether a socket is what an address asks for. One that listens
// at [::] hears IPv4 as well.
func listensAt(l net.Listener, a endpoint.Address, hosts []net.IPAddr) bool {
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok || a.Network != "tcp" {
		return place(l) == a.String()
	}
	return strconv.Itoa(at.Port) == a.Port && slices.ContainsFunc(hosts, func(h net.IPAddr) bool {
		return at.IP.Equal(h.IP) && at.Zone == h.Zone || at.IP.Equal(net.IPv6unspecified) && h.IP.IsUnspecified()
	})
}

func place(l net.Listener) string { return l.Addr().Network() + ":" + l.Addr().String() }

// takeMetrics takes the sockets of units that are for the metrics.
func (k *keeper) takeMetrics() []net.Listener {
	list := k.handed.Metrics
	k.handed.Metrics = nil
	return list
}

// listen opens a socket of an export's own, or takes the one that was handed over:
// those of units, too, for claim has put them aside. It may be called by several
// goroutines.
func (k *keeper) listen(ctx context.Context, a endpoint.Address) (net.Listener, error) {
	return k.listenAs(ctx, new([]net.Listener), a)
}

func (k *keeper) listenAs(ctx context.Context, list *[]net.Listener, a endpoint.Address) (net.Listener, error) {
	if l, name := k.take(ctx, list, a); l != nil {
		k.give(-1)
		return &kept{Listener: l, keeper: k, address: a, name: name, before: true}, nil
	}
	l, err := endpoint.Listen(ctx, a)
	if err != nil {
		return nil, err
	}
	if !k.admit() {
		return l, nil
	}
	name := storedName(a)
	if err := k.store(name, l); err != nil {
		_ = k.notifier.RemoveFD(name) // it may have got there
		k.give(1)
		return nil, errors.Join(err, l.Close())
	}
	return &kept{Listener: l, keeper: k, address: a, name: name}, nil
}

// admit takes a place in the manager's store.
func (k *keeper) admit() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.room <= 0 {
		return false
	}
	k.room--
	return true
}

// give gives places in the manager's store back, or takes some that are in use
// already.
func (k *keeper) give(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.room += n
}

// storedName is the name of a socket in the manager's store. It takes no colon.
func storedName(a endpoint.Address) string {
	sum := sha256.Sum256([]byte(a.String()))
	return endpoint.StoredSocket + hex.EncodeToString(sum[:8])
}

// store gives a socket to the manager.
func (k *keeper) store(name string, l net.Listener) error {
	s, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var stored error
	if err := raw.Control(func(fd uintptr) { stored = k.notifier.StoreFD(name, int(fd)) }); err != nil {
		return err
	}
	return stored
}

// kept is a listener that the service manager has as well.
type kept struct {
	net.Listener
	keeper  *keeper
	address endpoint.Address
	name    string
	before  bool // it was handed over
	once    sync.Once
}

// PutBack is Close for one that was not served after all: what was handed over waits,
// with its clients, for who takes it next.
func (l *kept) PutBack() error {
	if !l.before {
		return l.Close()
	}
	if !l.keeper.putBack(endpoint.Stored{Listener: l.Listener, Name: l.name}) {
		return l.leave()
	}
	return nil
}

// putBack takes a socket back that was handed over, until close.
func (k *keeper) putBack(s endpoint.Stored) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.handed.Stored = append(k.handed.Stored, s)
	k.room++
	return true
}

// Close gives the socket up for good, unless the daemon is about to end: then the
// manager keeps it for the next process.
func (l *kept) Close() error {
	l.keeper.mu.Lock()
	ending := l.keeper.ending
	l.keeper.mu.Unlock()
	if ending || l.isUnits() && l.keeper.ends() {
		return l.leave()
	}
	l.once.Do(func() {
		_ = l.keeper.notifier.RemoveFD(l.name) // it may have come from a socket unit
		if l.address.Network == "unix" {
			_ = os.Remove(l.address.Path)
		}
		l.keeper.give(1)
	})
	return l.Listener.Close()
}

// isUnits reports whether it is a unit's socket, which stays without a store, too.
func (l *kept) isUnits() bool {
	_, ok := l.Listener.(unitSocket)
	return ok
}

// ends reports whether the daemon is about to end.
func (k *keeper) ends() bool {
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}

// leave closes our descriptor alone.
func (l *kept) leave() error {
	if f, ok := l.Listener.(interface{ Leave() error }); ok {
		return f.Leave()
	}
	return l.Listener.Close()
}

// leave makes all sockets stay as they are when they are closed.
func (k *keeper) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending = true
}

// listen opens the sockets of NBD and of the API.
func (d *daemon) listen(ctx context.Context) (err error) {
	if d.listeners.api, err = d.listenAll(ctx, &d.keeper.handed.API, d.Config.API, defaultAPI); err != nil {
		return err
	}
	if d.listeners.nbd, err = d.listenAll(ctx, &d.keeper.handed.NBD, d.Config.NBD, defaultNBD); err != nil {
		return err
	}
	for _, l := range d.listeners.nbd {
		d.serve(func() error { return d.gw.Serve(l) })
	}
	return nil
}

// Where clients come when nobody says otherwise, in a folder that is made.
func defaultNBD() (string, error) { return inRuntimeFolder("nbd.sock") }
func defaultAPI() (string, error) { return inRuntimeFolder("api.sock") }

func inRuntimeFolder(name string) (string, error) {
	dir, err := endpoint.RuntimeFolder()
	return "unix:" + dir + "/" + name, err
}

// listenAll opens the sockets that are wanted; those of socket units count as the
// default.
func (d *daemon) listenAll(ctx context.Context, handed *[]net.Listener, wanted []string, usual func() (string, error)) ([]net.Listener, error) {
	if wanted == nil && len(*handed) == 0 {
		text, err := usual()
		if err != nil {
			return nil, err
		}
		wanted = []string{text}
	}
	var all []net.Listener
	add := func(l net.Listener) {
		d.later(func() error { _ = l.Close(); return nil }) // most likely its server has closed it
		all = append(all, l)
	}
	for _, text := range wanted {
		a, err := endpoint.Parse(text)
		if err != nil {
			return nil, err
		}
		l, err := d.keeper.listenAs(ctx, handed, a)
		if err != nil {
			return nil, err
		}
		add(l)
	}
	for _, l := range *handed {
		add(l)
	}
	*handed = nil
	return all, nil
}
