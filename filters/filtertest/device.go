package filtertest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

// NewMem makes a Device of size bytes in RAM.
func NewMem(t testing.TB, size int64) *mem.Device {
	t.Helper()
	d, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// NewImage makes a file of size bytes, all of them a hole, and gives its path. It
// is removed when the test is over.
func NewImage(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// Close closes a Device, which must not fail.
func Close(t testing.TB, d block.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Poor is a Device with the five core methods and no power: what the Device in it
// has besides is neither claimed nor to be found, and no flag is known.
type Poor struct {
	block.Device
	Keep block.Cap // claimed all the same; of the powers without methods
}

// Info implements block.Device.
func (p Poor) Info() block.Info {
	info := p.Device.Info()
	info.Caps &= p.Keep
	return info
}

// WriteAt implements block.Device.
func (p Poor) WriteAt(ctx context.Context, b []byte, off int64, flags block.Flags) error {
	if err := block.CheckChange(false, "write", "", off, flags); err != nil {
		return err
	}
	return p.Device.WriteAt(ctx, b, off, 0)
}

// ReadOnly is a Device without powers that takes no changes.
type ReadOnly struct{ block.Device }

// Info implements block.Device.
func (r ReadOnly) Info() block.Info {
	info := r.Device.Info()
	info.ReadOnly, info.Caps = true, 0
	return info
}

// WriteAt implements block.Device: it fails with ReadOnly.
func (r ReadOnly) WriteAt(_ context.Context, _ []byte, off int64, _ block.Flags) error {
	return block.Errorf(block.ReadOnly, "write", "", off, "")
}
