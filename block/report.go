package block

import "time"

// Reporter is a Device that knows how the storage behind it does. It is no capability:
// whoever opens a Device may ask it, before it is wrapped.
type Reporter interface {
	// StorageReport may be called at any time, also after Close.
	StorageReport() StorageReport
}

// StorageReport is how a storage on the network does.
type StorageReport struct {
	Protocol  string // with its version: "nfs 4.2"
	Connected int    // connections that are up
	Wanted    int    // of so many
	Losses    uint64 // connections lost so far
	// Recoveries counts how often the server turned out to be a new instance, or to
	// have forgotten us.
	Recoveries uint64
	Away       time.Time // since when no connection has been up; zero where one is
	Cause      error     // why
	Kept       int64     // bytes of memory for what was written and is not known to be durable
}
