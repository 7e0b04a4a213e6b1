package gateway

import (
	"time"

	"sluice/gateway/spec"
)

// State is what an export is doing.
type State string

// The states of an export.
const (
	// Opening: the image is being opened; after a restart this is repeated for as
	// long as the storage is away.
	Opening State = "opening"
	// Serving: all is well.
	Serving State = "serving"
	// Held: requests wait for the storage.
	Held State = "held"
	// Frozen: the storage failed, and changes are refused until "resume".
	Frozen State = "frozen"
	// Swapping: the device stack is being exchanged.
	Swapping State = "swapping"
	// Closing: no more requests are taken.
	Closing State = "closing"
	// Failed: the image cannot be opened, and waiting will not help.
	Failed State = "failed"
)

// Source is where an export comes from.
type Source string

// The sources of exports.
const (
	FromConfig Source = "config" // the daemon's configuration
	FromAPI    Source = "api"    // added at run time
)

// Status describes an export as it is at the moment.
type Status struct {
	Spec  spec.Spec `json:"spec"` // the URL without passwords
	State State     `json:"state"`
	Since time.Time `json:"since"`           // when the state began
	Error string    `json:"error,omitempty"` // why it is held, frozen or failed

	Source Source `json:"source"`

	Size         int64    `json:"size"` // bytes
	ReadOnly     bool     `json:"read_only"`
	Capabilities []string `json:"capabilities"`

	URIs        []string `json:"uris"`                 // of NBD
	File        string   `json:"file,omitempty"`       // path under FUSE
	FileError   string   `json:"file_error,omitempty"` // why there is no file where there should be one
	Passthrough bool     `json:"passthrough"`          // the kernel moves the FUSE file's bytes
	Connections int      `json:"connections"`          // NBD clients
	OpenFiles   int      `json:"open_files"`           // open FUSE files
	HeldNow     int      `json:"held_requests"`
}

// OpStats counts the requests of one operation that came one way.
type OpStats struct {
	Protocol string  `json:"protocol"` // "nbd" or "fuse"
	Op       string  `json:"op"`
	Requests uint64  `json:"requests"`
	Bytes    uint64  `json:"bytes"`
	Errors   uint64  `json:"errors"`
	Seconds  float64 `json:"seconds"`   // all requests together
	P50      float64 `json:"p50"`       // seconds
	P99      float64 `json:"p99"`       // seconds
	InFlight int64   `json:"in_flight"` // right now
}

// Stats counts what happened to an export since it was opened.
type Stats struct {
	Name string    `json:"name"`
	Ops  []OpStats `json:"ops"`
}

// Event tells of a change.
type Event struct {
	Seq    uint64    `json:"seq"` // counts up by one
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"kind"`
	Export string    `json:"export,omitempty"`
	Status *Status   `json:"status,omitempty"` // of the export after it
	Detail string    `json:"detail,omitempty"`
}

// EventKind says what has changed.
type EventKind string

// The kinds of event.
const (
	ExportAdded   EventKind = "added"
	ExportRemoved EventKind = "removed"
	ExportChanged EventKind = "changed" // its settings or its size
	ExportState   EventKind = "state"   // its state
	ExportSwapped EventKind = "swapped" // its device stack
	Reloaded      EventKind = "reloaded"
	Unmounted     EventKind = "unmounted" // somebody else has unmounted the files
	Mounted       EventKind = "mounted"   // they are mounted again
	EventsLost    EventKind = "lost"      // the reader was too slow: look at everything anew
)
