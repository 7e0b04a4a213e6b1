package gateway

import (
	"context"
	"testing"
	"time"

	"sluice/block"
	"sluice/gateway/spec"
)

// A removal, or the end of the gateway, that finds an export which Add has only just
// put into the table waits for Add: both do not succeed.
func TestAddComesBeforeItsEnd(t *testing.T) {
	h := newHouse(t, nil)
	e, err := h.claim(spec.Spec{Name: "a", URL: "mem://1M"})
	if err != nil {
		t.Fatal(err)
	}
	for what, end := range map[string]func(context.Context) error{
		"a removal": func(ctx context.Context) error { return h.Remove(ctx, "a", true) },
		"the end":   func(ctx context.Context) error { return e.endNow(ctx, ctx) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		kindIs(t, what, end(ctx), block.Canceled)
		cancel()
	}
	if found, err := h.find("test", "a"); found != e || e.ended() {
		t.Fatalf("the export has ended before it was open (%v)", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- h.Remove(context.Background(), "a", true) }()
	waitFor(t, "the removal", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.removers == 1 })
	e.fail() // as Add does that cannot open it
	h.forget(e)
	e.control.unlock()
	kindIs(t, "the removal of what could not be added", <-removed, block.NotFound)
	h.add(spec.Spec{Name: "a", URL: "mem://1M"})
}
