package gateway

import (
	"context"

	"sluice/metrics"
	"sluice/nbd"
)

// observed is a Catalog whose connections are counted, each by a part of the
// export's metrics that is its own as long as there are enough.
type observed struct {
	nbd.Catalog
	export *metrics.Export
}

// Open implements nbd.Catalog.
func (o observed) Open(ctx context.Context, name string, peer nbd.Peer) (*nbd.Export, error) {
	x, err := o.Catalog.Open(ctx, name, peer)
	if err == nil {
		x.Observer = o.export.Shard()
	}
	return x, err
}
