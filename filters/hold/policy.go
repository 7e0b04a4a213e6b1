package hold

import (
	"time"

	"sluice/block"
)

// Mode says what becomes of a request that failed because the storage is away.
type Mode uint8

const (
	// Wait holds it, and those that follow, until the storage is back: clients
	// see a slow disk.
	Wait Mode = iota
	// Fail reports the error at once.
	Fail
	// Freeze reports it and refuses every change from then on, until Resume:
	// what a client has seen fail can not be followed by writes that succeed.
	Freeze
)

// Policy is what a Device does about failures.
type Policy struct {
	Mode Mode

	// Limit is how long Wait holds a request before its error is reported; 0
	// means for ever.
	Limit time.Duration

	// NoSpace counts a full medium among the failures that the policy is for:
	// somebody can make room. Without it only failures of kind block.Transient
	// are.
	NoSpace bool
}

// covers reports whether the policy is for failures of a kind.
func (p Policy) covers(kind block.Kind) bool {
	return p.Mode != Fail && (kind == block.Transient || kind == block.NoSpace && p.NoSpace)
}
