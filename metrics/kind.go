package metrics

import (
	"slices"

	"sluice/block"
)

// numKinds counts the kinds of failure that have a label of their own, and
// block.OK; one more slot takes kinds that this package does not know.
const numKinds = int(block.Canceled) + 1

// kindLabels are the values of the label "kind". They are part of what
// dashboards rely on, unlike the texts of block.Kind.
var kindLabels = [numKinds + 1]string{
	block.OK:          "ok",
	block.IO:          "io",
	block.Invalid:     "invalid",
	block.OutOfRange:  "out_of_range",
	block.NoSpace:     "no_space",
	block.ReadOnly:    "read_only",
	block.Permission:  "permission",
	block.NotFound:    "not_found",
	block.Exists:      "exists",
	block.Busy:        "busy",
	block.Corrupt:     "corrupt",
	block.Transient:   "transient",
	block.Fenced:      "fenced",
	block.Closed:      "closed",
	block.Unsupported: "unsupported",
	block.Canceled:    "canceled",
	numKinds:          "unknown",
}

// alarming are the kinds whose series exist, at zero, as soon as an operation
// has been used: increase() does not see the step of a series that begins at 1,
// and these are the ones that alerts are written for.
var alarming = [...]block.Kind{block.IO, block.NoSpace, block.Corrupt, block.Transient, block.Fenced}

func isAlarming(k block.Kind) bool { return slices.Contains(alarming[:], k) }

// kindSlot is the index of a kind in kindLabels.
func kindSlot(k block.Kind) int { return min(int(k), numKinds) }
