package mem

import (
	"testing"

	"sluice/block"
	"sluice/block/blocktest"
)

func TestSuite(t *testing.T) {
	blocktest.Suite{
		Open: func(t testing.TB) block.Device {
			d, err := New(3 << 20)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		MaxSize: 1 << 30,
	}.Run(t)
	blocktest.Suite{
		Name: "odd size",
		Open: func(t testing.TB) block.Device {
			d, err := New(1<<20 + 333)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		OddSize: true,
	}.Run(t)
	blocktest.Suite{
		Name: "read-only",
		Open: func(t testing.TB) block.Device {
			d, err := Open(ctx, "mem://1M", block.OpenOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		ReadOnly: true,
	}.Run(t)
}
