package httpapi

import (
	"context"

	"sluice/gateway"
	"sluice/gateway/spec"
)

// Gateway is what the API is over. Errors are of the kinds of package block and
// name the export.
type Gateway interface {
	Table
	Changer
}

// Table is the gateway's table of exports. URLs in what it gives have no
// passwords.
type Table interface {
	Add(ctx context.Context, s spec.Spec) (gateway.Status, error)
	Remove(ctx context.Context, name string, force bool) error
	List() []gateway.Status
	Show(name string) (gateway.Status, error)
	// Stats counts for one export, or for all when the name is empty.
	Stats(name string) ([]gateway.Stats, error)
	// Subscribe gives the events after a sequence number, 0 for all that are still
	// known. It never waits for the reader: one that falls behind, or asks for a
	// number that is forgotten or not reached yet (it is from before a restart), gets
	// EventsLost in the place of what it missed, with the number after which it goes
	// on. The channel is closed soon after ctx ends; until then somebody reads it.
	Subscribe(ctx context.Context, after uint64) <-chan gateway.Event
}

// Changer changes exports that are served.
type Changer interface {
	// Change replaces the settings.
	Change(ctx context.Context, name string, s spec.Settings) (gateway.Status, error)
	Resize(ctx context.Context, name string, size int64) (gateway.Status, error)
	// Resume lets an export try again that is held or frozen.
	Resume(ctx context.Context, name string) (gateway.Status, error)
}
