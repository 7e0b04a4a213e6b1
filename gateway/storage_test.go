package gateway

import (
	"testing"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/metrics"
)

// reporter is RAM that tells of a storage.
type reporter struct{ *mem.Device }

func (reporter) StorageReport() block.StorageReport { return block.StorageReport{Wanted: 3} }

func TestTheStorageIsAskedAtAScrape(t *testing.T) {
	ram, err := mem.New(4096)
	if err != nil {
		t.Fatal(err)
	}
	on := layering{sparing: true}.build(reporter{ram})
	defer func() { _ = on.top.Close() }()
	var g metrics.Gauges
	if on.gauges(&g); g.Storage == nil || g.Storage.Wanted != 3 {
		t.Errorf("%+v", g.Storage)
	}
	on.storage.set(ram) // another image has taken its place
	if on.gauges(&g); g.Storage != nil {
		t.Errorf("%+v", g.Storage)
	}
}
