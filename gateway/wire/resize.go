package wire

import "sluice/gateway/spec"

// Resize asks for another size of an export.
type Resize struct {
	Size spec.Size `json:"size"`
	// Shrink permits a size that is less than the present one: what lies behind the
	// new end is lost.
	Shrink bool `json:"shrink,omitempty"`
}
