package wire

import (
	"time"

	"sluice/gateway"
)

// Daemon is what a daemon says of itself.
type Daemon struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Exports   int       `json:"exports"` // how many there are
	Addresses Addresses `json:"addresses"`
	Problems  []string  `json:"problems,omitempty"` // of the daemon itself, a line each
}

// Addresses are where the daemon can be reached.
type Addresses struct {
	API     []string `json:"api"`               // unix:PATH or tcp:HOST:PORT
	NBD     []string `json:"nbd"`               // likewise
	FUSE    string   `json:"fuse,omitempty"`    // the mount's folder
	Metrics string   `json:"metrics,omitempty"` // HOST:PORT, or unix:PATH of a socket unit
}

// Exports is a list of exports.
type Exports struct {
	Exports []gateway.Status `json:"exports"`
}

// AllStats are the counts of all exports.
type AllStats struct {
	Stats []gateway.Stats `json:"stats"`
}
