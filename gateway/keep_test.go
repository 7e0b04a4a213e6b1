package gateway

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"sluice/block"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
	"sluice/metrics"
)

// unkept starts a house whose state is lost while an export is added that has a
// socket of its own.
func unkept(t *testing.T, start func(*testing.T, func(*Config)) *house) (*house, spec.Spec) {
	t.Helper()
	var h *house
	h = start(t, func(c *Config) {
		c.Listen = func(ctx context.Context, a endpoint.Address) (net.Listener, error) {
			if err := h.state.Close(); err != nil {
				t.Error(err)
			}
			return endpoint.Listen(ctx, a)
		}
	})
	return h, spec.Spec{Name: "a", URL: h.image("a.img", 1), NBD: []string{"unix:" + filepath.Join(h.dir, "own")}}
}

// An export that cannot be kept is not there.
func TestAddThatIsNotKept(t *testing.T) {
	h, s := unkept(t, newHouse)
	_, err := h.Add(t.Context(), s)
	kindIs(t, "adding what cannot be kept", err, block.Closed)
	if list := h.List(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// An export that cannot be taken out of the state stays: it would come back.
func TestRemovalThatIsNotKept(t *testing.T) {
	h := newHouse(t, nil)
	h.add(spec.Spec{Name: "a", URL: h.image("a.img", 1)})
	before := h.dial("a")
	mustWrite(t, before, 0, []byte("kept"))
	if err := h.state.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		kindIs(t, "a removal that cannot be kept", h.Remove(t.Context(), "a", true), block.Closed)
	}
	if !h.serves("a")() {
		t.Errorf("%+v", h.List())
	}
	mustRead(t, before, 0, []byte("kept"))
	mustRead(t, h.dial("a"), 0, []byte("kept"))
}

// The next export of a name has metrics, however soon it comes: those who want the
// name are many, so that one of them is there at once.
func TestMetricsOfTheNext(t *testing.T) {
	registry := metrics.New(metrics.Build{})
	g := New(Config{Metrics: registry})
	defer func() { _ = g.Close(context.Background()) }()
	s := spec.Spec{Name: "a", URL: "mem://1M"}
	next, stop := make(chan *export), make(chan struct{})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for {
				if e, err := g.reserve(s, FromAPI, 2); err == nil {
					next <- e
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for n := range 20000 {
		e := <-next
		if registry.Export("a") != e.counters {
			t.Errorf("the metrics of the export are gone after %d removals", n)
			break
		}
		g.forget(e)
	}
	close(stop)
	go func() { asking.Wait(); close(next) }()
	for range next {
	}
}
