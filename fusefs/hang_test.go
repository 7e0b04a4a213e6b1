package fusefs

import (
	"context"
	"sync"

	"sluice/block"
)

// scripted is a device whose calls end when the test says so, with what it says.
type scripted struct {
	size  int64
	caps  block.Cap
	min   int64
	mu    sync.Mutex
	err   error         // what calls end with
	hold  chan struct{} // when not nil, calls wait for it to be closed
	deaf  bool          // they do so even when their context ends
	calls chan string   // told of each call
}

func newScripted(size int64) *scripted {
	return &scripted{size: size, min: 1, calls: make(chan string, 4096)}
}

func (d *scripted) Info() block.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return block.Info{Size: d.size, Block: block.BlockSize{Min: d.min, Preferred: 4096}, Caps: d.caps}
}

func (d *scripted) set(err error, hold chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.hold = err, hold
}

func (d *scripted) call(ctx context.Context, what string) error {
	d.mu.Lock()
	err, hold, deaf := d.err, d.hold, d.deaf
	d.mu.Unlock()
	d.calls <- what
	if deaf {
		ctx = context.WithoutCancel(ctx)
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (d *scripted) ReadAt(ctx context.Context, _ []byte, _ int64) error { return d.call(ctx, "read") }
func (d *scripted) WriteAt(ctx context.Context, _ []byte, _ int64, _ block.Flags) error {
	return d.call(ctx, "write")
}
func (d *scripted) Flush(ctx context.Context) error { return d.call(ctx, "flush") }
func (d *scripted) Close() error                    { return nil }
