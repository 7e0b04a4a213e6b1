package daemon

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"sluice/gateway/endpoint"
)

func listener(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func address(t *testing.T, text string) endpoint.Address {
	t.Helper()
	a, err := endpoint.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestSocketsAreFoundAgain: however the configuration writes the place.
func TestSocketsAreFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, c := range []struct {
		network, at string
		wanted      string // %: the port
		found       bool
	}{
		{"tcp", "127.0.0.1:0", "tcp:localhost:%", true},
		{"tcp", "127.0.0.1:0", "tcp:127.0.0.1:%", true},
		{"tcp4", "0.0.0.0:0", "tcp:0.0.0.0:%", true},
		{"tcp", "[::]:0", "tcp:0.0.0.0:%", true},
		{"tcp", "[::]:0", "tcp:[::]:%", true},
		{"tcp4", "0.0.0.0:0", "tcp:[::]:%", false}, // it does not hear IPv6
		{"tcp", "127.0.0.1:0", "tcp:127.0.0.2:%", false},
		{"tcp", "127.0.0.1:0", "tcp:127.0.0.1:1", false},
		{"unix", path, "unix:" + path, true},
		{"unix", path, "unix:" + path + "2", false},
	} {
		l := listener(t, c.network, c.at)
		wanted := c.wanted
		if a, ok := l.Addr().(*net.TCPAddr); ok && wanted[len(wanted)-1] == '%' {
			wanted = wanted[:len(wanted)-1] + strconv.Itoa(a.Port)
		}
		k := &keeper{handed: &endpoint.Handed{Stored: []endpoint.Stored{{Listener: l, Name: "listen-of-before"}}}}
		none := []net.Listener{}
		got, name := k.take(t.Context(), &none, address(t, wanted))
		if (got == l) != c.found || c.found && (name != "listen-of-before" || len(k.handed.Stored) != 0) {
			t.Errorf("%s as %s: %v %q", place(l), wanted, got, name)
		}
		units := []net.Listener{l}
		k = &keeper{handed: &endpoint.Handed{}}
		if got, _ := k.take(t.Context(), &units, address(t, wanted)); (got == l) != c.found || c.found == (len(units) == 1) {
			t.Errorf("a unit's %s as %s: %v", place(l), wanted, got)
		}
		_ = l.Close()
	}
	// The system has chosen the port, and the name tells which it was.
	a := address(t, "tcp:localhost:0")
	l := listener(t, "tcp", "127.0.0.1:0")
	k := &keeper{handed: &endpoint.Handed{Stored: []endpoint.Stored{{Listener: l, Name: storedName(a)}}}}
	none := []net.Listener{}
	if got, name := k.take(t.Context(), &none, a); got != l || name != storedName(a) {
		t.Errorf("by name: %v %q", got, name)
	}
}

// TestRoomIsGivenBack: when the service manager does not take a socket.
func TestRoomIsGivenBack(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	k := &keeper{notifier: endpoint.NewNotifier(), handed: &endpoint.Handed{}, room: 2}
	for range 3 {
		if l, err := k.listen(t.Context(), address(t, "tcp:127.0.0.1:0")); err == nil {
			t.Fatalf("%v was stored where nobody is", l.Addr())
		}
		if k.room != 2 {
			t.Fatalf("room for %d, want 2", k.room)
		}
	}
}
