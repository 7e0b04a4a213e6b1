//go:build interop

package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/fusefs"
	"sluice/gateway/image"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// newHouseWithFiles is newHouse with a FUSE mount.
func newHouseWithFiles(t *testing.T, change func(*Config)) *house {
	t.Helper()
	dir := t.TempDir()
	files, err := fusefs.Mount(fusefs.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return newHouse(t, func(c *Config) {
		c.Files = files
		if change != nil {
			change(c)
		}
	})
}

// exchanges is how often the stack is exchanged under fio.
const exchanges = 1000

// The device of an export is exchanged again and again while fio writes to it and
// verifies: between RAM and files, all of it copied each time.
func TestExchangeUnderFio(t *testing.T) {
	lab.Need(t, "fio")
	const size = 4 << 20
	for _, protocol := range []string{"nbd", "fuse"} {
		t.Run(protocol, func(t *testing.T) {
			h := newHouseWithFiles(t, nil)
			st := h.add(spec.Spec{Name: "a", URL: fmt.Sprintf("mem://%d", size)})
			cfg := lab.FioConfig{URI: st.URIs[0], Size: size, Block: 4 << 10, Runtime: 15 * time.Second}
			if protocol == "fuse" {
				cfg.URI, cfg.File = "", st.File
			}
			for n := 0; n < exchanges; { // a slow machine needs fio more than once
				fio := lab.StartFio(t, cfg)
				before := n
				for ; n < exchanges && fio.Running(); n++ {
					if err := h.Exchange(t.Context(), "a", h.moved(n, size)); err != nil {
						t.Fatal(err)
					}
				}
				r := fio.Finish()
				t.Logf("%d exchanges; fio: %d writes, %d verified, longest request %v", n-before, r.Writes, r.Reads, r.Longest())
				if r.Reads < 1000 {
					t.Errorf("fio verified next to nothing: %+v", r)
				}
			}
			e, _ := h.find("test", "a")
			stall := e.stack.image.Stats()
			t.Logf("%d exchanges, longest stall %v", stall.Exchanges, stall.Longest)
		})
	}
}

// moved copies an image to another place.
func (h *house) moved(n int, size int64) Next {
	return func(ctx context.Context, old block.Device, _ func(Image) error) (block.Device, error) {
		next, err := h.place(ctx, n, size)
		if err != nil {
			return nil, err
		}
		p := make([]byte, size)
		if err := errors.Join(old.ReadAt(ctx, p, 0), next.WriteAt(ctx, p, 0, 0)); err != nil {
			return nil, errors.Join(err, next.Close())
		}
		return next, old.Close()
	}
}

// place is a new image, in RAM or in one of two files in turn.
func (h *house) place(ctx context.Context, n int, size int64) (block.Device, error) {
	if n%2 == 0 {
		return mem.New(size)
	}
	path := filepath.Join(h.dir, fmt.Sprintf("moved-%d", n%4))
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		return nil, err
	}
	return image.Open(ctx, path, image.Format{Name: "raw"}, block.OpenOptions{})
}
