//go:build interop

package gateway

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/endpoint"
	"sluice/gateway/spec"
)

// waiting is a listener that was there before.
type waiting struct {
	net.Listener
	back, closed *int
}

func (w waiting) PutBack() error { *w.back++; return nil }
func (w waiting) Close() error   { *w.closed++; return w.Listener.Close() }

// TestSocketsOutliveAFileThatIsRefused: what was there before is put back, not closed,
// when the export's file cannot be made, and closed when the export ends.
func TestSocketsOutliveAFileThatIsRefused(t *testing.T) {
	var l net.Listener
	var back, closed int
	h := newHouseWithFiles(t, func(c *Config) {
		c.Listen = func(ctx context.Context, a endpoint.Address) (_ net.Listener, err error) {
			if l == nil {
				l, err = endpoint.Listen(ctx, a)
			}
			return waiting{l, &back, &closed}, err
		}
	})
	dev, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if err := h.cfg.Files.Add(fusefs.File{Name: "a", Device: dev, ID: 99}); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(h.dir, "own")
	s := spec.Spec{Name: "a", URL: "mem://1M", NBD: []string{"unix:" + own}}
	_, err = h.Add(t.Context(), s)
	kindIs(t, "a file that is there", err, block.Exists)
	if back != 1 || closed != 0 {
		t.Errorf("put back %d times, closed %d times", back, closed)
	}
	if err := h.cfg.Files.Remove(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	h.add(s)
	if err := h.Remove(t.Context(), "a", true); err != nil {
		t.Error(err)
	}
	if back != 1 || closed == 0 {
		t.Errorf("after the end: put back %d times, closed %d times", back, closed)
	}
}
