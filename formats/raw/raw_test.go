package raw

import (
	"context"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

// What the Device can do and promises, the image can and promises: it is the
// same one.
func TestImageIsTheDevice(t *testing.T) {
	dev, err := mem.New(1<<20 + 5)
	if err != nil {
		t.Fatal(err)
	}
	image, err := Open(context.Background(), dev)
	if err != nil || image != block.Device(dev) {
		t.Errorf("got %v, %v", image, err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}
