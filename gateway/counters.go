package gateway

import (
	"sluice/backends/location"
	"sluice/block"
)

func redact(url string) string { return location.Redact(url) }

// names are the capabilities by name, never nil.
func names(c block.Cap) []string {
	if list := c.Names(); list != nil {
		return list
	}
	return []string{}
}
