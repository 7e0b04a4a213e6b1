package apitest

import (
	"net"
	"testing"
)

// Server is what is put on top of a gateway: httpapi's, which this package cannot
// import, being needed by its tests.
type Server interface {
	Serve(net.Listener) error
	Close()
}

// Serve serves a listener until the test ends, which fails if that did not go well.
func Serve(t testing.TB, srv Server, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
