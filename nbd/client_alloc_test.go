//go:build !race

package nbd

import (
	"context"
	"testing"

	"sluice/block"
)

// plainDisk has no powers: serving it is the least work.
type plainDisk struct{ block.Device }

func (d plainDisk) Info() block.Info {
	info := d.Device.Info()
	info.Caps &= block.CapFlush | block.CapMultiConn
	return info
}

// TestClientAllocates: reads and writes allocate nothing once they run.
func TestClientAllocates(t *testing.T) {
	uri := ownServer(t, plainDisk{newRAM(t, 8<<20)})
	for name, cfg := range map[string]ClientConfig{
		"extended": {}, "structured": {NoExtended: true}, "simple": {NoStructured: true}, "two": {Connections: 2},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Dial(background, uri, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			small, large := make([]byte, 4096), make([]byte, 1<<20)
			n := testing.AllocsPerRun(200, func() {
				for _, p := range [][]byte{small, large} {
					if c.WriteAt(ctx, p, 0, 0) != nil || c.ReadAt(ctx, p, 4096) != nil {
						t.Error("failed")
					}
				}
				if c.Flush(ctx) != nil {
					t.Error("failed")
				}
			})
			// What the server or the runtime needs now and then is averaged in.
			if n >= 1 {
				t.Errorf("%v allocations per round", n)
			}
		})
	}
}
